"""A preview streamed block by block against the one that holds its models, and its memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from test_evaluation_preview_weights import METHODS, random_recipe

from trimtab.activations import blocks as blocks_module
from trimtab.activations.blocks import BlockModel
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import JobCancelled, Unattended
from trimtab.demo.lineup import demo_paths
from trimtab.demo.recipe import demo_recipe
from trimtab.errors import UserError
from trimtab.evaluation import preview as module
from trimtab.evaluation.preview import Preview, Request, lend, preview, release
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_room import Room, held_whole
from trimtab.evaluation.preview_stream import ArrivingWeights, StreamedModel
from trimtab.merging.engine import run_merge
from trimtab.merging.recipe import FineTuned, Output, Recipe, open_lineup

WORK = 1 << 30
#: of the demo's models no more than a block fits, and the tensor that is being made
LITTLE = Room(600_000, WORK)


def streamed(recipe: Recipe, room: Room = LITTLE) -> Preview:
    made = Preview(Request(recipe), Unattended(), room)
    assert isinstance(made.model, StreamedModel)
    return made


@pytest.fixture(scope="module")
def held() -> Iterator[Preview]:
    made = Preview(Request(demo_recipe()), Unattended())
    yield made
    made.close()


@pytest.fixture(scope="module")
def little() -> Iterator[Preview]:
    made = streamed(demo_recipe())
    yield made
    made.close()


def answers(session: Preview, recipe: Recipe, against: int | None = 0) -> dict[str, Any]:
    return session.answer(Request(recipe, against=against), Unattended())


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for role in ("merged", "reference", "finetuned"):
        for name, number in expected[role].items():
            assert found[role][name]["n"] == number["n"]
            assert found[role][name]["hits"] == number["hits"]
            assert found[role][name]["value"] == (
                number["value"] and pytest.approx(number["value"], abs=1e-5)
            ), (role, name)


def test_the_gauges_are_those_of_a_preview_that_holds_its_models(
    held: Preview, little: Preview
) -> None:
    for recipe in (demo_recipe(0.6), demo_recipe(-0.3, {3: 2.0}), demo_recipe(0.9)):
        found = answers(little, recipe)
        close(found, answers(held, recipe))
        assert found["streamed"] is True
        assert found["tensors"]["made"] == 92


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_that_pass_are_those_of_the_saved_merge(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = random_recipe(random.Random(f"{method} stream"), method)
    passed: dict[str, bytes] = {}
    make = ArrivingWeights.make

    def seen(self: ArrivingWeights, name: str) -> Any:
        made = make(self, name)
        passed[name] = made.tobytes()
        return made

    session = streamed(recipe)
    answers(session, recipe)
    monkeypatch.setattr(ArrivingWeights, "make", seen)
    answers(session, recipe)
    run_merge(session.plan(recipe), tmp_path / "out", Unattended())
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        for name in names:
            stored = file.get_tensor(name).contiguous().view(-1).view(torch.uint8).numpy()
            assert passed[name] == stored.tobytes(), name
    assert passed.keys() == names
    session.close()


def test_an_adapter_and_another_precision_are_streamed_as_they_are_held() -> None:
    recipe = demo_recipe().model_copy(
        update={
            "finetuned": (FineTuned(path=str(demo_paths()["adapter"]), ratio=0.7),),
            "output": Output(dtype="float32"),
        }
    )
    whole, small = Preview(Request(recipe), Unattended()), streamed(recipe)
    close(answers(small, recipe), answers(whole, recipe))
    whole.close()
    small.close()


class _Reads:
    """Counts the bytes that come from files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.bytes = 0
        read = TensorReader.read_raw

        def counted(this: TensorReader, *args: Any) -> Any:
            found = read(this, *args)
            self.bytes += found.nbytes
            return found

        monkeypatch.setattr(TensorReader, "read_raw", counted)


def test_one_block_is_held_and_of_the_models_what_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    live: list[tuple[int, int]] = []
    run = BlockModel.run

    def seen(self: BlockModel, *args: Any) -> Any:
        weights: Any = self.weights
        live.append((self.live_parameters, weights.arriving.nbytes))
        return run(self, *args)

    monkeypatch.setattr(BlockModel, "run", seen)
    reads = _Reads(monkeypatch)
    read = []
    for models in (600_000, 2_000_000, 2_900_000):
        session = streamed(demo_recipe(), Room(models, WORK))
        assert isinstance(session.model, StreamedModel)
        block = session.model.blocks.most_parameters
        live.clear()
        answers(session, demo_recipe(0.4))
        held = max(kept for _, kept in live)
        assert max(parameters for parameters, _ in live) == block
        assert 4 * block + held <= models
        assert session.model.blocks.live_parameters == 0
        largest = max(tensor.numel for tensor in session.plan(demo_recipe()).tensors)
        assert held >= models - 4 * block - (8 + 2) * largest, "what has room stays"
        reads.bytes = 0
        answers(session, demo_recipe(0.3))
        read.append(reads.bytes)
        session.close()
    assert read[0] > read[1] > read[2] > 0, "what is held is not read again"


