"""Tensors to merge, the calls to merge them with, and which method belongs to which kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from references import REFERENCES
from references_inputs import Array, Inputs

from trimtab.methods import get_method

F32 = npt.NDArray[np.float32]
BACKENDS = ("torch", "numba")

NAMES = tuple(REFERENCES)
COUNTS = {"slerp": 1, "nuslerp": 2, "passthrough": 1, "nearswap": 1, "arcee_fusion": 1}
TIES_LIKE = ("ties", "dare_ties", "della", "breadcrumbs_ties")
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
SPARSE = (*TIES_LIKE, "dare_linear", "della_linear", "breadcrumbs")
FAMILY = ("task_arithmetic", *SPARSE)
SUBSPACE = ("tsv_merge", "iso_c", "iso_cts")
# Their result is made from inner products, not entry by entry.
REDUCTIONS = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce", *SUBSPACE)
ELEMENTWISE = tuple(n for n in NAMES if n not in REDUCTIONS)


def choices(name: str, parameter: str) -> list[str]:
    return list(get_method(name).parameter(parameter).choices)


def count(name: str, otherwise: int = 3) -> int:
    return COUNTS.get(name, otherwise)


def normal(shape: tuple[int, ...], models: int, seed: int = 0, size: float = 0.1) -> list[F32]:
    """A reference and models around it; an eighth of each task vector is exactly zero."""
    rng = np.random.default_rng(seed)
    reference = np.asarray(rng.normal(size=shape), np.float32)
    out = [reference]
    for i in range(models):
        delta = size * (1 + 0.3 * i) * rng.normal(size=shape) * (rng.random(shape) > 0.125)
        out.append(np.asarray(reference + delta, np.float32))
    return out


def lattice(shape: tuple[int, ...], models: int, seed: int = 0, steps: int = 6) -> list[F32]:
    """Sixteenths: sums and differences are exact, equal magnitudes and cancellations are many."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(-32, 33, shape)
    out = [np.asarray(reference / 16, np.float32)]
    for _ in range(models):
        out.append(
            np.asarray((reference + rng.integers(-steps, steps + 1, shape)) / 16, np.float32)
        )
    return out


def weights(models: int, seed: int = 0) -> list[float]:
    """Positive weights that are no round numbers."""
    rng = np.random.default_rng(seed + 100)
    return [float(w) for w in rng.uniform(0.2, 1.3, models)]


def merge(
    name: str,
    reference: F32,
    models: Sequence[F32],
    ratios: Sequence[float],
    **keywords: Any,
) -> F32:
    """What the method makes of these arrays; that it left them alone is checked on the way."""
    given = [torch.from_numpy(m.copy()) for m in models]
    base = torch.from_numpy(reference.copy())
    out = get_method(name).merge(base, given, list(ratios), **keywords)
    assert out.dtype == torch.float32
    assert out.shape == given[0].shape
    for tensor, array in zip([base, *given], [reference, *models], strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
    return np.asarray(out.numpy())


def expected(name: str, tensors: Sequence[F32], ratios: Sequence[float], **keywords: Any) -> Array:
    """What the float64 reference makes of the same."""
    about = {k: keywords.pop(k) for k in ("seed", "tensor", "labels") if k in keywords}
    inputs = Inputs(tensors[0], tensors[1:], ratios, **about)
    return REFERENCES[name](inputs, **keywords)


def assert_close(found: F32, wanted: Array, rtol: float = 2e-6) -> None:
    """Equal to within `rtol` of the largest entry: float32 arithmetic, rounded a few times."""
    assert np.isfinite(found).all()
    room = rtol * max(1e-3, float(np.abs(wanted).max(initial=0.0)))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=room)


def assert_same_bytes(found: F32, wanted: F32) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
