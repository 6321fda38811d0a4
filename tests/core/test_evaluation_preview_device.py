"""Weights made on the device that measures must be those of the merge on the CPU, bit for bit."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_evaluation_preview_weights import METHODS, random_recipe

from trimtab.control import JobCancelled, Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation import preview_device
from trimtab.evaluation.preview import Preview, Request
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_room import Room
from trimtab.evaluation.preview_weights import MergedWeights
from trimtab.masks.entries import MaskEntry
from trimtab.merging.engine import run_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe

#: the CPU as a device of its own
APART = Room(1 << 30, 1 << 30, device=1 << 30)


@pytest.fixture(autouse=True)
def in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_device, "_STEP", 7000)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What was left to the CPU, update by update."""
    seen: list[set[str]] = []
    update = MergedWeights.update

    def watched(self: MergedWeights, plan: Any, control: Any) -> int:
        seen.append({tensor.name for tensor in plan.tensors})
        return update(self, plan, control)

    monkeypatch.setattr(MergedWeights, "update", watched)
    return seen


def apart(recipe: Recipe, room: Room = APART) -> Preview:
    return Preview(Request(recipe), Unattended(), room)


@pytest.fixture
def session() -> Iterator[Preview]:
    made = apart(demo_recipe())
    yield made
    made.close()


def holds_the_saved_merge(session: Preview, recipe: Recipe, folder: Path) -> None:
    session.bring(session.plan(recipe), Unattended())
    run_merge(session.plan(recipe), folder, Unattended(), overwrite=True)
    assert isinstance(session.model, PreviewModel)
    stored = load_file(folder / "model.safetensors")
    assert len(stored) > 80
    for name, expected in stored.items():
        held = session.model.state(name)
        assert torch.equal(held, expected.to(held.dtype)), name


@pytest.mark.parametrize("method", METHODS)
def test_the_model_holds_the_saved_merge(method: str, tmp_path: Path) -> None:
    recipe = random_recipe(random.Random(f"{method} device"), method)
    made = apart(recipe)
    # the second time it is known what is measured once, and the third goes back
    draw = random.Random(method)
    for ratio in (0.3, draw.uniform(0.1, 1.2), 0.3):
        first = recipe.finetuned[0].model_copy(update={"ratio": ratio})
        moved = recipe.model_copy(update={"finetuned": (first, *recipe.finetuned[1:])})
        holds_the_saved_merge(made, moved, tmp_path / "out")
    made.close()


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "slerp", "model_stock", "karcher"])
def test_what_the_device_can_make_is_made_there(
    method: str, session: Preview, on_cpu: list[set[str]]
) -> None:
    recipe = random_recipe(random.Random(f"{method} there"), method)
    made = apart(recipe)
    made.bring(made.plan(recipe), Unattended())
    on_cpu.clear()
    first = recipe.finetuned[0].model_copy(update={"ratio": 0.71, "layers": {}})
    moved = recipe.model_copy(update={"finetuned": (first, *recipe.finetuned[1:])})
    if method == "slerp":
        moved = moved.model_copy(update={"parameters": {"t": 0.37}})
    assert made.bring(made.plan(moved), Unattended()) > 80
    assert on_cpu == []
    made.close()


def test_only_what_a_change_reaches_is_made_again(session: Preview) -> None:
    plan = session.plan(demo_recipe(0.6))
    assert session.bring(plan, Unattended()) == 92
    assert session.bring(session.plan(demo_recipe(0.6)), Unattended()) == 0
    one_layer = session.plan(demo_recipe(0.6, {4: 0.1}))
    in_it = sum(".layers.4." in tensor.name for tensor in plan.tensors)
    assert session.bring(one_layer, Unattended()) == in_it


