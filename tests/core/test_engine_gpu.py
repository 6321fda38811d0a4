"""On a GPU a merge has the CPU's masks and its results to the last bit but one of bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import builders
from builders import llama_tensors, moved, recipe, tuned, weights, write_model
from trimtab.merging.recipe import Output
from trimtab.methods import get_method, methods

pytestmark = pytest.mark.gpu

NAMES = [m.name for m in methods() if m.origin.startswith("trimtab.")]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    aligned = llama_tensors(1)
    write_model(tmp_path / "aligned", aligned)
    write_model(tmp_path / "base", moved(aligned, 9))
    for seed, name in enumerate(("one", "two", "three"), start=2):
        write_model(tmp_path / name, moved(aligned, seed))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_merges_as_the_cpu_does(models: Path, tmp_path: Path, name: str) -> None:
    count = get_method(name).takes[1] or 3
    chosen = [tuned(models / n, 0.3 + 0.4 * i) for i, n in enumerate(("one", "two", "three"))]
    what = recipe(
        models / "aligned", *chosen[:count], method=name, output=Output(dtype="float32"),
        base=models / "base" if get_method(name).needs_base else None,
    )  # fmt: skip
    builders.merge(what, tmp_path / "cpu")
    builders.merge(what, tmp_path / "gpu", device="cuda:0", threads=4)
    found, wanted = weights(tmp_path / "gpu"), weights(tmp_path / "cpu")
    reference = weights(models / "aligned")
    for key, value in wanted.items():
        if get_method(name).random:
            # what is dropped is dropped on both: the masks are the same bits
            unmoved = reference[key].float()
            assert torch.equal(value == unmoved, found[key] == unmoved), key
        last = torch.finfo(torch.bfloat16).eps * value.abs()
        assert bool(((value - found[key]).abs() <= last + 1e-8).all()), key
