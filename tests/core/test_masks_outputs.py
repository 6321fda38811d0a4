"""The energy of outputs that masks remove is that of the model's own inputs, and chance's too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from somf_models import tiny_pairs, tiny_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from builders import weights
from trimtab.cli import main
from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.jobs import mask_inputs
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.masks.outputs import OutputEnergy
from trimtab.merging.recipe import Recipe

Floats = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prompts(folder: Path, answers: bool = True) -> Path:
    path = folder / "set.jsonl"
    rows = [{"prompt": p.prompt, "response": p.rejected if answers else ""}
            for p in tiny_pairs().pairs]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def inputs(folder: Path, answers: bool = True) -> dict[str, Floats]:
    """What goes into each Linear, [tokens, in], by hooks on the whole model in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen: dict[str, list[Floats]] = {}
    first = 0
    for name, module in model.named_modules():
        if any(p in name for p in (".layers.", ".h.")) and isinstance(
            module, torch.nn.Linear | Conv1D
        ):

            def hook(_: Any, args: Any, name: str = name) -> None:
                seen.setdefault(f"{name}.weight", []).append(args[0][0, first:].numpy())

            module.register_forward_pre_hook(hook)
    for pair in tiny_pairs().pairs:
        asked = [{"role": "user", "content": pair.prompt}]
        both = [*asked, {"role": "assistant", "content": pair.rejected}]

        def ids(turns: Any, prompt: bool) -> torch.Tensor:
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt
            )
            found: torch.Tensor = tokenizer(
                text, add_special_tokens=False, return_tensors="pt"
            ).input_ids
            return found

        first = ids(asked, True).shape[1] if answers else 0
        with torch.no_grad():
            model(ids(both, False) if answers else ids(asked, True))
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def soft(recipe: Recipe, path: Path) -> dict[str, Floats]:
    """Write soft values for every matrix, and return them."""
    draw = np.random.default_rng(3)
    tensors = weights(Path(recipe.finetuned[0].path))
    found = {n: draw.random(tuple(t.shape)).astype(np.float16) for n, t in tensors.items()
             if t.ndim == 2}  # fmt: skip
    with MaskWriter(path, MaskAbout(builder="test")) as writer:
        for name, values in found.items():
            writer.soft(name, values.shape, values.reshape(-1))
        writer.finish()
    return found


def account(recipe: Recipe, *entries: MaskEntry, **params: Any) -> dict[str, Any]:
    given = {"recipe": recipe.model_dump(mode="json"), **params, "device": "cpu",
             "entries": [e.model_dump() for e in entries]}  # fmt: skip
    return run_job("mask_account", given, Unattended())


def deltas(recipe: Recipe) -> dict[str, Floats]:
    assert recipe.aligned is not None
    tuned, aligned = (weights(Path(m.path)) for m in (recipe.finetuned[0], recipe.aligned))
    return {n: (tuned[n].double() - aligned[n].double()).numpy() for n in tuned}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_output_energy_is_that_of_the_change_times_the_inputs(
    tmp_path: Path, kind: str, answers: bool
) -> None:
    recipe = tiny_recipe(tmp_path, kind=kind)
    mask = tmp_path / "m.mask.safetensors"
    values = soft(recipe, mask)
    found = account(recipe, MaskEntry(path=str(mask)), calibration=str(prompts(tmp_path, answers)))
    assert found["knows"]["output"] == "exact"
    assert found["measured"]["tokens"] == ("answers" if answers else "all")
    everything = np.zeros(2)
    seen = inputs(Path(recipe.finetuned[0].path), answers)
    assert seen
    for name, x in seen.items():
        change, away = deltas(recipe)[name], 1 - values[name].astype(np.float64)
        if kind == "gpt2":
            change, away = change.T, away.T
        energies = [float(((x @ part.T) ** 2).sum()) for part in (change, away * change)]
        part = found["tensors"][name]
        np.testing.assert_allclose([part["output"], part["output_removed"]], energies, rtol=1e-4)
        squares = float((change**2 * (x**2).sum(0)).sum())
        np.testing.assert_allclose(part["output_squares"], squares, rtol=1e-4)
        everything += energies
    total = found["total"]
    np.testing.assert_allclose(total["share_of_output"], everything[1] / everything[0], rtol=1e-4)
    assert found["tensors"][next(n for n in deltas(recipe) if n not in seen)]["output"] == 0


