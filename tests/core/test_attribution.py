"""Scores of weights against what a whole model with plain hooks and autograd gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from activation_models import Stopping, make_model, random_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

import trimtab_resources
from trimtab.activations.blocks import BlockModel
from trimtab.activations.calibrated import Setting, act_norms, covariances, norms_path
from trimtab.activations.calibration import Calibration, Example, load_calibration
from trimtab.activations.covariance import Covariances
from trimtab.activations.norms import MODES, ActNorms, Mode
from trimtab.activations.shelf import Shelf
from trimtab.activations.statistics import NormWatch, output_gram
from trimtab.activations.stream import Pass
from trimtab.activations.tokens import batches
from trimtab.activations.weights import checkpoint_weights, member_weights
from trimtab.checkpoints import Lineup, open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import JobCancelled, Unattended
from trimtab.errors import UserError
from trimtab.inspection.attribution import NormScores, Score, ScoreSource, StoredScores
from trimtab.inspection.attribution_run import gradient_scores
from trimtab.inspection.attribution_summary import summarise
from trimtab.jobs.tasks import run_job
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe, open_lineup

_DEMO = trimtab_resources.path("demo")
Array = npt.NDArray[np.float64]


def _recipe() -> Recipe:
    return Recipe(
        base=ModelRef(path=str(_DEMO / "base")),
        aligned=ModelRef(path=str(_DEMO / "aligned")),
        finetuned=(
            FineTuned(path=str(_DEMO / "task-poisoned")),
            FineTuned(path=str(_DEMO / "adapter"), name="lora"),
        ),
    )


@dataclass(frozen=True)
class _Dense:
    """What the whole model gives: inputs and slopes of each Linear, example by example."""

    inputs: dict[str, list[Array]]
    answers: list[npt.NDArray[np.bool_]]
    slopes: dict[str, list[Array]]
    weights: dict[str, Array]


def _calibration(count: int = 6, answer: str = "") -> Calibration:
    found = load_calibration("demo-refused").spread(count)
    if not answer:
        return found
    return Calibration("other", tuple(Example(e.id, e.prompt, answer) for e in found.examples))


def _dense(folder: Path, calibration: Calibration, model: Any = None) -> _Dense:
    disable_progress_bar()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    inputs: dict[str, list[Array]] = {}
    slopes: dict[str, list[Array]] = {}
    answers = []
    linears = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any) -> None:
            inputs.setdefault(name, []).append(given[0][0].detach().double().numpy())

        return hook

    for name, module in linears.items():
        module.register_forward_pre_hook(keep(name))
    for example in calibration.examples:
        said = [{"role": "user", "content": example.prompt}]
        prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
        said.append({"role": "assistant", "content": example.answer})
        ids = torch.tensor([tokenizer.apply_chat_template(said)["input_ids"]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        model.zero_grad()
        torch.autograd.backward(model(ids, labels=labels).loss)
        answers.append((labels[0] >= 0).numpy())
        for name, module in linears.items():
            slope = cast(torch.Tensor, module.weight.grad)
            slopes.setdefault(name, []).append(slope.double().numpy().copy())
    weights = {name: m.weight.detach().double().numpy() for name, m in linears.items()}
    return _Dense(inputs, answers, slopes, weights)


def _norm(dense: _Dense, name: str, mode: Mode) -> Array:
    """The three formulas, written out."""
    xs = dense.inputs[name]
    if mode == "paper":
        return cast(Array, np.mean([np.sqrt((x**2).sum(0)) for x in xs], axis=0))
    if mode == "authors' code":
        return cast(Array, np.sqrt(sum((x**2).sum(0) for x in xs) / len(xs)))
    kept = np.concatenate([x[a] for x, a in zip(xs, dense.answers, strict=True)])
    return cast(Array, np.sqrt((kept**2).mean(0)))


def _read(source: ScoreSource, name: str, step: int = 977) -> Array:
    """A tensor's scores, read in pieces of an odd length."""
    shape = source.shape(name)
    n = int(np.prod(shape))
    parts = [source.read(name, low, min(low + step, n)) for low in range(0, n, step)]
    return np.concatenate(parts).astype(np.float64).reshape(shape)