class _StopAfter(Unattended):
    def __init__(self, checks: int = 10**9):
        self.checks, self._stop_at = 0, checks

    def check(self) -> None:
        self.checks += 1
        if self.checks > self._stop_at:
            raise JobCancelled


def test_it_stops_between_tensors_and_blocks_and_goes_on_as_if_nothing_was(
    little: Preview,
) -> None:
    expected = answers(little, demo_recipe(0.45))["merged"]
    watching = _StopAfter()
    little.answer(Request(demo_recipe(0.45)), watching)
    assert watching.checks > 92, "at least once a tensor"
    for stop_at in (0, 1, watching.checks // 2, watching.checks - 1):
        with pytest.raises(JobCancelled):
            little.answer(Request(demo_recipe(0.9)), _StopAfter(stop_at))
        assert isinstance(little.model, StreamedModel)
        assert little.model.blocks.live_parameters == 0
    assert answers(little, demo_recipe(0.45))["merged"] == expected


class _Stages(Unattended):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.done = 0

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        self.seen.append((name, total))

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        self.done += items


def test_what_is_reported_says_what_is_streamed() -> None:
    session, control = streamed(demo_recipe()), _Stages()
    session.answer(Request(demo_recipe(), against=0), control)
    assert [name for name, _ in control.seen] == [
        "Streaming the reference", "Streaming the fine-tuned model", "Streaming",
    ]  # fmt: skip
    # packed and padded the first time, afterwards packed alone
    assert [total for _, total in control.seen] == [10 * 3, 10, 10]
    assert control.done == 50, "blocks are counted, not what is made in them"
    session.close()


# What does not fit, or cannot be streamed.


def test_what_is_too_large_for_a_block_says_so() -> None:
    for room in (Room(300_000, WORK), Room(600_000, 1000)):
        with pytest.raises(UserError) as caught:
            Preview(Request(demo_recipe()), Unattended(), room)
        assert caught.value.code == "preview_too_large"
        assert "block by block" in caught.value.why
        assert "merge and save" in caught.value.fix


def test_what_is_not_built_of_blocks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(model: Any, name: str) -> Any:
        raise blocks_module._not_streamable(name, "It is not built of a list of blocks.")

    monkeypatch.setattr(blocks_module, "_find_blocks", unknown)
    with pytest.raises(UserError) as caught:
        Preview(Request(demo_recipe()), Unattended(), LITTLE)
    assert caught.value.code == "preview_too_large"
    assert "It is not built of a list of blocks." in caught.value.why


def test_weights_that_transformers_keeps_otherwise_are_streamed(
    held: Preview, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.evaluation.preview_model import _not_previewable

    def otherwise(self: PreviewModel, reference: Any) -> Any:
        raise _not_previewable("experts")

    monkeypatch.setattr(PreviewModel, "_placed", otherwise)
    made = Preview(Request(demo_recipe()), Unattended())
    assert made.streams
    close(answers(made, demo_recipe(0.6)), answers(held, demo_recipe(0.6)))
    made.close()


def test_a_device_of_its_own_must_hold_the_model_too() -> None:
    lineup = open_lineup(demo_recipe())
    image = 1_600_000
    fits = held_whole(lineup, Room(4 * image, WORK, device=2 * image))
    assert fits is not None
    assert fits.dtype is None
    assert held_whole(lineup, Room(4 * image, WORK, device=image // 2)) is None
    assert held_whole(lineup, Room(image // 2, WORK, device=2 * image)) is None


def test_the_job_asks_others_to_go_before_it_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = iter((LITTLE, Room(1 << 30, WORK)))
    monkeypatch.setattr(module, "free_room", lambda device: next(rooms))
    asked: list[bool] = []
    result = preview(Request(demo_recipe()), Unattended(), lambda: asked.append(True))
    assert asked == [True]
    assert result["streamed"] is False
    release()
    monkeypatch.setattr(module, "free_room", lambda device: LITTLE)
    assert preview(Request(demo_recipe()), Unattended())["streamed"] is True
    assert lend(demo_recipe(), "cpu", Unattended()) is None, "there is no model to lend"
    release()


def test_a_tensor_is_made_in_its_own_place_whatever_shard_it_is_in(tmp_path: Path) -> None:
    recipe = demo_recipe(0.5).model_copy(update={"output": Output(shard_size=1_000_000)})
    session = streamed(recipe)
    plan = session.plan(recipe)
    assert len(plan.shards) == 2
    run_merge(plan, tmp_path / "out", Unattended())
    arriving = ArrivingWeights()
    arriving.follow(plan, Unattended())
    for tensor in plan.tensors:
        stored = np.fromfile(tmp_path / "out" / plan.shards[tensor.shard].name, dtype=np.uint8)
        expected = stored[tensor.offset : tensor.offset + tensor.nbytes]
        assert arriving.make(tensor.name).tobytes() == expected.tobytes(), tensor.name
    arriving.close()
    session.close()
