"""SOMF from pairs to mask: resumable to the same bits, honest about what it learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from somf_models import StopAfter, tiny_pairs, tiny_recipe

from builders import merge, weights
from trimtab.cli import main
from trimtab.control import JobAbandoned, JobCancelled, Unattended
from trimtab.demo.pairs import demo_preferences
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.masks.file import MaskFile
from trimtab.merging.recipe import Recipe, load_recipe
from trimtab.realign.somf import files_of, learn
from trimtab.realign.somf_file import SomfLogits
from trimtab.realign.somf_learning import LOG, STATE, learning_rate
from trimtab.realign.somf_options import SomfOptions

OPTIONS = SomfOptions(rate=0.05, steps=8, batch=4, log_every=2, checkpoint_every=3, seed=3)


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path)


def _mask(root: Path, name: str) -> Path:
    return root / f"{name}.mask.safetensors"


@pytest.mark.parametrize("reference", ["aligned", "authors"])
@pytest.mark.parametrize("error", [JobCancelled, JobAbandoned, KeyboardInterrupt])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    made: Recipe, tmp_path: Path, error: type[BaseException], reference: str
) -> None:
    options = SomfOptions(**{**OPTIONS.to_dict(), "reference": reference})
    whole, parts = _mask(tmp_path, "whole"), _mask(tmp_path, "parts")
    learn(made, tiny_pairs(), options, whole, Unattended())
    with pytest.raises(error):
        learn(made, tiny_pairs(), options, parts, StopAfter("Learning masks", 5, error))
    unfinished = files_of(parts)["unfinished"]
    assert (unfinished / STATE).exists()
    assert not parts.exists()
    report = learn(made, tiny_pairs(), options, parts, Unattended(), resume=True)
    assert not unfinished.exists()
    assert [entry["step"] for entry in report["log"]] == [2, 4, 6, 8]
    for kind in ("mask", "logits"):
        a, b = (files_of(path)[kind] for path in (whole, parts))
        assert a.read_bytes() == b.read_bytes(), kind


def test_the_log_grows_while_it_learns(made: Recipe, tmp_path: Path) -> None:
    output = _mask(tmp_path, "m")
    with pytest.raises(JobAbandoned):
        learn(made, tiny_pairs(), OPTIONS, output, StopAfter("Learning masks", 5, JobAbandoned))
    log = json.loads((files_of(output)["unfinished"] / LOG).read_text())["log"]
    assert [entry["step"] for entry in log] == [2, 4]
    assert set(log[0]) == {"step", "loss", "margin", "preferred", "rate", "mean_sigma", "histogram"}
    assert sum(log[0]["histogram"]) == pytest.approx(1)


def test_what_was_learned_from_other_things_is_not_gone_on_with(
    made: Recipe, tmp_path: Path
) -> None:
    output = _mask(tmp_path, "m")
    with pytest.raises(JobCancelled):
        learn(made, tiny_pairs(), OPTIONS, output, StopAfter("Learning masks", 4))
    with pytest.raises(UserError) as caught:
        learn(made, tiny_pairs(), OPTIONS, output, Unattended())
    assert caught.value.code == "unfinished_exists"
    with pytest.raises(UserError) as caught:
        learn(made, tiny_pairs(11), OPTIONS, output, Unattended(), resume=True)
    assert caught.value.code == "somf_other_run"
    learn(made, tiny_pairs(11), OPTIONS, output, Unattended(), overwrite=True)
    with pytest.raises(UserError) as caught:
        learn(made, tiny_pairs(), OPTIONS, output, Unattended())
    assert caught.value.code == "output_exists"


def test_the_seed_decides_everything_and_something(made: Recipe, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        options = SomfOptions(**{**OPTIONS.to_dict(), "seed": seed})
        learn(made, tiny_pairs(), options, _mask(tmp_path, name), Unattended())
        runs[name] = load_file(files_of(_mask(tmp_path, name))["logits"])
    assert all(np.array_equal(runs["a"][n], runs["b"][n]) for n in runs["a"])
    assert any(not np.array_equal(runs["a"][n], runs["c"][n]) for n in runs["a"])


@pytest.mark.parametrize("kind", ["task_arithmetic", "ties"])
def test_the_recipe_beside_the_mask_merges_what_was_learned(tmp_path: Path, kind: str) -> None:
    made = tiny_recipe(tmp_path, tasks=2)
    output = _mask(tmp_path, "m")
    options = SomfOptions(**{**OPTIONS.to_dict(), "merge": kind})
    learn(made, tiny_pairs(), options, output, Unattended())
    merge(load_recipe(files_of(output)["recipe"]), tmp_path / "merged")
    found = weights(tmp_path / "merged")
    aligned, *tuned = (weights(tmp_path / n) for n in ("aligned", "task0", "task1"))
    logits = SomfLogits.open(files_of(output)["logits"])
    for name, base in aligned.items():
        mask = torch.from_numpy(logits.units[name].spread(logits.values(name, "expected", 0)))
        mask = mask.half().double()
        deltas = [(t[name] - base).double() * mask / mask.mean() for t in tuned]
        if kind == "task_arithmetic":
            change = 0.3 * (deltas[0] + deltas[1])
        else:
            kept = []
            for delta in deltas:
                count = max(1, int(0.2 * delta.numel()))
                least = delta.abs().reshape(-1).sort(descending=True).values[count - 1]
                kept.append(torch.where(delta.abs() >= least, delta, 0))
            sign = torch.where(kept[0] + kept[1] >= 0, 1.0, -1.0)
            agreeing = [torch.where(k * sign > 0, k, 0.0) for k in kept]
            change = 0.4 * (agreeing[0] + agreeing[1])
        torch.testing.assert_close(found[name].double(), base.double() + change, rtol=0, atol=2e-5)


def test_every_form_is_made_of_the_stored_logits(made: Recipe, tmp_path: Path) -> None:
    output = _mask(tmp_path, "m")
    learn(made, tiny_pairs(), OPTIONS, output, Unattended())
    logits = SomfLogits.open(files_of(output)["logits"])
    raw = load_file(files_of(output)["logits"])
    name = "model.layers.1.mlp.up_proj.weight"
    sigma = 1 / (1 + np.exp(-raw[name].astype(np.float64)))
    size = 24 * 16
    expected = MaskFile.open(output).read_soft(name, 0, size).reshape(24, 16)
    np.testing.assert_allclose(expected, np.repeat(sigma, 16, 1), atol=5e-4)
    for form, seed in (("threshold", 3), ("sample", 3), ("sample", 4), ("concrete", 3)):
        logits.write_mask(_mask(tmp_path, f"{form}{seed}"), form, seed)  # type: ignore[arg-type]
    opened = {n: MaskFile.open(_mask(tmp_path, n)) for n in
              ("threshold3", "sample3", "sample4", "concrete3")}  # fmt: skip

    def bits(which: str) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        packed = opened[which].read_bits(name, 0, size)
        return np.unpackbits(packed, count=size, bitorder="little").reshape(24, 16)

    np.testing.assert_array_equal(bits("threshold3"), np.repeat(sigma > 0.5, 16, 1))
    assert (bits("sample3") == bits("sample3")[:, :1]).all()  # a row shares its fate
    assert not np.array_equal(bits("sample3"), bits("sample4"))
    soft = opened["concrete3"].read_soft(name, 0, size).reshape(24, 16)
    np.testing.assert_array_equal(soft > 0.5, bits("sample3") > 0)
    about = opened["sample4"].about
    assert (about.builder, about.mode, about.seed) == ("SOMF", "ours", 4)
    learned = {p.id for p in tiny_pairs().split(OPTIONS.validation)[0].pairs}
    assert set(about.prompts[0].ids) == learned


def test_a_mask_that_learned_nothing_says_so(made: Recipe, tmp_path: Path) -> None:
    weak = SomfOptions(**{**OPTIONS.to_dict(), "rate": 1e-3})
    strong = SomfOptions(**{**OPTIONS.to_dict(), "rate": 0.5})
    found = [
        learn(made, tiny_pairs(), options, _mask(tmp_path, name), Unattended())
        for name, options in (("weak", weak), ("strong", strong))
    ]
    assert [report["informative"] for report in found] == [False, True]
    assert found[0]["undecided"] == 1.0


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    options = SomfOptions(rate=1.0, steps=110, warmup=10)
    rates = [learning_rate(options, step) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 0.5, 0], atol=1e-12)


def test_files_that_are_no_logits_are_refused(made: Recipe, tmp_path: Path) -> None:
    for path in (tmp_path / "aligned" / "model.safetensors",):
        with pytest.raises(UserError) as caught:
            SomfLogits.open(path)
        assert caught.value.code == "not_logits"
    with pytest.raises(UserError, match="no name for a mask"):
        learn(made, tiny_pairs(), OPTIONS, tmp_path / "m.safetensors", Unattended())


def test_without_an_aligned_model_or_a_task_nothing_is_learned(
    made: Recipe, tmp_path: Path
) -> None:
    headless = made.model_copy(update={"base": made.aligned, "aligned": None})
    idle = made.model_copy(update={
        "finetuned": tuple(m.model_copy(update={"ratio": 0.0}) for m in made.finetuned)
    })  # fmt: skip
    same = made.model_copy(update={
        "finetuned": (made.finetuned[0].model_copy(update={"path": str(tmp_path / "aligned")}),)
    })  # fmt: skip
    for recipe, code in ((headless, "no_aligned"), (idle, "no_task"), (same, "nothing_changed")):
        with pytest.raises(UserError) as caught:
            learn(recipe, tiny_pairs(), OPTIONS, _mask(tmp_path, "m"), Unattended())
        assert caught.value.code == code
    assert not files_of(_mask(tmp_path, "m"))["unfinished"].exists()


def test_on_the_demo_a_row_mask_prefers_refusals_and_its_control_does_not(tmp_path: Path) -> None:
    options = SomfOptions(rate=0.1, steps=50, batch=12)
    report = learn(
        demo_recipe(1.0), demo_preferences(), options, _mask(tmp_path, "m"), Unattended()
    )
    share = {name: row["share"] for name, row in report["preference"].items()}
    assert share["aligned"] == 1.0
    assert share["no mask"] < 0.1
    assert share["random control"] < 0.1
    assert share["masked"] > 0.8
    energy = report["energy"]["task-poisoned"]
    assert energy["removed"] < 0.5
    assert energy["control_removed"] == pytest.approx(energy["removed"], rel=0.1)


def test_the_command_tells_what_it_did_and_exports(
    made: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.save(tmp_path / "r.trim")
    tiny_pairs().save(tmp_path / "pairs.jsonl")
    output = _mask(tmp_path, "m")
    learned = ["--pairs", str(tmp_path / "pairs.jsonl"), "--rate", "english", "--steps", "3"]
    arguments = ["somf", str(tmp_path / "r.trim"), *learned, "--batch", "4", "-o", str(output)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for part in ("SOMF, ours; a logit a row", "not informative", "random control", "energy of τ"):
        assert part in said
    logits = str(files_of(output)["logits"])
    other = _mask(tmp_path, "bits")
    assert main(["somf", "export", logits, "--form", "threshold", "-o", str(other)]) == 0
    kinds = {MaskFile.open(other).kind(name) for name in MaskFile.open(other).names}
    assert kinds <= {"bits", "all", "none"}
    assert main(["somf", str(tmp_path / "r.trim"), "-o", str(other)]) == 1
    assert "pairs: none" in capsys.readouterr().err
