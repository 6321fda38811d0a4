"""A merge is shown beside what it has to be better than: half of the change, and a random mask."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation_command import FAST, run

from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.evaluation.controls import RANDOM, half_linear, random_masks
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.masks.file import MaskFile
from trimtab.masks.scores import TaskVector
from trimtab.masks.stack import MaskStack
from trimtab.merging.recipe import Recipe, open_lineup

HALF = MaskEntry(random=Chance(keep=0.5, seed=3))
NO_MLP = MaskEntry(rule=Rule(modules=("gate", "up", "down")), op="minus")


def masked(*masks: MaskEntry, seed: int = 0, **more: Any) -> Recipe:
    whole = demo_recipe(0.7)
    model = whole.finetuned[0].model_copy(update={"masks": masks, **more})
    return whole.model_copy(update={"finetuned": (model, whole.finetuned[1]), "seed": seed})


def removed(recipe: Recipe, mask: MaskEntry) -> dict[str, float]:
    """‖τ − m·τ‖² of each tensor in dense float64, from the definition."""
    lineup = open_lineup(recipe)
    found = {}
    with TensorReader() as reader:
        vector = TaskVector(lineup, lineup.finetuned[0], reader)
        stack = MaskStack((mask,), recipe.seed)
        for name in vector.names:
            shape = vector.shape(name)
            size = int(np.prod(shape))
            tau = vector.read(name, 0, size).astype(np.float64)
            one = stack.of(name, shape)
            kept = np.full(size, float(one)) if isinstance(one, bool) else one.shares(0, size)
            found[name] = float((((1 - kept) * tau) ** 2).sum())
    return found


def test_half_of_the_change_is_half_of_each_model_that_takes_part_and_nothing_else() -> None:
    recipe = masked(HALF, layers={0: 0.0}, modules={"q": 0.3}, rescale=True)
    plain = half_linear(recipe)
    assert [model.ratio for model in plain.finetuned] == [0.5, 0.0]
    assert plain.method == "task_arithmetic"
    assert not plain.finetuned[0].masked
    assert not plain.finetuned[0].rescale
    assert (plain.finetuned[0].layers, plain.finetuned[0].modules) == ({}, {})
    assert (plain.aligned, plain.base) == (recipe.aligned, recipe.base)
    by_curve = masked(ratio=0.0, layers={3: 1.0})
    assert half_linear(by_curve).finetuned[0].ratio == 0.5


def test_a_random_mask_removes_the_energy_of_the_one_it_stands_for(tmp_path: Path) -> None:
    recipe = masked(HALF)
    found = random_masks(recipe, tmp_path, Unattended())
    assert found is not None
    [entry] = found.finetuned[0].masks
    assert found.model_copy(update={"finetuned": recipe.finetuned}) == recipe
    wanted, got = removed(recipe, HALF), removed(recipe, entry)
    assert sum(got.values()) == pytest.approx(sum(wanted.values()), rel=1e-3)
    about = MaskFile.open(Path(entry.path)).about
    assert (about.builder, about.parameters["over"]) == ("random control", "tensor")


def test_where_whole_tensors_go_the_energy_is_matched_over_the_model(tmp_path: Path) -> None:
    found = random_masks(masked(NO_MLP), tmp_path, Unattended())
    assert found is not None
    [entry] = found.finetuned[0].masks
    assert MaskFile.open(Path(entry.path)).about.parameters["over"] == "model"
    recipe = masked(NO_MLP)
    wanted, got = removed(recipe, NO_MLP), removed(recipe, entry)
    assert sum(got.values()) == pytest.approx(sum(wanted.values()), rel=1e-3)
    assert any(got[name] > 0 for name, energy in wanted.items() if energy == 0)


def test_the_recipes_seed_decides_and_what_is_known_is_not_drawn_again(tmp_path: Path) -> None:
    def drawn(seed: int) -> Path:
        found = random_masks(masked(HALF, seed=seed), tmp_path, Unattended())
        assert found is not None
        return Path(found.finetuned[0].masks[0].path)

    first, second = drawn(0), drawn(1)
    assert first.read_bytes() != second.read_bytes()
    before = first.stat().st_mtime_ns
    assert drawn(0) == first
    assert first.stat().st_mtime_ns == before


def test_a_recipe_without_masks_has_no_random_control(tmp_path: Path) -> None:
    assert random_masks(masked(), tmp_path, Unattended()) is None
    off = HALF.model_copy(update={"on": False})
    assert random_masks(masked(off), tmp_path, Unattended()) is None


def test_the_command_asks_the_controls_too_and_hashes_every_file(tmp_path: Path) -> None:
    masked(HALF).save(tmp_path / "a.trim")
    status, text, errors = run(
        tmp_path / "a.trim", "--suite", "demo", "--limit", "6", *FAST, "--controls", "--json"
    )
    assert status == 0, errors
    data = json.loads(text)
    names = [target["name"] for target in data["targets"]]
    assert names == [
        "aligned", "task-poisoned", "task-second", "merged", "linear ½", RANDOM,
    ]  # fmt: skip
    assert [t["role"] for t in data["targets"]][-2:] == ["control", "control"]
    hashes = data["scope"]["targets"]["aligned"]["sha256"]
    for name, digest in hashes.items():
        file = demo_paths()["aligned"] / name
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    merged = data["scope"]["targets"][RANDOM]["sha256"]
    assert any(name.endswith(".mask.safetensors") for name in merged)
    assert set(hashes.values()) < set(merged.values())
    status, text, _ = run(
        demo_paths()["aligned"], "--suite", "demo", "--limit", "3", *FAST, "--no-hashes", "--json"
    )
    assert "sha256" not in json.loads(text)["scope"]["targets"]["aligned"]
