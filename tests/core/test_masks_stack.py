"""Stacks of masks obey the algebra of sets, however they are cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trimtab.errors import UserError
from trimtab.kernels.plain import random_words as plain_words
from trimtab.kernels.whole import make_ops
from trimtab.masks.bits import pack, unpack
from trimtab.masks.chance import limit_of, random_words
from trimtab.masks.entries import Chance, MaskEntry, Op, Rule
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.masks.stack import MaskStack, TensorMask

Flags = npt.NDArray[np.bool_]
NAME, SIZE = "model.layers.3.mlp.up_proj.weight", 45
OPS: tuple[Op, ...] = ("and", "or", "minus", "xor", "times")
JOINED = {
    "and": lambda a, b: a & b,
    "times": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "minus": lambda a, b: a & ~b,
    "xor": lambda a, b: a ^ b,
}
flags = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(
    lambda values: np.array(values, dtype=np.bool_)
)
soft = st.lists(st.integers(0, 16), min_size=SIZE, max_size=SIZE).map(
    lambda values: np.array(values, dtype=np.float16) / np.float16(16)
)
shared = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Masks:
    """Writes masks of one tensor into a folder and stacks them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def entry(self, mask: npt.NDArray[np.bool_ | np.float16], **more: object) -> MaskEntry:
        self._count += 1
        path = self._folder / f"{self._count}.mask.safetensors"
        with MaskWriter(path, MaskAbout(builder="test")) as writer:
            if mask.dtype == np.bool_:
                writer.bits(NAME, (5, 9), pack(mask.astype(np.bool_)))
            else:
                writer.soft(NAME, (5, 9), mask.astype(np.float16))
            writer.finish()
        return MaskEntry.model_validate({"path": str(path), **more})

    def of(self, *entries: MaskEntry) -> TensorMask | bool:
        return MaskStack(entries).of(NAME, (5, 9))

    def bits(self, *entries: MaskEntry) -> Flags:
        found = self.of(*entries)
        if isinstance(found, bool):
            return np.full(SIZE, found)
        return unpack(found.bits(0, SIZE), SIZE)

    def shares(self, *entries: MaskEntry) -> npt.NDArray[np.float32]:
        found = self.of(*entries)
        if isinstance(found, bool):
            return np.full(SIZE, found, dtype=np.float32)
        return found.shares(0, SIZE)


@pytest.fixture
def masks(tmp_path: Path) -> Masks:
    return Masks(tmp_path)


@given(st.lists(st.tuples(flags, st.sampled_from(OPS), st.booleans()), max_size=5))
@shared
def test_a_stack_is_set_algebra_from_top_to_bottom(
    masks: Masks, layers: Sequence[tuple[Flags, Op, bool]]
) -> None:
    wanted = np.ones(SIZE, dtype=np.bool_)
    for mask, op, invert in layers:
        wanted = JOINED[op](wanted, ~mask if invert else mask)
    entries = [masks.entry(mask, op=op, invert=invert) for mask, op, invert in layers]
    np.testing.assert_array_equal(masks.bits(*entries), wanted)
    found = masks.of(*entries)
    if isinstance(found, TensorMask):
        assert found.kept == wanted.sum()
        for low, high in [(0, 7), (7, 30), (30, 45), (3, 3)]:
            assert found.bits(low, high).tobytes() == pack(wanted[low:high]).tobytes()
            np.testing.assert_array_equal(found.shares(low, high), wanted[low:high])


@given(flags, flags)
@shared
def test_the_laws_of_sets_hold(masks: Masks, a: Flags, b: Flags) -> None:
    def stack(first: Flags, op: Op, second: Flags, invert: bool = False) -> Flags:
        return masks.bits(
            masks.entry(first, invert=invert), masks.entry(second, op=op, invert=invert)
        )

    for op in ("and", "or", "xor"):
        np.testing.assert_array_equal(stack(a, op, b), stack(b, op, a))
    np.testing.assert_array_equal(stack(a, "and", a), a)
    np.testing.assert_array_equal(stack(a, "or", a), a)
    assert not stack(a, "xor", a).any()
    np.testing.assert_array_equal(~stack(a, "and", b), stack(a, "or", b, invert=True))
    np.testing.assert_array_equal(~stack(a, "or", b), stack(a, "and", b, invert=True))
    np.testing.assert_array_equal(
        stack(a, "xor", b), stack(stack(a, "minus", b), "or", stack(b, "minus", a))
    )