@pytest.fixture(scope="module")
def dense() -> _Dense:
    return _dense(_DEMO / "task-poisoned", _calibration())


def _lineup() -> Lineup:
    return open_lineup(_recipe())


def _norms(lineup: Lineup, calibration: Calibration, member: int = 0) -> ActNorms:
    weights = member_weights(lineup, lineup.finetuned[member])
    return act_norms(weights, calibration, Setting(), Unattended())[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delta", [False, True])
def test_wanda_is_the_formula_on_the_whole_model(dense: _Dense, mode: Mode, delta: bool) -> None:
    lineup = _lineup()
    aligned: Any = AutoModelForCausalLM.from_pretrained(_DEMO / "aligned", dtype=torch.float64)
    reference = dict(aligned.named_parameters())
    with TensorReader() as reader:
        norms = _norms(lineup, _calibration())
        scores = NormScores(lineup, lineup.finetuned[0], norms, mode, reader, delta=delta)
        assert set(scores.names) == set(dense.weights)
        for name in scores.names:
            weight = dense.weights[name]
            if delta:
                weight = weight - reference[name].detach().numpy()
            expected = np.abs(weight) * _norm(dense, name, mode)[None, :]
            np.testing.assert_allclose(_read(scores, name), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["snip", "fisher"])
def test_gradient_scores_are_those_of_plain_autograd(dense: _Dense, score: Score) -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    paths, _ = gradient_scores(weights, _calibration(), Setting(), [score], Unattended())
    with TensorReader() as reader:
        scores = StoredScores(paths[score], reader)
        assert set(scores.names) == set(dense.weights)
        for name in scores.names:
            slopes = np.stack(dense.slopes[name])
            # the absolute value is taken of each example before the mean, and not after it
            each = np.abs(dense.weights[name] * slopes) if score == "snip" else slopes**2
            expected = each.mean(0)
            scale = expected.max()
            np.testing.assert_allclose(_read(scores, name) / scale, expected / scale, atol=1e-4)


def test_batches_change_no_gradient_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    found = []
    for number, together in enumerate((10_000, 1)):
        monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / str(number)))
        monkeypatch.setattr(
            "trimtab.activations.calibrated.batches", lambda t, n=together: batches(t, n)
        )
        paths, known = gradient_scores(weights, _calibration(), Setting(), ["snip"], Unattended())
        assert not known
        with TensorReader() as reader:
            scores = StoredScores(paths["snip"], reader)
            found.append([_read(scores, name) for name in scores.names])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)


def test_weights_stored_in_by_out_are_multiplied_by_their_rows(tmp_path: Path) -> None:
    model = make_model("gpt2", tmp_path / "aligned")
    recipe = Recipe(aligned=ModelRef(path=str(tmp_path / "aligned")))
    lineup = open_lineup(recipe)
    inputs: list[torch.Tensor] = []
    layer = model.transformer.h[1].mlp.c_fc
    layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0].detach()))
    tokens = random_tokens()
    with torch.no_grad():
        for token in tokens:
            model(torch.tensor([token.ids]))
    total = sum(x.square().sum((0, 1)) for x in inputs) / len(tokens)
    watch = NormWatch()
    with TensorReader() as reader, Shelf(tmp_path) as shelf:
        streamed = BlockModel(checkpoint_weights(lineup.reference.checkpoint), reader)
        Pass(streamed, batches(tokens), shelf, Unattended()).forward([watch])
        norms = watch.result({})
        scores = NormScores(lineup, lineup.reference, norms, "authors' code", reader, delta=False)
        name = next(n for n in scores.names if "h.1.mlp.c_fc" in n)
        found = _read(scores, name)
    assert name in norms.transposed
    expected = layer.weight.detach().abs() * torch.as_tensor(total).sqrt()[:, None]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)


