"""A merge in pieces and on another backend is the same merge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from method_cases import (
    BACKENDS,
    ELEMENTWISE,
    NAMES,
    RANDOM,
    SPARSE,
    assert_close,
    assert_same_bytes,
    count,
    lattice,
    merge,
    normal,
    weights,
)

SHAPES = ((11137,), (37, 301), (301, 37), (3, 61, 67), (4096,), (8192,), (2, 6000))


def variants(name: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [{}]
    if name in SPARSE:
        out.append({"rescale": "l1", "normalize": True, "density": 0.6})
        out.append({"rescale": "none", "normalize": False, "density": 0.3})
    if name == "nuslerp":
        out += [{"flatten": False}, {"flatten": False, "row_wise": True}]
    if name == "model_stock":
        out.append({"filter_wise": True})
    if name == "sce":
        out.append({"select_topk": 0.4})
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_pieces_of_any_size_give_the_same_bytes(name: str, backend: str) -> None:
    for shape in SHAPES:
        tensors = normal(shape, count(name), seed=7)
        ratios = weights(count(name))
        for values in variants(name):
            call = {"backend": backend, **values}
            first = merge(name, tensors[0], tensors[1:], ratios, chunk=4096, **call)
            for chunk in (8192, 20480, 1 << 20):
                other = merge(name, tensors[0], tensors[1:], ratios, chunk=chunk, **call)
                assert_same_bytes(other, first)
            assert_same_bytes(merge(name, tensors[0], tensors[1:], ratios, **call), first)


@pytest.mark.parametrize("name", NAMES)
def test_numba_and_torch_agree(name: str) -> None:
    # NuSLERP has no arc between opposite directions, of which there are many in two or three axes.
    for shape in SHAPES if name != "nuslerp" else [s for s in SHAPES if min(s) > 30]:
        for make in (normal, lattice):
            tensors = make(shape, count(name), 8)
            ratios = weights(count(name))
            for values in variants(name):
                one, other = (
                    merge(name, tensors[0], tensors[1:], ratios, backend=b, **values)
                    for b in BACKENDS
                )
                # The L1 norms are sums; everything else of these methods is entry by entry.
                if name in ELEMENTWISE and values.get("rescale") != "l1":
                    assert_same_bytes(one, other)
                else:
                    assert_close(one, other.astype(np.float64), 1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_numba_and_torch_draw_the_same_masks(name: str) -> None:
    for shape in SHAPES:
        tensors = normal(shape, 2, seed=9)
        call = {"seed": 3, "rescale": "none", "normalize": False}
        kept = [
            merge(name, np.zeros_like(tensors[0]), tensors[1:], [1.0, 1e-30], backend=b, **call)
            for b in BACKENDS
        ]
        assert_same_bytes(*kept)
