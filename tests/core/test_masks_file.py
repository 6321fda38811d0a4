"""Mask files: what is written is read back, whole or not at all, and nothing in them is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from builders import entry, raw_file
from trimtab.errors import UserError
from trimtab.masks.bits import shifted
from trimtab.masks.file import MaskAbout, MaskFile, MaskWriter, Prompts

ABOUT = MaskAbout(
    builder="wanda", mode="authors' code", parameters={"keep": 0.1}, seed=3, lineup="abc",
    prompts=(Prompts(name="harmful", digest="d1", ids=("h1", "h2")),),
)  # fmt: skip


def little(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.packbits(kept, bitorder="little")


@pytest.fixture
def kept() -> npt.NDArray[np.bool_]:
    return np.random.default_rng(0).random((13, 7)) < 0.5


@pytest.fixture
def path(tmp_path: Path, kept: npt.NDArray[np.bool_]) -> Path:
    path = tmp_path / "one.mask.safetensors"
    with MaskWriter(path, ABOUT) as writer:
        writer.bits("bits", (13, 7), little(kept))
        writer.constant("gone", (3, 2), keep=False)
        writer.soft("soft", (5,), np.linspace(0, 1, 5).astype(np.float16))
        writer.constant("all", (4,), keep=True)
        writer.finish()
    return path


def test_what_is_written_is_read_back(path: Path, kept: npt.NDArray[np.bool_]) -> None:
    file = MaskFile.open(path)
    assert file.about == ABOUT
    assert file.names == ("bits", "gone", "soft", "all")
    assert [file.kind(n) for n in file.names] == ["bits", "none", "soft", "all"]
    assert file.kind("another") == "all"
    assert file.shape("bits") == (13, 7)
    assert file.shape("another") is None
    for low in range(0, 91, 5):
        for high in range(low, 92, 3):
            bits = file.read_bits("bits", low, high)
            assert bits.tobytes() == little(kept.reshape(-1)[low:high]).tobytes()
    np.testing.assert_array_equal(file.read_soft("soft", 1, 4), [0.25, 0.5, 0.75])
    np.testing.assert_array_equal(file.read_soft("gone", 0, 3), [0, 0, 0])
    np.testing.assert_array_equal(file.read_bits("another", 2, 12), [255, 3])
    np.testing.assert_array_equal(file.read_soft("bits", 3, 9), kept.reshape(-1)[3:9])


def test_the_formats_own_library_reads_it(path: Path, kept: npt.NDArray[np.bool_]) -> None:
    found = load_file(path)
    assert found.keys() == {"bits", "soft"}
    assert found["bits"].tobytes() == little(kept).tobytes()
    assert found["soft"].dtype == np.float16


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 7))
def test_bits_are_read_from_any_place(flags: list[bool], first: int) -> None:
    found = shifted(little(np.array([False] * first + flags, dtype=np.bool_)), first, len(flags))
    assert found.tobytes() == little(np.array(flags, dtype=np.bool_)).tobytes()


def test_what_is_all_alike_is_only_named(tmp_path: Path) -> None:
    path = tmp_path / "x.mask.safetensors"
    with MaskWriter(path, ABOUT) as writer:
        writer.bits("a", (3, 3), np.array([255, 1], dtype=np.uint8))
        writer.bits("b", (9,), iter([np.zeros(1, np.uint8), np.array([254], np.uint8)]))
        writer.bits("c", (9,), np.array([255, 0], dtype=np.uint8))
        writer.soft("d", (2, 2), np.ones(4, dtype=np.float16))
        writer.soft("e", (4,), iter([np.zeros(3, np.float16), np.zeros(1, np.float16)]))
        writer.bits("empty", (0, 4), np.zeros(0, dtype=np.uint8))
        writer.finish()
    file = MaskFile.open(path)
    kinds = {n: file.kind(n) for n in file.names}
    assert kinds == {"a": "all", "b": "none", "c": "bits", "d": "all", "e": "none", "empty": "all"}
    assert load_file(path)["c"].tolist() == [255, 0]


def test_the_last_bytes_spare_bits_are_cleared_and_the_callers_are_left(tmp_path: Path) -> None:
    path, given_bits = tmp_path / "x.mask.safetensors", np.array([254], dtype=np.uint8)
    with MaskWriter(path, ABOUT) as writer:
        writer.bits("a", (3,), given_bits)
        writer.finish()
    assert load_file(path)["a"].tolist() == [6]
    assert given_bits.tolist() == [254]


def test_a_mask_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.mask.safetensors"

    def breaks() -> Iterator[npt.NDArray[np.uint8]]:
        yield np.array([1], dtype=np.uint8)
        raise RuntimeError

    with pytest.raises(RuntimeError), MaskWriter(path, ABOUT) as writer:
        writer.bits("a", (16,), breaks())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="could not be written"):
        MaskWriter(tmp_path / "no folder" / "x.mask.safetensors", ABOUT)
    with pytest.raises(UserError, match="could not be written"):
        MaskWriter(tmp_path / "x.safetensors", ABOUT)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda w: w.bits("a", (17,), np.zeros(2, np.uint8)), "3 bytes"),
        (lambda w: w.soft("a", (2,), np.array([0, 1.5], np.float16)), r"in \[0, 1\]"),
        (lambda w: w.soft("a", (2,), np.array([0, np.nan], np.float16)), r"in \[0, 1\]"),
        (lambda w: w.soft("a", (2,), np.array([0, 1], np.float32)), "float16"),
        (lambda w: w.soft("a", (3,), np.array([0, 1], np.float16)), "3 values"),
        (lambda w: [w.constant("a", (1,), True) for _ in range(2)], "already"),
    ],
)
def test_a_writer_takes_nothing_that_could_not_be_read(
    tmp_path: Path, give: Any, message: str
) -> None:
    with (
        MaskWriter(tmp_path / "x.mask.safetensors", ABOUT) as writer,
        pytest.raises(ValueError, match=message),
    ):
        give(writer)


def mask_of(
    path: Path, tensors: Any, stored: dict[str, Any], data: bytes, more: dict[str, str]
) -> Path:
    metadata = {"trimtab_mask": "1", "about": '{"builder": "x"}', "tensors": json.dumps(tensors)}
    return raw_file(path, {"__metadata__": metadata | more, **stored}, data)


BITS = {"a": {"kind": "bits", "shape": [3, 3]}}
NONE = {"a": {"kind": "none", "shape": [16]}}
SOFT = {"a": {"kind": "soft", "shape": [1]}}


@pytest.mark.parametrize(
    ("tensors", "stored", "data", "more", "code"),
    [
        (BITS, {"a": entry("U8", [2], 0, 2)}, b"ab", {"trimtab_mask": "2"}, "mask_too_new"),
        (BITS, {}, b"", {}, "bad_mask"),
        (BITS, {"a": entry("U8", [3], 0, 3)}, b"abc", {}, "bad_mask"),
        (BITS, {"a": entry("I8", [2], 0, 2)}, b"ab", {}, "bad_mask"),
        ({}, {"a": entry("U8", [2], 0, 2)}, b"ab", {}, "bad_mask"),
        (NONE, {"a": entry("U8", [2], 0, 2)}, b"ab", {}, "bad_mask"),
        (SOFT, {"a": entry("U8", [1], 0, 1)}, b"a", {}, "bad_mask"),
        ({"a": {"kind": "some", "shape": [1]}}, {}, b"", {}, "bad_mask"),
        ({"a": {"kind": "all", "shape": [-1]}}, {}, b"", {}, "bad_mask"),
        ([], {}, b"", {}, "bad_mask"),
        ({}, {}, b"", {"tensors": "{"}, "bad_mask"),
        ({}, {}, b"", {"about": "{}"}, "bad_mask"),
        ({}, {}, b"", {"about": "not JSON"}, "bad_mask"),
    ],
)  # fmt: skip
def test_a_damaged_mask_is_refused(
    tmp_path: Path, tensors: Any, stored: Any, data: bytes, more: Any, code: str
) -> None:
    path = mask_of(tmp_path / "x.mask.safetensors", tensors, stored, data, more)
    with pytest.raises(UserError) as error:
        MaskFile.open(path)
    assert error.value.code == code


def test_a_checkpoint_is_no_mask(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x.mask.safetensors", {"a": entry("U8", [2], 0, 2)}, b"ab")
    with pytest.raises(UserError) as error:
        MaskFile.open(path)
    assert error.value.code == "not_a_mask"


def test_soft_values_out_of_range_are_refused_when_read(tmp_path: Path) -> None:
    for wrong in (1.5, -0.5, np.nan):
        data = np.array([0.5, wrong], dtype=np.float16).tobytes()
        tensors = {"a": {"kind": "soft", "shape": [2]}}
        path = mask_of(
            tmp_path / "x.mask.safetensors", tensors, {"a": entry("F16", [2], 0, 4)}, data, {}
        )
        with pytest.raises(UserError) as error:
            MaskFile.open(path).read_soft("a", 0, 2)
        assert error.value.code == "bad_mask"


def test_a_mask_that_changes_while_it_is_used_is_refused(
    path: Path, kept: npt.NDArray[np.bool_]
) -> None:
    file = MaskFile.open(path)
    before = file.fingerprint
    with MaskWriter(path, ABOUT) as writer:
        writer.bits("bits", (13, 7), little(~kept))
        writer.finish()
    with pytest.raises(UserError) as error:
        file.read_bits("bits", 0, 8)
    assert error.value.code == "mask_changed"
    assert MaskFile.open(path).fingerprint != before
    path.unlink()
    with pytest.raises(UserError) as error:
        file.read_bits("bits", 0, 8)
    assert error.value.code == "unreadable"