@given(soft, soft)
@shared
def test_the_laws_hold_for_soft_values_as_well(
    masks: Masks, a: npt.NDArray[np.float16], b: npt.NDArray[np.float16]
) -> None:
    x, y = a.astype(np.float32), b.astype(np.float32)
    wanted = {
        "and": np.minimum(x, y), "or": np.maximum(x, y), "minus": np.minimum(x, 1 - y),
        "xor": np.maximum(np.minimum(x, 1 - y), np.minimum(1 - x, y)), "times": x * y,
    }  # fmt: skip
    first = masks.entry(a)
    for op in OPS:
        found = masks.shares(first, masks.entry(b, op=op))
        np.testing.assert_array_equal(found, wanted[op], op)
        assert found.min() >= 0
        assert found.max() <= 1
    inverted = masks.entry(a, invert=True), masks.entry(b, invert=True, op="or")
    np.testing.assert_array_equal(1 - masks.shares(first, masks.entry(b)), masks.shares(*inverted))


@given(soft, flags, st.sampled_from(OPS))
@shared
def test_bits_beside_soft_values_count_as_0_and_1(
    masks: Masks, a: npt.NDArray[np.float16], b: Flags, op: Op
) -> None:
    found = masks.shares(masks.entry(a), masks.entry(b, op=op))
    if op == "or":
        np.testing.assert_array_equal(found, np.where(b, 1, a))
    if op in ("and", "times"):
        np.testing.assert_array_equal(found, np.where(b, a, 0))
    if op == "minus":
        np.testing.assert_array_equal(found, np.where(b, 0, a))
    if op == "xor":
        np.testing.assert_array_equal(found, np.where(b, 1 - a.astype(np.float32), a))


CONSTANTS = [MaskEntry(rule=Rule(cells=())), MaskEntry(rule=Rule())]


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1]), flags, st.sampled_from(OPS),
                          st.booleans()), min_size=1, max_size=5))  # fmt: skip
@shared
def test_what_is_all_alike_joins_a_stack_without_being_read(
    masks: Masks, layers: Sequence[tuple[int | None, Flags, Op, bool]]
) -> None:
    wanted, entries = np.ones(SIZE, dtype=np.bool_), []
    for constant, mask, op, invert in layers:
        own = mask if constant is None else np.full(SIZE, bool(constant))
        wanted = JOINED[op](wanted, ~own if invert else own)
        update = {"op": op, "invert": invert}
        entries.append(
            masks.entry(mask, **update)
            if constant is None
            else CONSTANTS[constant].model_copy(update=update)
        )
    np.testing.assert_array_equal(masks.bits(*entries), wanted)
    if all(constant is not None for constant, _, _, _ in layers):
        assert isinstance(masks.of(*entries), bool)


def test_an_entry_that_is_off_is_absent(masks: Masks) -> None:
    off = masks.entry(np.zeros(SIZE, dtype=np.bool_), on=False)
    assert masks.of(off) is True
    assert MaskStack([MaskEntry(path="/nowhere.mask.safetensors", on=False)]).files == ()


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        ({}, "abcde"),
        ({"layers": (3, 9)}, "ab"),
        ({"layers": (10, 10)}, "c"),
        ({"modules": ("up",)}, "ac"),
        ({"modules": ("up", "embed")}, "ace"),
        ({"modules": ("gate e2",)}, "b"),
        ({"layers": (0, 3), "modules": ("up",)}, "a"),
        ({"tensors": "*.up_proj.*"}, "ac"),
        ({"tensors": "*up_proj"}, ""),
        ({"tensors": "model.layers.?0.*"}, ""),
        ({"cells": ((3, "up"), (-1, "embed"), (3, "q"))}, "ae"),
        ({"cells": ()}, ""),
    ],
)
def test_a_rule_is_of_the_tensors_that_all_of_it_fits(
    rule: dict[str, object], matched: str
) -> None:
    names = {
        "a": NAME, "b": "model.layers.7.block_sparse_moe.experts.2.w1.weight",
        "c": NAME.replace("3", "10"), "d": "lm_head.weight", "e": "model.embed_tokens.weight",
    }  # fmt: skip
    made = Rule.model_validate(rule)
    assert "".join(key for key, name in names.items() if made.matches(name)) == matched


@pytest.mark.parametrize(
    "given_entry",
    [
        {},
        {"path": "a", "random": {"keep": 0.5}},
        {"random": {"keep": 1.5}},
        {"rule": {"layers": (3, 1)}},
        {"rule": {"layers": (-1, 1)}},
        {"path": "a", "op": "nand"},
        {"path": "a", "offf": True},
    ],
)
def test_an_entry_that_says_nothing_or_too_much_is_refused(given_entry: object) -> None:
    with pytest.raises(ValidationError):
        MaskEntry.model_validate(given_entry)


