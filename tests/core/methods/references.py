"""Dense float64 rewrites of the merge methods, from the papers' formulas and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from references_family import breadcrumbs, dare, della, task_arithmetic, ties
from references_inputs import Array, Inputs, PerModel
from references_subspace import by_matrix, iso_c_update, iso_cts_update, tsv_update

# Means and arcs.


def linear(inputs: Inputs, reference_ratio: float = 1.0, normalize: bool = True) -> Array:
    total = reference_ratio * inputs.base
    for w, x in zip(inputs.weights, inputs.values, strict=True):
        total = total + w * x
    return np.asarray(total / (reference_ratio + sum(inputs.weights)) if normalize else total)


def passthrough(inputs: Inputs, scale: PerModel = 1.0) -> Array:
    return np.asarray(inputs.each(scale)[0] * inputs.values[0])


def cosine(a: Array, b: Array) -> float:
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / length) if length > 0 else 0.0


def arc(a: Array, b: Array, t: float, straight: float) -> Array:
    """Shoemake 1985, on vectors of any length; a straight line where sin Ω is under `straight`."""
    c = min(1.0, max(-1.0, cosine(a, b)))
    angle = np.arccos(c)
    if np.sin(angle) < straight:
        return np.asarray((1 - t) * a + t * b)
    return np.asarray((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle))


def slerp(inputs: Inputs, t: float = 0.5) -> Array:
    return arc(inputs.base, inputs.values[0], t, straight=float(np.sqrt(1 - 0.9995**2)))


def nuslerp(
    inputs: Inputs, flatten: bool = True, row_wise: bool = False, origin: str = "reference"
) -> Array:
    a, b = inputs.deltas if origin == "reference" else inputs.values
    w1, w2 = inputs.weights
    t = w2 / (w1 + w2) if abs(w1 + w2) >= 1e-6 else 0.5
    out = np.empty_like(a)
    if flatten or a.ndim < 2:
        out[...] = arc(a, b, t, straight=1e-8)
    else:
        # The vectors run along the last axis, or along the first with row_wise.
        along = 0 if row_wise else a.ndim - 1
        for index in np.ndindex(*(s for i, s in enumerate(a.shape) if i != along)):
            at = (*index[:along], slice(None), *index[along:])
            out[at] = arc(a[at], b[at], t, straight=1e-8)
    return inputs.base + out if origin == "reference" else out


def multislerp(
    inputs: Inputs,
    normalize_weights: bool = True,
    eps: float = 1e-8,
    origin: str = "reference",
) -> Array:
    """One step on the sphere: the mean direction, then the mean of the logarithms at it."""
    vectors = inputs.deltas if origin == "reference" else inputs.values
    w = np.asarray(inputs.weights, dtype=np.float64)
    w = w / w.sum() if normalize_weights else w
    lengths = [float(np.linalg.norm(v)) for v in vectors]
    units = [v / (n + eps) for v, n in zip(vectors, lengths, strict=True)]
    mean = sum((wi * u for wi, u in zip(w, units, strict=True)), np.zeros(inputs.base.shape))
    mean = mean / np.linalg.norm(mean)
    step = sum(
        (wi * (u - np.vdot(u, mean) * mean) for wi, u in zip(w, units, strict=True)),
        np.zeros(inputs.base.shape),
    )
    angle = float(np.linalg.norm(step))
    point = mean * np.cos(angle) + step * np.sinc(angle / np.pi)
    out = point * float(np.dot(w, lengths))
    return np.asarray(inputs.base + out if origin == "reference" else out)


def tangent(point: Array, units: Sequence[Array]) -> Array:
    """The mean of the logarithms of unit vectors at a point: zero at their Karcher mean."""
    out = np.zeros(point.shape)
    for u in units:
        c = min(1.0, max(-1.0, float(np.vdot(point, u))))
        angle = np.arccos(c)
        factor = angle / np.sin(angle) if np.sin(angle) > 1e-12 else 1.0
        out = out + factor * (u - c * point) / len(units)
    return out


def karcher(inputs: Inputs, max_iter: int = 10, tol: float = 1e-5) -> Array:
    lengths = [float(np.linalg.norm(v)) for v in inputs.values]
    units = [v / n for v, n in zip(inputs.values, lengths, strict=True)]
    point = sum(units, np.zeros(inputs.base.shape))
    point = point / np.linalg.norm(point)
    for _ in range(max_iter):
        step = tangent(point, units)
        angle = float(np.linalg.norm(step))
        if angle < tol:
            break
        point = np.cos(angle) * point + np.sin(angle) * step / angle
        point = point / np.linalg.norm(point)
    return np.asarray(float(np.mean(lengths)) * point)


# Methods with a rule of their own.


def model_stock(inputs: Inputs, filter_wise: bool = False) -> Array:
    """Jang et al. 2024, equation 7: t = N·cosθ / (1 + (N - 1)·cosθ), per tensor or per row."""
    base, count = inputs.base, len(inputs.models)

    def mix(deltas: Sequence[Array], at: Array) -> Array:
        c = np.mean([cosine(a, b) for a, b in combinations(deltas, 2)])
        t = count * c / (1 + (count - 1) * c)
        return np.asarray(at + t * sum(deltas) / count)

    if filter_wise and base.ndim > 1:
        rows = [mix([d[i] for d in inputs.deltas], base[i]) for i in range(base.shape[0])]
        return np.stack(rows)
    return mix(inputs.deltas, base)


def sce(inputs: Inputs, select_topk: float = 1.0) -> Array:
    """Wan et al. 2025: select by variance, weigh by energy, erase the minority sign."""
    stack = np.stack(inputs.deltas)
    if select_topk < 1:
        variance = stack.var(axis=0).ravel()
        mask = np.zeros(variance.size, bool)
        count = int(select_topk * np.count_nonzero(variance))
        mask[np.argsort(-variance, kind="stable")[:count]] = True
        stack = stack * mask.reshape(inputs.reference.shape)
    energy = (stack**2).reshape(len(stack), -1).mean(axis=1)
    if energy.sum() == 0:
        return inputs.base
    w = (energy / energy.sum()).reshape(-1, *[1] * inputs.reference.ndim)
    kept = np.sign(stack) == np.where(stack.sum(axis=0) >= 0, 1.0, -1.0)
    weight = (w * kept).sum(axis=0)
    return np.asarray(
        inputs.base + (w * kept * stack).sum(axis=0) / np.where(weight == 0, 1.0, weight)
    )


def nearswap(inputs: Inputs, t: float = 0.0001) -> Array:
    difference = np.abs(inputs.deltas[0])
    share = np.clip(t / np.maximum(difference, 1e-6), 0, 1)
    return np.asarray(share * inputs.values[0] + (1 - share) * inputs.base)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def importance(inputs: Inputs) -> Array:
    """Arcee Fusion's |δ|·KL(softmax of the model's row ‖ softmax of the reference's row)."""
    p, q = softmax(inputs.values[0]), softmax(inputs.base)
    divergence = (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(inputs.deltas[0]) * divergence)


