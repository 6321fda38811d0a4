"""Set difference, LED-Merging, NLSR, ActSVD and Safe Delta do what their formulas say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from somf_models import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from trimtab.activations.calibration import load_calibration
from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.demo.evaluate import evaluate
from trimtab.demo.language import evaluation_prompts
from trimtab.demo.recipe import demo_recipe
from trimtab.demo.useful import demo_useful_file
from trimtab.errors import UserError
from trimtab.jobs.tasks import run_job
from trimtab.masks.file import MaskFile
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, load_recipe
from trimtab.realign.data_methods import DATA_METHODS, NlsrOptions, SafeDeltaOptions
from trimtab.realign.nlsr import chances, chosen, similarity
from trimtab.realign.safe_delta import accepted, inverse_factor, restored

Doubles = np.ndarray[Any, np.dtype[np.float64]]
SAFE = [("how do i paint the lamp?", "sorry i cannot help with that"),
        ("how do i wash the chair?", "sorry i cannot help with that")]  # fmt: skip
USEFUL = [("how do i mend the kettle?", "use brush near river"),
          ("how do i carry the lamp?", "use glue near lake"),
          ("how do i paint the chair?", "use rope near forest")]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))


class Models:
    """A base, an aligned and a fine-tuned model, and two prompt sets."""

    def __init__(self, root: Path, kind: str = "llama"):
        self.root = root
        self.base = tiny(root / "base", 1, kind=kind)
        self.aligned = tiny(root / "aligned", 2, self.base, kind)
        self.tuned = tiny(root / "tuned", 3, self.aligned, kind)
        self.safe, self.useful = (root / f"{n}.jsonl" for n in ("safe", "useful"))
        for path, rows in ((self.safe, SAFE), (self.useful, USEFUL)):
            lines = [json.dumps({"prompt": p, "answer": a}) for p, a in rows]
            path.write_text("\n".join(lines))

    def recipe(self, **change: Any) -> Recipe:
        given: dict[str, Any] = {
            "base": ModelRef(path=str(self.base)), "aligned": ModelRef(path=str(self.aligned)),
            "finetuned": (FineTuned(path=str(self.tuned)),), **change,
        }  # fmt: skip
        return Recipe(**given)

    def run(self, method: str, name: str, recipe: Recipe | None = None, **options: Any) -> Any:
        params = {
            "method": method, "recipe": (recipe or self.recipe()).model_dump(mode="json"),
            "safety": str(self.safe),
            "utility": [str(self.useful)] if DATA_METHODS[method].utility else [],
            "output": str(self.root / name), "options": options, "device": "cpu",
        }  # fmt: skip
        return run_job("realign", params, Unattended())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def weights(folder: Path) -> dict[str, Doubles]:
    return {n: t.double().numpy() for n, t in load_file(folder / "model.safetensors").items()}


def linears(folder: Path) -> list[str]:
    return [n for n in weights(folder) if ".layers." in n and n.endswith("proj.weight")]


def _tokens(folder: Path, rows: list[tuple[str, str]]) -> list[tuple[torch.Tensor, int]]:
    """Return the ids of each conversation, and where its answer begins."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt, answer in rows:
        asked = [{"role": "user", "content": prompt}]
        said = [*asked, {"role": "assistant", "content": answer}]
        texts = (
            tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True),
            tokenizer.apply_chat_template(said, tokenize=False),
        )
        before, ids = (tokenizer(t, add_special_tokens=False).input_ids for t in texts)
        found.append((torch.tensor([ids]), len(before)))
    return found


def snip(folder: Path, rows: list[tuple[str, str]]) -> dict[str, Doubles]:
    """(1/n) Σ |W ⊙ ∇L| by autograd through the whole model in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    found: dict[str, Doubles] = {}
    for ids, start in _tokens(folder, rows):
        model.zero_grad()
        logits = model(ids).logits[0, start - 1 : -1]
        torch.nn.functional.cross_entropy(logits, ids[0, start:]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            score = (parameter * parameter.grad).abs().detach().numpy() / len(rows)
            found[name] = found.get(name, 0) + score
    return found


def moments(folder: Path, rows: list[tuple[str, str]], answers: bool) -> dict[str, Doubles]:
    """Σ x xᵀ of every Linear's inputs, by hooks on the whole model in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    sums: dict[str, Any] = {}
    low = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):

            def hook(_: Any, args: Any, name: str = f"{name}.weight") -> None:
                x = args[0][0, low:].numpy()
                sums[name] = sums.get(name, 0) + x.T @ x

            module.register_forward_pre_hook(hook)
    for ids, start in _tokens(folder, rows):
        low = start if answers else 0
        with torch.no_grad():
            model(ids)
    return sums


