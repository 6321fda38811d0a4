"""Large files are written past the cache and hold what was written, whatever the ranges."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash

from trimtab.merging import direct
from trimtab.merging.direct import BLOCK, LargeFile, RangeWriter


@pytest.fixture(params=["direct", "cached"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(direct, "LEAST", 0 if request.param == "direct" else 1 << 60)
    return str(request.param)


@pytest.mark.parametrize("seed", range(4))
def test_ranges_written_at_once_by_several_threads_are_all_there(
    tmp_path: Path, way: str, seed: int
) -> None:
    chance = random.Random(seed)
    size = 3 * direct.STAGE + chance.randrange(3 * BLOCK)
    content = np.random.default_rng(seed).bytes(size)
    edges = sorted({0, size, *(chance.randrange(size) for _ in range(12))})
    edges += [edges[1] + 1, edges[1] + 7]  # ranges within one block
    edges = sorted(e for e in set(edges) if e <= size)
    file = LargeFile(tmp_path / "x", size)
    assert way == "cached" or file.direct or not hasattr(direct.os, "O_DIRECT")

    def write(low: int, high: int) -> None:
        own = random.Random(low)
        writer = RangeWriter(file)
        at = low
        while at < high:
            step = min(own.choice([1, 100, BLOCK, 70_001, 2 << 20]), high - at)
            writer.write(memoryview(content)[at : at + step], at)
            at += step
        writer.finish()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, edges, edges[1:]))
    for low, high in zip(edges, edges[1:], strict=False):
        digest = xxhash.xxh3_64()
        file.feed(digest, low, high - low)
        assert digest.intdigest() == xxhash.xxh3_64(content[low:high]).intdigest()
    file.flush()
    file.close()
    assert (tmp_path / "x").read_bytes() == content


def test_what_is_missing_at_the_end_is_left_out(tmp_path: Path, way: str) -> None:
    file = LargeFile(tmp_path / "x", 10_000)
    file.write(b"a" * 6_000, 0)
    digest = xxhash.xxh3_64()
    file.feed(digest, 5_000, 5_000)
    file.close()
    assert digest.intdigest() == xxhash.xxh3_64(b"a" * 1_000).intdigest()


def test_a_file_system_that_refuses_is_written_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "LEAST", 0)
    real = direct.os.pwrite

    def refuse(descriptor: int, data: memoryview, position: int) -> int:
        if descriptor == file._direct:
            raise OSError(direct.errno.EINVAL, "no")
        return real(descriptor, data, position)

    file = LargeFile(tmp_path / "x", 1 << 20)
    monkeypatch.setattr(direct.os, "pwrite", refuse)
    writer = RangeWriter(file)
    content = np.random.default_rng(0).bytes(1 << 20)
    writer.write(memoryview(content), 0)
    writer.finish()
    file.close()
    assert (tmp_path / "x").read_bytes() == content