def arcee_fusion(inputs: Inputs) -> Array:
    score = importance(inputs)
    low, median, high = np.quantile(score, [0.25, 0.5, 0.75], method="lower")
    return inputs.base + np.where(score >= median + 1.5 * (high - low), inputs.deltas[0], 0.0)


def ram(inputs: Inputs, epsilon: float = 1e-5, r: float = 0.0, alpha: float = 0.0) -> Array:
    """Yuan et al. 2026: what one model alone changed stays whole, what several changed is averaged.

    RAM+ makes a model's own part stronger by 1 + r·clip(shared / own, 0, α), counted in entries.
    """
    deltas = inputs.deltas
    changed = [np.abs(d) > epsilon for d in deltas]
    count = sum((c.astype(int) for c in changed), np.zeros(inputs.reference.shape, int))
    out = np.zeros(inputs.reference.shape)
    for w, delta, own in zip(inputs.weights, deltas, changed, strict=True):
        alone, shared = own & (count == 1), own & (count > 1)
        ratio = shared.sum() / alone.sum() if alone.any() else 0.0
        factor = np.where(alone, 1 + r * min(max(ratio, 0.0), alpha), 1 / np.maximum(count, 1))
        out = out + np.where(own, w * factor * delta, 0.0)
    return np.asarray(inputs.base + out)


def ramplus_tl(inputs: Inputs, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5) -> Array:
    return ram(inputs, epsilon, r, alpha)


def weighted(inputs: Inputs) -> list[Array]:
    return [w * d for w, d in zip(inputs.weights, inputs.deltas, strict=True)]


def tsv_merge(inputs: Inputs, scale: float = 1.0) -> Array:
    return inputs.base + scale * by_matrix(weighted(inputs), tsv_update)


def iso_c(inputs: Inputs, scale: float = 1.0) -> Array:
    return inputs.base + scale * by_matrix(weighted(inputs), iso_c_update)


def iso_cts(inputs: Inputs, common_fraction: float = 0.8, scale: float = 1.0) -> Array:
    update = by_matrix(weighted(inputs), lambda d: iso_cts_update(d, common_fraction))
    return inputs.base + scale * update


REFERENCES: dict[str, Callable[..., Array]] = {
    "linear": linear,
    "slerp": slerp,
    "nuslerp": nuslerp,
    "multislerp": multislerp,
    "karcher": karcher,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare_linear": dare(consensus=False),
    "dare_ties": dare(consensus=True),
    "della": della(consensus=True, normalized=True),
    "della_linear": della(consensus=False, normalized=False),
    "breadcrumbs": breadcrumbs(consensus=False),
    "breadcrumbs_ties": breadcrumbs(consensus=True),
    "model_stock": model_stock,
    "sce": sce,
    "nearswap": nearswap,
    "passthrough": passthrough,
    "arcee_fusion": arcee_fusion,
    "ram": ram,
    "ramplus_tl": ramplus_tl,
    "tsv_merge": tsv_merge,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
}