def test_chance_keeps_what_the_words_say_on_every_backend() -> None:
    def drawn(keep: float, seed: int, name: str = NAME) -> Flags:
        found = MaskStack([MaskEntry(random=Chance(keep=keep, seed=seed))]).of(name, (100, 1000))
        assert isinstance(found, TensorMask)
        return unpack(found.bits(0, 100_000), 100_000)

    first = drawn(0.3, 1)
    assert abs(first.mean() - 0.3) < 5 * np.sqrt(0.21 / 1e5)
    np.testing.assert_array_equal(first, drawn(0.3, 1))
    # a smaller share is a part of a larger one, other seeds and tensors are independent
    assert not (drawn(0.2, 1) & ~first).any()
    for other in (drawn(0.3, 2), drawn(0.3, 1, "another")):
        assert abs((first & other).mean() - 0.09) < 0.005
    for start, count in [(0, 5000), (4093, 1027)]:
        wanted = plain_words(77, start, count, torch.device("cpu")).numpy()
        for backend in ("numba", "torch"):
            np.testing.assert_array_equal(make_ops(backend).random_words(77, start, count), wanted)
        np.testing.assert_array_equal(random_words(77, start, count), wanted)
    assert limit_of(1 - 2**-40) == 2**32 - 1
    assert limit_of(2**-40) == 0


def test_the_recipes_seed_decides_where_an_entry_has_none(masks: Masks) -> None:
    def bits(seed: int, own: int | None) -> Flags:
        found = MaskStack([MaskEntry(random=Chance(keep=0.5, seed=own))], seed).of(NAME, (5, 9))
        assert isinstance(found, TensorMask)
        return unpack(found.bits(0, SIZE), SIZE)

    np.testing.assert_array_equal(bits(3, None), bits(0, 3))
    assert (bits(3, None) != bits(4, None)).any()


@pytest.mark.parametrize("keep", [0, 1])
def test_certain_chance_is_no_chance(masks: Masks, keep: int) -> None:
    assert masks.of(MaskEntry(random=Chance(keep=keep))) is bool(keep)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_the_probability_that_is_told_is_that_of_the_bits(
    op: Op, invert: bool, before: bool
) -> None:
    first = MaskEntry(rule=Rule(), invert=not before)
    chance = MaskEntry(random=Chance(keep=0.3), op=op, invert=invert)
    found = MaskStack([first, chance]).of(NAME, (200, 200))
    if isinstance(found, bool):
        return
    assert found.chance is not None
    assert abs(found.mean - found.chance) < 0.02


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("size", [0, 1, 8, 45, 1000])
def test_primitives_take_and_blend_on_every_backend(backend: str, size: int) -> None:
    draw = np.random.default_rng(size)
    values, other = draw.normal(size=(2, size)).astype(np.float32)
    other[: size // 3] = -0.0
    values[: size // 5] = np.nan
    kept = draw.random(size) < 0.5
    share = draw.choice([0, 0.3, 1, 1.9], size).astype(np.float32)
    ops = make_ops(backend)

    def array(given_values: npt.NDArray[np.float32]) -> object:
        return torch.from_numpy(given_values.copy()) if backend == "torch" else given_values.copy()

    taken, blended = array(values), array(values)
    ops.take_packed(taken, array(other), pack(kept))
    assert np.asarray(taken).tobytes() == np.where(kept, values, other).tobytes()
    ops.blend(blended, array(other), share)
    wanted = np.where(
        share == 0, other, np.where(share == 1, values, other + share * (values - other))
    )
    assert np.asarray(blended).tobytes() == wanted.tobytes()


def test_masks_of_two_shapes_are_not_combined(tmp_path: Path) -> None:
    from trimtab.masks.combine import common_shapes
    from trimtab.masks.file import MaskFile

    files = []
    for number, shape in enumerate([(2, 3), (3, 2)]):
        path = tmp_path / f"{number}.mask.safetensors"
        with MaskWriter(path, MaskAbout(builder="test")) as writer:
            writer.constant("a", shape, keep=False)
            writer.finish()
        files.append(MaskFile.open(path))
    with pytest.raises(UserError) as error:
        common_shapes(tuple(files))
    assert error.value.code == "mask_does_not_fit"