def test_without_correlations_it_is_another_number_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path)
    mask = tmp_path / "m.mask.safetensors"
    values, x = soft(recipe, mask), inputs(Path(recipe.finetuned[0].path))
    given = {"calibration": str(prompts(tmp_path))}
    found = account(recipe, MaskEntry(path=str(mask)), **given, output="diagonal")
    assert found["knows"]["output"] == "diagonal"
    name = next(iter(x))
    change, away = deltas(recipe)[name], 1 - values[name].astype(np.float64)
    part, s = found["tensors"][name], (x[name] ** 2).sum(0)
    wanted = ((away * change) ** 2 * s).sum() / (change**2 * s).sum()
    np.testing.assert_allclose(part["share_of_output"], wanted, rtol=1e-4)
    # a model whose sums would not fit is not asked for them by itself
    monkeypatch.setattr(mask_inputs, "_SMALL", 1000)
    assert account(recipe, **given)["knows"]["output"] == "diagonal"
    assert account(recipe, **given, output="exact")["knows"]["output"] == "exact"


def test_what_is_gathered_is_kept_and_made_again_when_it_is_damaged(
    tmp_path: Path, cache: Path
) -> None:
    recipe, rule = tiny_recipe(tmp_path), MaskEntry(rule=Rule(layers=(0, 0)), op="minus")
    given = {"calibration": str(prompts(tmp_path))}
    first = account(recipe, rule, **given)
    (path,) = (cache / "activations").glob("*.moments.safetensors")
    made = path.read_bytes(), path.stat().st_ino
    assert account(recipe, rule, **given) == first
    assert path.stat().st_ino == made[1]
    path.write_bytes(b"nothing")
    assert account(recipe, rule, **given) == first
    assert path.read_bytes() == made[0]


def test_chance_removes_on_average_what_is_said(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, change = draw.normal(size=(40, 6)) @ draw.normal(size=(6, 6)), draw.normal(size=(5, 6))
    p = 0.3
    taken = [
        float(((x @ ((draw.random(change.shape) < p) * change).T) ** 2).sum()) for _ in range(4000)
    ]
    energy = OutputEnergy(
        float(((x @ change.T) ** 2).sum()), 0.0, float((change**2 * (x**2).sum(0)).sum())
    )
    error = np.std(taken) / np.sqrt(len(taken))
    assert abs(np.mean(taken) - energy.by_chance(p)) < 4 * error
    assert abs(np.mean(taken) - p * energy.total) > 10 * error  # not the share of entries


def test_whole_tensors_are_measured_by_chance_over_all_of_them(tmp_path: Path) -> None:
    recipe, rule = tiny_recipe(tmp_path), MaskEntry(rule=Rule(modules=("q", "down")), op="minus")
    found = account(recipe, rule, calibration=str(prompts(tmp_path)))
    over, total = found["by_chance_over_all"], found["total"]
    p = total["entries_removed"] / total["entries"]
    assert over["tau"] == over["entries"] == p
    assert over["alignment"] is None
    wanted = p * p + p * (1 - p) * total["output_squares"] / total["output"]
    assert over["output"] == pytest.approx(wanted)
    # within the tensors there is no choice
    assert total["output_by_chance"] == pytest.approx(total["output_removed"])


def test_inputs_of_other_models_are_refused(tmp_path: Path) -> None:
    from trimtab.activations.norms import ActNorms

    recipe = tiny_recipe(tmp_path)
    name = next(iter(inputs(Path(recipe.finetuned[0].path))))
    strength = {name: np.ones(5, np.float32)}
    path = tmp_path / "norms.safetensors"
    ActNorms(strength, strength, strength, 1, 1, frozenset()).save(path)
    with pytest.raises(UserError) as error:
        account(recipe, MaskEntry(random=Chance(keep=0.5)), norms=str(path))
    assert error.value.code == "inputs_do_not_fit"


def test_the_command_says_whether_it_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(tmp_path)
    recipe.save(tmp_path / "r.trim")
    soft(recipe, tmp_path / "m.mask.safetensors")
    given = ["mask", "show", str(tmp_path / "r.trim"), str(tmp_path / "m.mask.safetensors"),
             "--calibration", str(prompts(tmp_path))]  # fmt: skip
    assert main([*given, "--limit", "5"]) == 0
    said = capsys.readouterr().out
    assert "exact; of the Linears in the blocks on 5 prompts of set" in said
    assert main([*given, "--outputs", "diagonal"]) == 0
    assert "as if inputs were uncorrelated" in capsys.readouterr().out


def test_of_very_many_tensors_the_sums_are_told_alone(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    chance = MaskEntry(random=Chance(keep=0.5, seed=2))
    whole, brief = (account(recipe, chance, by_tensor=told) for told in (True, False))
    assert whole["tensors"]
    assert brief == {**whole, "tensors": {}}
    given = {"recipe": recipe.model_dump(mode="json"), "entries": [chance.model_dump()],
             "output": str(tmp_path / "c.mask.safetensors"), "by_tensor": False}  # fmt: skip
    control = run_job("mask_control", given, Unattended())
    assert (control["tensors"], control["account"]["tensors"]) == ([], {})
    assert control["error"] < 0.1