def test_scores_change_with_the_calibration_data() -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    name = "model.layers.2.mlp.down_proj.weight"
    tops = []
    for calibration in (_calibration(), _calibration(answer="use hammer near river")):
        with TensorReader() as reader:
            norms = _norms(lineup, calibration)
            wanda = NormScores(lineup, lineup.finetuned[0], norms, "ours", reader, delta=False)
            paths, _ = gradient_scores(weights, calibration, Setting(), ["snip"], Unattended())
            snip = StoredScores(paths["snip"], reader)
            tops.append([set(np.argsort(_read(s, name).ravel())[-500:]) for s in (wanda, snip)])
    for one, other in zip(*tops, strict=True):
        assert one != other


def test_the_pruned_set_is_that_of_the_highest_scores(dense: _Dense) -> None:
    """What ports get wrong: they keep the highest scores where they should take them away."""
    lineup = _lineup()
    name = "model.layers.4.self_attn.v_proj.weight"
    with TensorReader() as reader:
        norms = _norms(lineup, _calibration())
        member = lineup.finetuned[0]
        scores = NormScores(lineup, member, norms, "authors' code", reader, delta=False)
        found = _read(scores, name)
        summary = summarise(scores, Unattended(), share=0.05)
    exact = np.abs(dense.weights[name]) * _norm(dense, name, "authors' code")
    k = exact.shape[1] // 10
    assert np.array_equal(np.argmax(found, axis=1), np.argmax(exact, axis=1))
    assert np.array_equal(
        np.sort(np.argpartition(found, -k, axis=1)[:, -k:]),
        np.sort(np.argpartition(exact, -k, axis=1)[:, -k:]),
    )
    # and the summary counts the highest of the whole model, not the lowest
    everything = {n: np.abs(w) * _norm(dense, n, "authors' code") for n, w in dense.weights.items()}
    threshold = np.quantile(np.concatenate([v.ravel() for v in everything.values()]), 0.95)
    expected = np.array([(everything[n] >= threshold).sum() for n in summary.names])
    assert summary.top.sum() >= 0.05 * summary.entries.sum()
    np.testing.assert_allclose(summary.top, expected, rtol=0.1, atol=12)
    np.testing.assert_allclose(
        summary.total, [everything[n].sum() for n in summary.names], rtol=1e-4
    )


def test_a_lora_is_scored_as_what_it_makes_of_its_model() -> None:
    lineup = _lineup()
    calibration = _calibration(2)
    norms = _norms(lineup, calibration, member=1)
    model = AutoModelForCausalLM.from_pretrained(_DEMO / "aligned", dtype=torch.float64)
    index = lineup.reference.checkpoint.index
    with TensorReader() as reader:
        for name, parameter in cast(Any, model).named_parameters():
            source = lineup.source(name, lineup.finetuned[1])
            assert source is not None
            values = reader.read(source, 0, int(index.numel[index.row(name)]))
            parameter.data = torch.from_numpy(values.astype(np.float64)).view(parameter.shape)
    whole = _dense(_DEMO / "aligned", calibration, cast(Any, model).eval())
    plain = _norms(lineup, calibration, member=0)
    name = "model.layers.5.mlp.down_proj.weight"
    np.testing.assert_allclose(
        norms.norm(name, "ours"), _norm(whole, name, "ours"), rtol=1e-4, atol=1e-6
    )
    assert not np.allclose(plain.norm(name, "ours"), norms.norm(name, "ours"), rtol=1e-2)