def test_going_from_one_to_the_other_and_back_leaves_nothing_behind(
    session: Preview, tmp_path: Path
) -> None:
    start = demo_recipe(0.8)
    masks = (MaskEntry.model_validate({"random": {"keep": 0.5}}),)
    masked = start.finetuned[0].model_copy(update={"masks": masks})
    by_mask = start.model_copy(update={"finetuned": (masked, start.finetuned[1])})
    for recipe in (by_mask, demo_recipe(0.4), by_mask, demo_recipe(0.0), by_mask):
        holds_the_saved_merge(session, recipe, tmp_path / "out")


@pytest.mark.parametrize("room", [0, 400_000, 2_000_000])
def test_what_has_no_room_on_the_device_is_made_on_the_cpu(
    room: int, session: Preview, tmp_path: Path, on_cpu: list[set[str]]
) -> None:
    image = sum(header.file_bytes for header in session.lineup.reference.checkpoint.headers)
    made = apart(demo_recipe(), Room(1 << 30, 1 << 30, device=image + room))
    holds_the_saved_merge(made, demo_recipe(0.55), tmp_path / "out")
    assert len(on_cpu) == 1
    assert (len(on_cpu[0]) == 92) == (room == 0)
    assert made._there is not None
    assert made._there.nbytes <= room
    made.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_precision_is_that_of_the_saved_merge(
    dtype: Any, session: Preview, tmp_path: Path
) -> None:
    recipe = demo_recipe(0.45).model_copy(update={"output": Output(dtype=dtype)})
    session.bring(session.plan(recipe), Unattended())
    run_merge(session.plan(recipe), tmp_path / "out", Unattended())
    assert isinstance(session.model, PreviewModel)
    for name, expected in load_file(tmp_path / "out" / "model.safetensors").items():
        held = session.model.state(name)
        assert torch.equal(held, expected.to(held.dtype)), name


def test_an_adapter_is_computed_on_the_cpu(tmp_path: Path) -> None:
    tuned = FineTuned(path=str(demo_paths()["adapter"]), ratio=0.7)
    recipe = demo_recipe().model_copy(update={"finetuned": (tuned,)})
    made = apart(recipe)
    holds_the_saved_merge(made, recipe, tmp_path / "out")
    made.close()


@pytest.mark.parametrize(
    ("value", "output", "code"),
    [(math.nan, "reference", "weights_not_finite"), (6e4, "float16", "result_not_finite")],
)
def test_what_is_not_finite_is_refused_as_a_merge_refuses_it(
    value: float, output: Any, code: str, tmp_path: Path
) -> None:
    for name in ("aligned", "task-poisoned"):
        shutil.copytree(demo_paths()[name], tmp_path / name)
    path = tmp_path / "task-poisoned" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = value
    save_file(tensors, path, metadata={"format": "pt"})

    def recipe(ratio: float) -> Recipe:
        return Recipe(
            aligned=ModelRef(path=str(tmp_path / "aligned")),
            finetuned=(FineTuned(path=str(tmp_path / "task-poisoned"), ratio=ratio),),
            output=Output(dtype=output),
        )

    made = Preview(Request(recipe(2.0), "demo"), Unattended(), APART)
    with pytest.raises(UserError) as caught:
        made.bring(made.plan(recipe(2.0)), Unattended())
    assert caught.value.code == code
    made.bring(made.plan(recipe(0.0)), Unattended())
    assert isinstance(made.model, PreviewModel)
    assert bool(made.model.state("model.norm.weight").isfinite().all()), "it recovers"
    made.close()


class _StopAfter(Unattended):
    def __init__(self, checks: int):
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise JobCancelled


@pytest.mark.parametrize("checks", [0, 40])
def test_a_cancelled_change_is_finished_by_the_next(
    checks: int, session: Preview, tmp_path: Path
) -> None:
    session.bring(session.plan(demo_recipe(0.2)), Unattended())
    with pytest.raises(JobCancelled):
        session.bring(session.plan(demo_recipe(0.9)), _StopAfter(checks))
    for ratio in (0.2, 0.9):
        holds_the_saved_merge(session, demo_recipe(ratio), tmp_path / "out")
