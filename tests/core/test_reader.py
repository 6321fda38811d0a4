"""Reading: any slice of any tensor, from any thread, in float32 or as stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from trimtab.checkpoints import Source, open_checkpoint
from trimtab.checkpoints.reader import TensorReader
from trimtab.errors import UserError
from trimtab.kernels.rounding import Conversion, compiled_conversion, plain_conversion

TENSORS = {
    "f64": torch.randn(5, 7, dtype=torch.float64),
    "f32": torch.randn(5, 7),
    "f16": torch.randn(5, 7).half(),
    "bf16": torch.randn(5, 7).bfloat16(),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 3),
    "int": torch.arange(35),
    "bool": torch.arange(35) % 3 == 0,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("conversion", [plain_conversion, compiled_conversion])
@pytest.mark.parametrize("name", ["f64", "f32", "f16", "bf16", "scalar", "empty"])
def test_every_slice_is_the_tensor_in_float32(
    path: Path, name: str, conversion: Callable[[], Conversion]
) -> None:
    checkpoint = open_checkpoint(path)
    wanted = TENSORS[name].flatten().float().numpy()
    source = Source(checkpoint, checkpoint.index.row(name))
    with TensorReader(widen=conversion().widen) as reader:
        for low in range(0, len(wanted) + 1, 3):
            for high in range(low, len(wanted) + 1, 5):
                values = reader.read(source, low, high)
                assert values.dtype == np.float32
                np.testing.assert_array_equal(values, wanted[low:high])
                room = np.full(high - low, np.nan, dtype=np.float32)
                assert reader.read(source, low, high, out=room) is room
                assert room.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", TENSORS)
def test_raw_bytes_are_those_in_the_file(path: Path, name: str) -> None:
    checkpoint = open_checkpoint(path)
    row = checkpoint.index.row(name)
    wanted = TENSORS[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    with TensorReader() as reader:
        reader.will_read(checkpoint, row, 0, TENSORS[name].numel())
        raw = reader.read_raw(checkpoint, row, 0, TENSORS[name].numel())
        assert raw.dtype == np.uint8
        assert raw.tobytes() == wanted
        room = np.zeros(len(wanted) + 3, dtype=np.uint8)
        into = reader.read_raw(checkpoint, row, 0, TENSORS[name].numel(), out=room)
        assert into.tobytes() == wanted
        assert not len(into) or np.shares_memory(into, room)


def test_many_threads_share_a_reader(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    source = Source(checkpoint, checkpoint.index.row("f32"))
    with TensorReader() as reader, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: reader.read(source, i % 30, 35), range(300)))
    for i, values in enumerate(results):
        np.testing.assert_array_equal(values, TENSORS["f32"].flatten()[i % 30 :].numpy())


def test_whoever_reads_may_bring_the_memory(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    asked: list[int] = []

    def allocate(size: int) -> npt.NDArray[np.uint8]:
        asked.append(size)
        return np.empty(size, dtype=np.uint8)

    with TensorReader(allocate) as reader:
        reader.read_raw(checkpoint, checkpoint.index.row("bf16"), 3, 10)
    assert asked == [14]


def test_a_file_that_changes_under_the_reader_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(path)
    row = checkpoint.index.row("f64")
    with TensorReader() as reader:
        os.truncate(path, 100)
        with pytest.raises(UserError) as caught:
            reader.read(Source(checkpoint, row), 0, 35)
        assert caught.value.code == "truncated"
        assert path.name in caught.value.what

        def broken(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(UserError) as caught:
            reader.read(Source(checkpoint, row), 0, 1)
        assert caught.value.code == "unreadable"
    path.unlink()
    with TensorReader() as reader, pytest.raises(UserError) as caught:
        reader.read(Source(checkpoint, row), 0, 1)
    assert caught.value.code == "unreadable"


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_leaving_the_reader_closes_its_files(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    before = open_files()
    with TensorReader() as reader:
        reader.read(Source(checkpoint, 0), 0, 1)
        assert open_files() > before
    assert open_files() == before
