"""Weights in memory against the merge that is saved: the same bytes, whatever the path to them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import JobCancelled, Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.evaluation.preview_weights import HeldReader, MergedWeights
from trimtab.kernels.piece import Outline, Pass, Piece
from trimtab.kernels.whole import default_backend
from trimtab.merging.engine import run_merge
from trimtab.merging.hand import Hand
from trimtab.merging.plan import Plan
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import FineTuned, ModelRef, Output, Recipe, open_lineup
from trimtab.merging.schedule import Task
from trimtab.methods import registry
from trimtab.methods.registry import merge_method

#: methods with the parameters that a test draws at random, and how many models they take
METHODS: dict[str, tuple[dict[str, tuple[float, float]], int]] = {
    "task_arithmetic": ({"scale": (0.2, 1.5)}, 2),
    "linear": ({}, 2),
    "ties": ({"density": (0.2, 0.9)}, 2),
    "slerp": ({"t": (0.05, 0.95)}, 1),
    "dare_ties": ({"density": (0.2, 0.9)}, 2),
    "model_stock": ({}, 2),
    "karcher": ({}, 2),
}


def random_recipe(draw: random.Random, method: str) -> Recipe:
    """A demo recipe with random ratios, a random curve and random parameters."""
    ranges, count = METHODS[method]
    start = demo_recipe()
    layers = {draw.randrange(10): round(draw.uniform(-0.5, 1.5), 3) for _ in range(3)}
    models = [
        start.finetuned[0].model_copy(
            update={"ratio": round(draw.uniform(0.05, 1.2), 4), "layers": layers}
        ),
        start.finetuned[1].model_copy(update={"ratio": round(draw.uniform(0.05, 0.8), 4)}),
    ]
    parameters = {name: round(draw.uniform(*ends), 4) for name, ends in ranges.items()}
    return start.model_copy(
        update={
            "method": method,
            "finetuned": tuple(models[:count]),
            "parameters": parameters,
            "seed": draw.randrange(1000),
        }
    )


def saved(plan: Plan, folder: Path) -> dict[str, bytes]:
    """What a merge writes, each weight file whole."""
    run_merge(plan, folder, Unattended(), overwrite=True)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def in_memory(weights: MergedWeights) -> dict[str, bytes]:
    return {name: image.tobytes() for name, image in weights.files}


@pytest.fixture
def weights() -> Iterator[MergedWeights]:
    made = MergedWeights(room=1 << 30)
    yield made
    made.close()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_in_memory_is_what_a_merge_writes(
    method: str, weights: MergedWeights, tmp_path: Path
) -> None:
    draw = random.Random(f"{method} 1")
    recipe = random_recipe(draw, method)
    plan = plan_merge(recipe, open_lineup(recipe))
    weights.update(plan, Unattended())
    assert in_memory(weights) == saved(plan, tmp_path / "out")


def test_going_from_recipe_to_recipe_ends_where_a_merge_of_the_last_one_does(
    weights: MergedWeights, tmp_path: Path
) -> None:
    draw = random.Random(7)
    lineups: dict[int, Any] = {}
    for method in draw.choices([*METHODS], k=8):
        recipe = random_recipe(draw, method)
        lineup = lineups.setdefault(len(recipe.finetuned), open_lineup(recipe))
        plan = plan_merge(recipe, lineup)
        weights.update(plan, Unattended())
        assert in_memory(weights) == saved(plan, tmp_path / "out"), recipe


def test_only_tensors_that_the_change_reaches_are_made_again(weights: MergedWeights) -> None:
    recipe = demo_recipe(0.6)
    lineup = open_lineup(recipe)
    plan = plan_merge(recipe, lineup)
    assert weights.update(plan, Unattended()) == len(plan.tensors)
    weights.take_changed()
    assert weights.update(plan_merge(recipe, lineup), Unattended()) == 0
    one_layer = demo_recipe(0.6, {4: 0.1})
    made = weights.update(plan_merge(one_layer, lineup), Unattended())
    changed = weights.take_changed()
    assert made == len(changed)
    assert changed == {name for name in lineup.names if ".layers.4." in name}


@pytest.mark.parametrize("rescale", ["density", "l1"])
def test_another_seed_changes_random_masks_and_nothing_else(
    rescale: str, weights: MergedWeights, tmp_path: Path
) -> None:
    update = {"method": "dare_ties", "parameters": {"density": 0.5, "rescale": rescale}}
    recipe = demo_recipe().model_copy(update=update)
    lineup = open_lineup(recipe)
    weights.update(plan_merge(recipe, lineup), Unattended())
    reseeded = plan_merge(recipe.model_copy(update={"seed": 3}), lineup)
    assert weights.update(reseeded, Unattended()) > 0
    assert in_memory(weights) == saved(reseeded, tmp_path / "out")
    plain = demo_recipe()
    weights.update(plan_merge(plain, lineup), Unattended())
    assert (
        weights.update(plan_merge(plain.model_copy(update={"seed": 3}), lineup), Unattended()) == 0
    )


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "della", "slerp", "model_stock"])
def test_what_the_ratios_do_not_touch_is_measured_once(
    method: str, weights: MergedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = Hand._measure

    def counted(self: Hand, task: Task) -> Any:
        measured.append(task.item.tensor.name)
        return measure(self, task)

    monkeypatch.setattr(Hand, "_measure", counted)
    count = 1 if method == "slerp" else 2
    start = demo_recipe().model_copy(update={"method": method})
    lineup = None
    for ratio in (0.6, 0.2, 1.1):
        models = [model.model_copy(update={"ratio": ratio}) for model in start.finetuned[:count]]
        parameters = {
            "slerp": {"t": ratio},
            "model_stock": {},
            "della": {"density": 0.6, "rescale": "l1"},
        }.get(method, {"density": 0.6})
        recipe = start.model_copy(update={"finetuned": tuple(models), "parameters": parameters})
        lineup = lineup or open_lineup(recipe)
        plan = plan_merge(recipe, lineup)
        measured.clear()
        weights.update(plan, Unattended())
        assert bool(measured) == (ratio == 0.6)
        assert in_memory(weights) == saved(plan, tmp_path / "out")


def test_a_method_whose_passes_look_at_the_ratios_is_measured_each_time(
    weights: MergedWeights, tmp_path: Path
) -> None:
    def passes(outline: Outline, **parameters: Any) -> list[Pass]:
        return [
            Pass(
                lambda x: [np.array([sum(x.weights), *map(float, x.weights)])],
                lambda units, facts: float(units[0][0][0]),
            )
        ]

    @merge_method(title="Looks", formula="", reference="", scope="element", passes=passes,
                  backend="any")  # fmt: skip
    def looks(x: Piece) -> Any:
        """Scale the reference by the sum of the ratios."""
        x.ops.scale(x.reference, x.facts[0])
        return x.reference

    try:
        start = demo_recipe().model_copy(update={"method": "looks"})
        lineup = open_lineup(start)
        for ratio in (0.6, 0.25):
            models = [m.model_copy(update={"ratio": ratio}) for m in start.finetuned]
            plan = plan_merge(start.model_copy(update={"finetuned": tuple(models)}), lineup)
            weights.update(plan, Unattended())
            assert in_memory(weights) == saved(plan, tmp_path / "out")
    finally:
        del registry._REGISTRY["looks"]


class _StopAfter(Unattended):
    def __init__(self, checks: int):
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise JobCancelled


@pytest.mark.parametrize("checks", [0, 5, 60])
def test_a_cancelled_change_is_finished_by_the_next(
    checks: int, weights: MergedWeights, tmp_path: Path
) -> None:
    first, second = demo_recipe(0.3), demo_recipe(0.9)
    lineup = open_lineup(first)
    weights.update(plan_merge(first, lineup), Unattended())
    weights.take_changed()
    with pytest.raises(JobCancelled):
        weights.update(plan_merge(second, lineup), _StopAfter(checks))
    reached = weights.take_changed()
    plan = plan_merge(second, lineup)
    made = weights.update(plan, Unattended())
    assert made == len(plan.tensors) - len(reached)
    assert in_memory(weights) == saved(plan, tmp_path / "out")


def test_going_back_after_a_cancel_within_a_tensor_leaves_nothing_of_it(
    weights: MergedWeights, tmp_path: Path
) -> None:
    noise = np.random.default_rng(5)
    for name in ("aligned", "tuned"):
        (tmp_path / name).mkdir()
        tensor = noise.normal(0, 1, (1500, 1500)).astype(np.float32)
        save_file({"w": tensor}, tmp_path / name / "model.safetensors")

    def recipe(ratio: float) -> Recipe:
        tuned = FineTuned(path=str(tmp_path / "tuned"), ratio=ratio)
        return Recipe(aligned=ModelRef(path=str(tmp_path / "aligned")), finetuned=(tuned,))

    first = plan_merge(recipe(0.3), open_lineup(recipe(0.3)))
    weights.update(first, Unattended())
    before = in_memory(weights)
    with pytest.raises(JobCancelled):
        weights.update(plan_merge(recipe(0.9), first.lineup), _StopAfter(3))
    assert in_memory(weights) != before, "it must have been stopped on the way"
    weights.update(first, Unattended())
    assert in_memory(weights) == before


def test_what_does_not_fit_in_memory_is_streamed_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = random_recipe(random.Random(3), "ties")
    plan = plan_merge(recipe, open_lineup(recipe))
    expected = saved(plan, tmp_path / "out")
    for room in (0, 100_000):
        little = MergedWeights(room=room)
        little.update(plan, Unattended())
        assert in_memory(little) == expected
        assert little.nbytes <= plan.bytes_out + room
        little.close()


def test_threads_that_want_the_same_tensor_read_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = np.arange(200_000, dtype=np.float32)
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    reads: list[int] = []
    read = TensorReader.read_raw

    def slow(self: TensorReader, *arguments: Any) -> Any:
        reads.append(1)
        time.sleep(0.02)
        return read(self, *arguments)

    monkeypatch.setattr(TensorReader, "read_raw", slow)
    with HeldReader(tensor.nbytes) as reader, ThreadPoolExecutor(4) as pool:
        parts = [
            pool.submit(reader.read_raw, checkpoint, 0, low, low + 50_000)
            for low in range(0, 200_000, 50_000)
        ]
        found = np.concatenate([part.result() for part in parts])
        assert reader.nbytes == tensor.nbytes
    assert found.tobytes() == tensor.tobytes()
    assert len(reads) == 1


def test_an_adapter_and_another_precision_are_as_a_merge_writes_them(
    weights: MergedWeights, tmp_path: Path
) -> None:
    paths = demo_paths()
    recipe = demo_recipe().model_copy(
        update={
            "finetuned": (FineTuned(path=str(paths["adapter"]), ratio=0.7),),
            "output": Output(dtype="float32"),
        }
    )
    plan = plan_merge(recipe, open_lineup(recipe))
    weights.update(plan, Unattended())
    assert in_memory(weights) == saved(plan, tmp_path / "out")
    halves = recipe.model_copy(update={"output": Output(dtype="float16")})
    plan = plan_merge(halves, open_lineup(halves))
    weights.update(plan, Unattended())
    assert in_memory(weights) == saved(plan, tmp_path / "half")


def test_a_tensor_is_found_by_its_name(weights: MergedWeights, tmp_path: Path) -> None:
    recipe = demo_recipe(0.5)
    plan = plan_merge(recipe, open_lineup(recipe))
    weights.update(plan, Unattended())
    run_merge(plan, tmp_path / "out", Unattended(), backend=default_backend())
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            expected = file.get_tensor(name).contiguous().view(-1)
            import torch

            assert weights.stored(name).tobytes() == expected.view(torch.uint8).numpy().tobytes()