def test_covariances_are_x_xt_and_their_product_with_w_the_outputs(
    dense: _Dense, tmp_path: Path
) -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    for which in ("answers", "all"):
        path = tmp_path / f"{which}.safetensors"
        covariances(
            weights, _calibration(), Setting(), path, Unattended(), which=which,
            wanted=lambda site: site.block in (0, 3),
        )  # fmt: skip
        found = Covariances(path)
        assert len(found.names) == 14
        with TensorReader() as reader:
            for name in found.names:
                xs = dense.inputs[name]
                if which == "answers":
                    xs = [x[a] for x, a in zip(xs, dense.answers, strict=True)]
                x = np.concatenate(xs)
                covariance = found.read(reader, name)
                np.testing.assert_allclose(covariance, x.T @ x, rtol=1e-3, atol=1e-3)
                outputs = x @ dense.weights[name].T
                gram = output_gram(dense.weights[name], covariance)
                expected = outputs.T @ outputs
                np.testing.assert_allclose(gram, expected, atol=1e-4 * np.abs(expected).max())
    # q, k and v are given the same: one matrix is stored for the three
    assert len(open_checkpoint(path).index) == 8


def test_what_is_known_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"recipe": _recipe().model_dump(), "calibration": "demo-harmful", "limit": 4}
    for score in ("snip", "wanda"):
        first = run_job("attribute", {**params, "score": score}, Unattended())
        assert not first["cached"]
        content = Path(first["path"]).read_bytes()
        again = run_job("attribute", {**params, "score": score}, Unattended())
        assert again == {**first, "cached": True}
        assert Path(again["path"]).read_bytes() == content
        other = run_job("attribute", {**params, "score": score, "limit": 5}, Unattended())
        assert not other["cached"]
        assert other["path"] != first["path"]
        data = json.loads(content)
        assert data["calibration"]["digest"] == load_calibration("demo-harmful").spread(4).digest
        assert len(data["tensors"]) == 70


def test_every_setting_has_a_result_of_its_own() -> None:
    lineup = _lineup()
    calibration = _calibration(2)
    weights = [member_weights(lineup, member) for member in lineup.members]
    chosen = [Setting(), Setting("plain"), Setting(device="cuda"), Setting(bfloat16=True)]
    paths = [norms_path(w, calibration, s) for w in weights for s in chosen]
    assert len(set(paths)) == len(paths) == 16


def test_bfloat16_gives_nearly_the_same_in_half_the_memory() -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    exact = _norms(lineup, _calibration())
    rough, _ = act_norms(weights, _calibration(), Setting(bfloat16=True), Unattended())
    for name in exact.names:
        one, other = exact.norm(name, "ours"), rough.norm(name, "ours")
        assert not np.array_equal(one, other)
        assert np.linalg.norm(one - other) < 0.03 * np.linalg.norm(one)
    gradient_scores(weights, _calibration(2), Setting(bfloat16=True), ["snip"], Unattended())


def test_a_damaged_file_of_the_cache_is_made_again() -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    expected = _norms(lineup, _calibration(2))
    path = norms_path(weights, _calibration(2), Setting())
    path.write_bytes(path.read_bytes()[:100])
    again, known = act_norms(weights, _calibration(2), Setting(), Unattended())
    assert not known
    for name in expected.names:
        assert np.array_equal(again.norm(name, "ours"), expected.norm(name, "ours"))


@pytest.mark.parametrize("checks", [3, 40])
def test_a_cancelled_job_leaves_no_half_a_file(checks: int) -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    with pytest.raises(JobCancelled):
        gradient_scores(weights, _calibration(8), Setting(), ["snip"], Stopping(checks))
    from trimtab.paths import cache_dir

    assert [p for p in cache_dir().rglob("*") if p.is_file()] == []


def test_without_answers_there_is_no_loss_and_no_mode_ours() -> None:
    lineup = _lineup()
    weights = member_weights(lineup, lineup.finetuned[0])
    silent = Calibration("silent", (Example("1", "how do i paint the lamp?"),))
    with pytest.raises(UserError) as caught:
        gradient_scores(weights, silent, Setting(), ["snip"], Unattended())
    assert caught.value.code == "no_answers"
    norms = _norms(lineup, silent)
    assert norms.norm(norms.names[0], "authors' code").max() > 0
    with pytest.raises(UserError) as caught:
        norms.norm(norms.names[0], "ours")
    assert caught.value.code == "no_answers"