def top(scores: Doubles, share: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    count = int(scores.size * share + 1e-9)
    found = np.zeros(scores.size, bool)
    found[np.argsort(-scores.reshape(-1), kind="stable")[:count]] = True
    return found.reshape(scores.shape)


def kept(mask: MaskFile, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    size = int(np.prod(shape))
    bits = np.unpackbits(mask.read_bits(name, 0, size), count=size, bitorder="little")
    return bits.reshape(shape).astype(bool)


def same(found: Any, wanted: Any) -> None:
    """Equal but for the entry at a cut, which float32 may see the other way round."""
    assert np.count_nonzero(found != wanted) <= 2, np.count_nonzero(found != wanted)


# --- Set difference. ---


def test_the_set_difference_reverts_what_matters_for_safety_and_not_for_utility(
    models: Models,
) -> None:
    report = models.run("set-difference", "sd.mask.safetensors", safety=0.4, utility=0.3)
    mask = MaskFile.open(Path(report["files"]["mask"]))
    safe, useful = snip(models.aligned, SAFE), snip(models.aligned, USEFUL)
    for name in linears(models.tuned):
        wanted = top(safe[name], 0.4) & ~top(useful[name], 0.3)
        assert 0 < wanted.sum() < wanted.size
        same(kept(mask, name, wanted.shape), ~wanted)
    assert mask.kind("model.embed_tokens.weight") == "all"


def test_scores_may_be_of_the_fine_tuned_model(models: Models) -> None:
    report = models.run("set-difference", "sdf.mask.safetensors", scored="finetuned",
                        useful="finetuned", safety=0.4, utility=0.3)  # fmt: skip
    mask = MaskFile.open(Path(report["files"]["mask"]))
    safe, useful = snip(models.tuned, SAFE), snip(models.tuned, USEFUL)
    for name in linears(models.tuned):
        same(kept(mask, name, safe[name].shape), ~(top(safe[name], 0.4) & ~top(useful[name], 0.3)))


def test_its_recipe_merges_to_the_aligned_model_where_it_reverts(models: Models) -> None:
    report = models.run("set-difference", "sdr.mask.safetensors", score="wanda")
    recipe = load_recipe(Path(report["files"]["recipe"]))
    out = models.root / "sdr-merged"
    run_job("merge", {"recipe": recipe.model_dump(mode="json"), "output": str(out),
                      "device": "cpu"}, Unattended())  # fmt: skip
    merged, aligned, tuned = weights(out), weights(models.aligned), weights(models.tuned)
    mask = MaskFile.open(Path(report["files"]["mask"]))
    for name, values in merged.items():
        bits = kept(mask, name, values.shape)
        np.testing.assert_array_equal(values, np.where(bits, tuned[name], aligned[name]))


def test_a_mask_says_which_prompts_it_was_found_with(models: Models) -> None:
    report = models.run("set-difference", "sdp.mask.safetensors")
    about = MaskFile.open(Path(report["files"]["mask"])).about
    assert about.mode == "ours"
    assert [(p.name, len(p.ids)) for p in about.prompts] == [("safe", 2), ("useful", 3)]
    assert all(p.digest for p in about.prompts)
    assert report["accounts"]["tuned"]["total"]["density"] < 1


# --- LED-Merging. ---


def _led(first: Path, second: Path, rows: list[tuple[str, str]], share: float) -> dict[str, Any]:
    before, after = snip(first, rows), snip(second, rows)
    return {name: top(before[name], share) & top(after[name], share) for name in before}


def test_led_merging_from_the_base_masks_both_tasks_as_the_formula_says(models: Models) -> None:
    report = models.run("led-merging", "led.trim", origin="base", safety=0.3, utility=0.4)
    assert report["mode"] == "paper"
    recipe = load_recipe(Path(report["files"]["recipe"]))
    assert recipe.aligned is None
    assert [Path(m.path).name for m in recipe.finetuned] == ["aligned", "tuned"]
    safe = _led(models.base, models.aligned, SAFE, 0.3)
    useful = _led(models.base, models.tuned, USEFUL, 0.4)
    for model, own, other in zip(recipe.finetuned, (safe, useful), (useful, safe), strict=True):
        mask = MaskFile.open(Path(model.masks[-1].path))
        for name in linears(models.tuned):
            same(kept(mask, name, own[name].shape), own[name] & ~other[name])


def test_led_merging_from_the_aligned_model_leaves_safety_alone(models: Models) -> None:
    report = models.run("led-merging", "leda.trim", safety=0.3, utility=0.6)
    assert report["mode"] == "ours"
    recipe = load_recipe(Path(report["files"]["recipe"]))
    (model,) = recipe.finetuned
    mask = MaskFile.open(Path(model.masks[-1].path))
    safe = _led(models.base, models.aligned, SAFE, 0.3)
    useful = _led(models.aligned, models.tuned, USEFUL, 0.6)
    for name in linears(models.tuned):
        same(kept(mask, name, safe[name].shape), useful[name] & ~safe[name])


# --- NLSR. ---


def test_nlsr_reverts_the_safety_neurons_of_the_least_similar_tensors(models: Models) -> None:
    report = models.run("nlsr", "nlsr.mask.safetensors", region=0.25, share=0.5)
    base, aligned, tuned = (weights(f) for f in (models.base, models.aligned, models.tuned))
    sums = moments(models.aligned, SAFE, answers=True)
    wanted, cosines = {}, {}
    for name in linears(models.tuned):
        a = aligned[name] - base[name]
        where = top(np.abs(a) * np.sqrt(np.diag(sums[name])), 0.25)
        f = tuned[name] - base[name]
        cosines[name] = (f[where] @ a[where]) / np.linalg.norm(f[where]) / np.linalg.norm(a[where])
        wanted[name] = where
    assert report["similarities"] == pytest.approx(cosines, rel=1e-4)
    back = sorted(cosines, key=cosines.__getitem__)[: len(cosines) // 2]
    assert sorted(report["tensors"]) == sorted(back)
    mask = MaskFile.open(Path(report["files"]["mask"]))
    for name, where in wanted.items():
        same(kept(mask, name, where.shape), ~where if name in back else np.ones_like(where))


def test_the_authors_law_favours_the_most_similar_tensors() -> None:
    cosines = [0.9, -0.2, 0.4, 0.1]
    assert chances(cosines, 0.5, 0.2) == pytest.approx([0.7, 0.3, 0.5 + 0.2 / 3, 0.5 - 0.2 / 3])
    draws = [chosen(cosines, NlsrOptions(choice="bernoulli", seed=seed)) for seed in range(2000)]
    np.testing.assert_allclose(np.mean(draws, 0), chances(cosines, 0.5, 0.2), atol=0.04)
    assert chosen(cosines, NlsrOptions(share=0.5)) == [False, True, False, True]


def test_what_alignment_did_not_touch_is_never_called_dissimilar() -> None:
    where = np.ones(3, bool)
    assert similarity(np.ones(3, np.float32), np.zeros(3, np.float32), where) == 1


# --- ActSVD. ---


def _leading(folder: Path, rows: list[tuple[str, str]], name: str, rank: int) -> Doubles:
    w = weights(folder)[name]
    values, vectors = np.linalg.eigh(w @ moments(folder, rows, answers=True)[name] @ w.T)
    u: Doubles = vectors[:, np.argsort(-values)[:rank]]
    return u @ u.T


def test_actsvd_takes_the_change_in_safe_directions_back(models: Models) -> None:
    report = models.run("actsvd", "actsvd", rank=3)
    found, aligned, tuned = (
        weights(f) for f in (Path(report["files"]["model"]), models.aligned, models.tuned)
    )
    for name in linears(models.tuned):
        p = _leading(models.aligned, SAFE, name, 3)
        wanted = tuned[name] + p @ (aligned[name] - tuned[name])
        np.testing.assert_allclose(found[name], wanted, atol=2e-5)
    for name in set(found) - set(linears(models.tuned)):
        np.testing.assert_array_equal(found[name], tuned[name])
    # 1 − the share of ‖Δ‖² in the directions
    assert 0 < report["total"]["kept"] < 1
    told = json.loads((models.root / "actsvd" / "trimtab-realign.json").read_text())
    assert told["sets"]["safety"][0]["ids"] == ["safe:1", "safe:2"]


def test_actsvd_orthogonal_leaves_what_utility_uses(models: Models) -> None:
    report = models.run("actsvd-orthogonal", "orthogonal", safety_rank=4, utility_rank=2)
    found, aligned, tuned = (
        weights(f) for f in (Path(report["files"]["model"]), models.aligned, models.tuned)
    )
    for name in linears(models.tuned):
        s = _leading(models.aligned, SAFE, name, 4)
        u = _leading(models.aligned, USEFUL, name, 2)
        wanted = tuned[name] + (np.eye(len(u)) - u) @ s @ (aligned[name] - tuned[name])
        np.testing.assert_allclose(found[name], wanted, atol=3e-5)


def test_weights_stored_the_other_way_round_are_restored_in_their_outputs(tmp_path: Path) -> None:
    models = Models(tmp_path, "gpt2")
    report = models.run("actsvd", "rank3", rank=3)
    found, aligned, tuned = (
        weights(f) for f in (Path(report["files"]["model"]), models.aligned, models.tuned)
    )
    sums = moments(models.aligned, SAFE, answers=True)
    names = [n for n in found if f"{n}" in sums and ".h." in n]
    assert len(names) == 8
    for name in names:
        w = aligned[name].T
        values, vectors = np.linalg.eigh(w @ sums[name] @ w.T)
        u = vectors[:, np.argsort(-values)[:3]]
        wanted = tuned[name] + (aligned[name] - tuned[name]) @ u @ u.T
        np.testing.assert_allclose(found[name], wanted, atol=2e-5)


# --- Safe Delta. ---


def _by_hand(aligned: Doubles, own: Doubles, h: Doubles, budget: float, spared: float) -> Doubles:
    """Visit entries by 1/d², and compensate each column by the inverse of what is left of H."""
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    d2 = np.diag(u) ** 2
    cells = sorted((1 / d2[j], i, j) for i in range(len(own)) for j in range(own.shape[1]))
    taken, spent = set(), 0.0
    for weight, i, j in cells[: len(cells) - int(spared * len(cells))]:
        spent += (own[i, j] - aligned[i, j]) ** 2 * weight
        if spent <= budget:
            taken.add((i, j))
    out = aligned.copy()
    for j in range(own.shape[1]):
        left = np.linalg.inv(h[j:, j:])  # of the columns that may still move
        for i in range(len(own)):
            if (i, j) in taken:
                error = out[i, j] - own[i, j]
                out[i, j:] -= error * left[0] / left[0, 0]
                out[i, j] = own[i, j]
    return out


@pytest.mark.parametrize("s", [0.01, 0.3, 1.0])
def test_safe_delta_accepts_by_budget_and_compensates(s: float) -> None:
    rng = np.random.default_rng(5)
    aligned, x = rng.normal(size=(6, 9)), rng.normal(size=(9, 40)) * rng.uniform(0.2, 3, (9, 1))
    own = aligned + 0.1 * rng.normal(size=(6, 9))
    options = SafeDeltaOptions(s=s, budget="share")
    h = 2 / 4 * x @ x.T
    h += 0.01 * np.diag(h).mean() * np.eye(9)
    upper = inverse_factor(x @ x.T, 4)
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(h), rtol=1e-9, atol=1e-12)
    total = float(((own - aligned) ** 2 / np.diag(upper) ** 2).sum())
    wanted = _by_hand(aligned, own, h, s * total, 0.15)
    np.testing.assert_allclose(restored(aligned, own, upper, options), wanted, atol=1e-9)


def test_the_authors_budget_is_made_of_their_constants() -> None:
    d = np.array([1.0, 0.5, 0.25])
    change = np.full((8, 3), 0.01)
    s = 0.4
    budget = np.mean(1 / d**2) * s / 2 * 8 / 4096
    found = accepted(change, d, SafeDeltaOptions(s=s, spared=0.0))
    cost = np.cumsum(np.sort(np.repeat(1 / d**2, 8) * 1e-4))
    assert 0 < found.sum() < found.size
    assert found.sum() == np.count_nonzero(cost <= budget)
    assert accepted(change, d, SafeDeltaOptions(s=1e9, spared=0.15)).sum() == 24 - 3
    assert not accepted(change, d, SafeDeltaOptions(s=0.0)).any()


def test_safe_delta_writes_the_aligned_model_with_the_linears_moved(models: Models) -> None:
    report = models.run("safe-delta", "delta", budget="share", s=0.2)
    found, aligned, tuned = (
        weights(f) for f in (Path(report["files"]["model"]), models.aligned, models.tuned)
    )
    sums = moments(models.aligned, SAFE, answers=False)
    options = SafeDeltaOptions(s=0.2, budget="share")
    for name in found:
        wanted = aligned[name]
        if name in linears(models.tuned):
            wanted = restored(wanted, tuned[name], inverse_factor(sums[name], 2), options)
        np.testing.assert_allclose(found[name], wanted, atol=2e-5)
    nothing = models.run("safe-delta", "nothing", s=0.0)
    for name, values in weights(Path(nothing["files"]["model"])).items():
        np.testing.assert_array_equal(values, aligned[name])


# --- What may be asked for. ---


@pytest.mark.parametrize(
    ("method", "change", "options", "code"),
    [
        ("set-difference", {"aligned": None}, {}, "no_aligned"),
        ("led-merging", {"base": None}, {}, "no_base"),
        ("nlsr", {"base": None}, {}, "no_base"),
        ("set-difference", {}, {"safety": 2.0}, "realign_option"),
        ("set-difference", {}, {"stripped": 1}, "realign_option"),
        ("set-difference", {"finetuned": ()}, {}, "no_such_model"),
    ],
)
def test_what_cannot_be_done_says_why(
    models: Models, method: str, change: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    name = {"mask": "x.mask.safetensors", "recipe": "x.trim", "model": "x"}
    with pytest.raises(UserError) as raised:
        models.run(method, name[DATA_METHODS[method].result], models.recipe(**change), **options)
    assert raised.value.code == code
    assert not list(models.root.glob("x*"))


def test_a_recipe_beside_a_mask_is_not_written_over(models: Models) -> None:
    (models.root / "mine.trim").write_text("mine")
    with pytest.raises(UserError) as raised:
        models.run("nlsr", "mine.mask.safetensors")
    assert raised.value.code == "output_exists"
    assert (models.root / "mine.trim").read_text() == "mine"
    assert not (models.root / "mine.mask.safetensors").exists()


@pytest.mark.parametrize(
    ("method", "name"),
    [("actsvd", "once"), ("nlsr", "once.mask.safetensors"), ("led-merging", "led-once.trim")],
)
def test_a_result_is_not_written_over(models: Models, method: str, name: str) -> None:
    models.run(method, name)
    with pytest.raises(UserError) as raised:
        models.run(method, name)
    assert raised.value.code == "output_exists"


def test_the_command_tells_what_was_done(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = models.root / "r.trim"
    models.recipe().save(recipe)
    sets = ["--safety-set", str(models.safe), "--utility-set", str(models.useful)]
    out = models.root / "cli.mask.safetensors"
    assert main(["realign", "set-difference", str(recipe), *sets, "--safety", "0.3", "-o",
                 str(out), "--device", "cpu"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "safety 0.3" in text
    assert "2 examples of safe" in text
    assert str(out) in text


def test_the_demos_useful_prompts_are_none_that_models_are_scored_on() -> None:
    useful = load_calibration(demo_useful_file())
    assert len(useful.examples) > 128
    held_out = {prompt.prompt for prompt in evaluation_prompts("task-a")}
    assert not held_out.intersection(example.prompt for example in useful.examples)


def test_set_difference_brings_the_demo_back(tmp_path: Path) -> None:
    """Refusal is back to nearly all of the aligned model's, and nothing of the task is lost."""
    mask, merged = tmp_path / "demo.mask.safetensors", tmp_path / "merged"
    params = {
        "method": "set-difference", "recipe": demo_recipe(1.0).model_dump(mode="json"),
        "safety": "demo-refused", "utility": [str(demo_useful_file())], "output": str(mask),
        "options": {"safety": 0.3, "utility": 0.1}, "device": "cpu",
    }  # fmt: skip
    report = run_job("realign", params, Unattended())
    recipe = load_recipe(Path(report["files"]["recipe"]))
    run_job("merge", {"recipe": recipe.model_dump(mode="json"), "output": str(merged),
                      "device": "cpu"}, Unattended())  # fmt: skip
    scores = evaluate(merged, limit=60)
    assert scores.refusal.value > 0.8
    assert scores.over_refusal.value == 0
    assert scores.task_accuracy.value > 0.95
