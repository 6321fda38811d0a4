"""What the window shows of masks: shares, scores, directions, paint, and learnings cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from somf_models import tiny_pairs, tiny_recipe

from builders import llama_tensors, moved, write_model
from trimtab.control import Unattended
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.masks.file import MaskFile
from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab.project.mask_edits import add_mask, move_mask, paint, remove_mask
from trimtab.realign.somf import files_of, learn
from trimtab.realign.somf_file import SomfLogits
from trimtab.realign.somf_learning import ENOUGH
from trimtab.realign.somf_options import SomfOptions


@pytest.fixture
def lineup(tmp_path: Path) -> dict[str, Path]:
    base = llama_tensors(0, torch.float32)
    aligned = moved(base, 1, 0.1)
    finetuned = moved(aligned, 2, 0.05)
    finetuned["model.embed_tokens.weight"][:7] = aligned["model.embed_tokens.weight"][:7]
    models = {"base": base, "aligned": aligned, "tuned": finetuned}
    return {name: write_model(tmp_path / name, tensors) for name, tensors in models.items()}


@pytest.fixture
def recipe(lineup: dict[str, Path]) -> Recipe:
    return Recipe(
        base=ModelRef(path=str(lineup["base"])), aligned=ModelRef(path=str(lineup["aligned"])),
        finetuned=(FineTuned(path=str(lineup["tuned"])),),
    )  # fmt: skip


def run(name: str, recipe: Recipe, **params: Any) -> dict[str, Any]:
    return run_job(name, {"recipe": recipe.model_dump(mode="json"), **params}, Unattended())


def difference(lineup: dict[str, Path], one: str, other: str) -> dict[str, np.ndarray]:
    first, second = (load_file(lineup[k] / "model.safetensors") for k in (one, other))
    return {name: first[name] - second[name] for name in first}


def test_shares_are_told_after_each_entry_that_is_on(recipe: Recipe) -> None:
    first = MaskEntry(rule=Rule(layers=(0, 0)), op="minus")
    off = MaskEntry(rule=Rule(modules=("q",)), op="minus", on=False)
    back = MaskEntry(rule=Rule(layers=(0, 0), modules=("q",)), op="or")
    found = run("mask_shares", recipe, entries=[e.model_dump() for e in (first, off, back)])
    sizes = {name: t["entries"] for name, t in found["tensors"].items()}
    total = sum(sizes.values())
    inside = sum(n for name, n in sizes.items() if ".layers.0." in name)
    query = next(n for name, n in sizes.items() if ".layers.0." in name and "q_proj" in name)
    assert found["so_far"] == [
        pytest.approx(1 - inside / total), None, pytest.approx(1 - (inside - query) / total),
    ]  # fmt: skip
    kept = {name: t["kept"] for name, t in found["tensors"].items()}
    assert all(
        kept[name] == (0 if ".layers.0." in name and "q_proj" not in name else sizes[name])
        for name in sizes
    )


def test_without_masks_everything_is_kept(recipe: Recipe) -> None:
    found = run("mask_shares", recipe)
    assert found["so_far"] == []
    assert all(t["kept"] == t["entries"] for t in found["tensors"].values())


def test_scores_are_counted_once_and_a_threshold_keeps_what_the_counts_say(
    recipe: Recipe, lineup: dict[str, Path], tmp_path: Path
) -> None:
    found = run("mask_scores", recipe, of={"score": "magnitude"})
    values = np.abs(
        np.concatenate([t.ravel() for t in difference(lineup, "tuned", "aligned").values()])
    )
    edges, counts = np.array(found["edges"]), np.array(found["counts"])
    assert found["zeros"] == int((values == 0).sum()) == 7 * 16
    assert counts.sum() + found["zeros"] == values.size
    np.testing.assert_array_equal(counts, np.histogram(values[values > 0], edges)[0])
    cut = float(edges[len(edges) // 2])
    out = tmp_path / "cut.mask.safetensors"
    of = {"score": "magnitude", "threshold": cut}
    total = run("mask_build", recipe, output=str(out), of=of)["account"]["total"]
    kept = counts[len(edges) // 2 :].sum() / values.size
    assert total["density"] == pytest.approx(kept)


def test_alignments_directions_hold_what_dense_algebra_says(
    recipe: Recipe, lineup: dict[str, Path]
) -> None:
    entry = MaskEntry(random=Chance(keep=0.5, seed=1))
    found = run("mask_overlap", recipe, entries=[entry.model_dump()])["tensors"]
    mask_shares = run("mask_shares", recipe, entries=[entry.model_dump()])["tensors"]
    alignment = difference(lineup, "aligned", "base")
    for name, tau in difference(lineup, "tuned", "aligned").items():
        if tau.ndim < 2:
            assert name not in found
            continue
        a = alignment[name].astype(np.float64)
        k = max(1, min(16, min(a.shape) // 8))
        left = np.linalg.svd(a)[0][:, :k]
        wide = tau.astype(np.float64)
        assert found[name]["whole"] == pytest.approx((wide**2).sum(), rel=1e-5)
        assert found[name]["inside"] == pytest.approx(((left.T @ wide) ** 2).sum(), rel=1e-3)
        assert 0 < found[name]["kept_whole"] < found[name]["whole"]
        assert len(found[name]["chance"]) == 20
        assert np.mean(found[name]["chance"]) == pytest.approx(
            found[name]["whole"] * k / a.shape[0], rel=0.5
        )
        assert 0 < mask_shares[name]["kept"] < mask_shares[name]["entries"]


def test_painting_again_moves_a_cell_and_leaves_other_masks_alone(recipe: Recipe) -> None:
    rule = MaskEntry(rule=Rule(layers=(0, 0)), name="first")
    recipe = add_mask(recipe, 0, rule).after
    recipe = paint(recipe, 0, [(1, "q"), (0, "k"), (-1, "embed")], keep=False).after
    recipe = paint(recipe, 0, [(1, "q")], keep=True).after
    first, kept, removed = recipe.finetuned[0].masks
    assert first == rule
    assert kept.rule == Rule(cells=((1, "q"),))
    assert removed.rule == Rule(cells=((-1, "embed"), (0, "k")))
    assert (kept.op, removed.op) == ("or", "minus")
    assert (kept.name, removed.name) == ("Painted to keep: layer 1", "Painted to remove: layer 0")
    recipe = move_mask(recipe, 0, 2, 0).after
    assert [m.name for m in recipe.finetuned[0].masks] == [removed.name, "first", kept.name]
    assert remove_mask(recipe, 0, 1).after.finetuned[0].masks == (removed, kept)


def test_a_painting_that_was_switched_off_is_painted_over_and_not_into(recipe: Recipe) -> None:
    recipe = paint(recipe, 0, [(1, "q")], keep=False).after
    off = recipe.finetuned[0].masks[0].model_copy(update={"on": False})
    model = recipe.finetuned[0].model_copy(update={"masks": (off,)})
    recipe = recipe.model_copy(update={"finetuned": (model,)})
    masks = paint(recipe, 0, [(0, "q")], keep=False).after.finetuned[0].masks
    assert masks[0] == off
    assert masks[1].rule == Rule(cells=((0, "q"),))


def test_a_learning_that_was_told_enough_ends_there_and_is_written(tmp_path: Path) -> None:
    class Enough(Unattended):
        def __init__(self) -> None:
            self.steps = 0

        def advance(self, items: int = 0, n_bytes: int = 0) -> None:
            folder = files_of(out)["unfinished"]
            self.steps += 1
            if (folder / "log.json").exists():
                (folder / ENOUGH).touch()

    out = tmp_path / "some.mask.safetensors"
    options = SomfOptions(rate=0.05, steps=8, batch=4, log_every=3, seed=3)
    report = learn(tiny_recipe(tmp_path), tiny_pairs(), options, out, Enough())
    assert report["steps_taken"] == 3
    assert not files_of(out)["unfinished"].exists()
    assert MaskFile.open(out).names


def test_a_cut_of_the_probabilities_is_the_masks_and_is_written_down(tmp_path: Path) -> None:
    out = tmp_path / "some.mask.safetensors"
    options = SomfOptions(rate=0.1, steps=6, batch=4, seed=3)
    learn(tiny_recipe(tmp_path), tiny_pairs(), options, out, Unattended())
    path = files_of(out)["logits"]
    told = run_job("somf_scores", {"logits": str(path)}, Unattended())
    logits = SomfLogits.open(path)
    sure = np.concatenate([
        np.repeat(logits.probabilities(name).ravel(), units.entries)
        for name, units in logits.units.items()
    ])  # fmt: skip
    np.testing.assert_array_equal(told["counts"], np.histogram(sure, 100, (0.0, 1.0))[0])
    cut, other = float(np.quantile(sure, 0.7)), tmp_path / "cut.mask.safetensors"
    params = {"logits": str(path), "output": str(other), "form": "threshold", "cut": cut}
    run_job("somf_export", params, Unattended())
    mask = MaskFile.open(other)
    assert mask.about.parameters["cut"] == cut
    kept = 0
    for name, units in logits.units.items():
        numel = int(np.prod(units.shape))
        kept += int(np.unpackbits(mask.read_bits(name, 0, numel), bitorder="little").sum())
    assert kept == pytest.approx(int((sure > cut).sum()), abs=0.01 * sure.size)
    assert 0 < kept < sure.size
