"""Every merge method that mergekit and Trimtab share, in float64, straight from its formula.

They judge between the two: whoever is nearer has computed what the formula says. Sources are the
papers; where these are silent, what mergekit documents. Thresholds that only serve to avoid a
division by zero are left out: 0/0 counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

import parity_masks

F64 = npt.NDArray[np.float64]
#: one input: the model's name, its tensor, its own settings
Given = tuple[str, F64, Mapping[str, Any]]
Shared = Mapping[str, Any]
_NORMALIZED = ("ties", "della")


def merged(
    method: str, tensor: str, base: F64 | None, others: Sequence[Given], shared: Shared,
    base_own: Mapping[str, Any],
) -> F64:  # fmt: skip
    """Merge one tensor: `base` is None without a base_model, `others` are the models beside it."""
    everyone = [values for _, values, _ in others]
    if method == "linear":
        members = [(values, own["weight"]) for _, values, own in others]
        if base is not None:
            members.insert(0, (base, base_own["weight"]))
        total = np.asarray(sum(w * v for v, w in members))
        return total / sum(w for _, w in members) if shared.get("normalize", True) else total
    if method == "passthrough":
        return np.asarray(everyone[0] * others[0][2].get("scale", 1.0))
    if method == "karcher":
        return karcher(everyone if base is None else [*everyone, base], shared)
    if method in ("nuslerp", "multislerp"):
        origin = np.zeros_like(everyone[0]) if base is None else base
        moved = [values - origin for values in everyone]
        weights = [own["weight"] for _, _, own in others]
        return origin + (nuslerp if method == "nuslerp" else multislerp)(moved, weights, shared)
    assert base is not None
    if not others:
        return base
    if method in _BESIDE_BASE:
        return _BESIDE_BASE[method](base, everyone, shared)
    return task_vectors(method, tensor, base, others, shared)


def _unit(v: F64, axis: int | None = None) -> F64:
    norm = np.sqrt(np.sum(v * v, axis=axis, keepdims=True))
    return np.divide(v, norm, out=np.zeros_like(v), where=norm > 0)


def _arc(t: float, a: F64, b: F64, axis: int | None, lerp_above: float) -> F64:
    """Shoemake 1985 on the vectors as they are, linear where they (nearly) point the same way."""
    cosine = np.clip(np.sum(_unit(a, axis) * _unit(b, axis), axis=axis, keepdims=True), -1, 1)
    straight = np.abs(cosine) > lerp_above
    angle = np.arccos(np.where(straight, 0.0, cosine))
    first = np.where(straight, 1 - t, np.sin((1 - t) * angle) / np.sin(angle))
    second = np.where(straight, t, np.sin(t * angle) / np.sin(angle))
    return np.asarray(first * a + second * b)


def slerp(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    return _arc(shared["t"], base, others[0], None, 0.9995)


def nuslerp(moved: Sequence[F64], weights: Sequence[float], shared: Shared) -> F64:
    total = sum(weights)
    t = weights[1] / total if abs(total) > 1e-6 else 0.5
    axis: int | None = -1
    if shared.get("nuslerp_flatten", True):
        axis = None
    elif shared.get("nuslerp_row_wise", False):
        axis = 0
    return _arc(t, moved[0], moved[1], axis, 1 - 1e-15)


def multislerp(moved: Sequence[F64], weights: Sequence[float], shared: Shared) -> F64:
    w = np.array(weights)
    if shared.get("normalize_weights", True):
        w = w / w.sum()
    eps = shared.get("eps", 1e-8)
    norms = [np.sqrt(np.sum(v * v)) for v in moved]
    units = [v / (norm + eps) for v, norm in zip(moved, norms, strict=True)]
    mean = _unit(np.sum([wi * u for wi, u in zip(w, units, strict=True)], axis=0))
    tangent = np.sum(
        [wi * (u - np.sum(u * mean) * mean) for wi, u in zip(w, units, strict=True)], axis=0
    )
    length = np.sqrt(np.sum(tangent * tangent)) + eps
    direction = np.cos(length) * mean + np.sin(length) / length * tangent
    return np.asarray(direction * np.dot(w, norms))


def karcher(models: Sequence[F64], shared: Shared) -> F64:
    """The Karcher mean on the sphere, times the mean of the norms."""
    units = [_unit(v) for v in models]
    mean = _unit(np.mean(units, axis=0))
    for _ in range(int(shared.get("max_iter", 10))):
        tangent = np.zeros_like(mean)
        for unit in units:
            cosine = np.clip(np.sum(mean * unit), -1, 1)
            angle = np.arccos(cosine)
            if angle >= shared.get("tol", 1e-5):
                tangent += angle / np.sin(angle) * (unit - cosine * mean) / len(units)
        length = np.sqrt(np.sum(tangent * tangent))
        if length < shared.get("tol", 1e-5):
            break
        mean = _unit(np.cos(length) * mean + np.sin(length) / length * tangent)
    return np.asarray(mean * np.mean([np.sqrt(np.sum(v * v)) for v in models]))


def model_stock(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    """Jang et al. 2024: t = N cos / (1 + (N − 1) cos), of the mean and the base."""
    axis = -1 if shared.get("filter_wise", False) else None
    moved = [v - base for v in others]
    pairs = [
        np.sum(_unit(a, axis) * _unit(b, axis), axis=axis, keepdims=True)
        for a, b in combinations(moved, 2)
    ]
    cosine, count = np.mean(pairs, axis=0), len(others)
    t = count * cosine / (1 + (count - 1) * cosine)
    return np.asarray(t * np.mean(others, axis=0) + (1 - t) * base)


def nearswap(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    apart = np.abs(base - others[0])
    weight = np.clip(shared["t"] / np.maximum(apart, 1e-6), 0, 1)
    return np.asarray(weight * others[0] + (1 - weight) * base)


def arcee_fusion(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    importance, threshold = arcee_importance(base, others[0])
    return np.where(importance >= threshold, others[0], base)


def arcee_importance(base: F64, other: F64) -> tuple[F64, float]:
    """|Δ| · KL of the row, and median + 1.5 IQR of that; quantiles are taken at whole ranks."""
    p, q = (_softmax(v) + 1e-8 for v in (other, base))
    importance = np.abs(other - base) * np.sum(p * np.log(p / q), axis=-1, keepdims=True)
    ordered = np.sort(importance.ravel())
    low, middle, high = (ordered[int(q * (ordered.size - 1))] for q in (0.25, 0.5, 0.75))
    return importance, float(middle + 1.5 * (high - low))


def _softmax(v: F64) -> F64:
    raised = np.exp(v - v.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def ram(base: F64, others: Sequence[F64], shared: Shared, plus: bool = False) -> F64:
    """Entries that one model changed are taken over, those that several did are averaged."""
    moved = np.stack([v - base for v in others])
    epsilon = shared.get("epsilon", 1e-5)
    changed = np.abs(moved) > epsilon
    count = changed.sum(axis=0)
    own, joint = changed & (count == 1), changed & (count > 1)
    factor = np.ones(len(others))
    if plus:
        own_count, joint_count = (m.reshape(len(others), -1).sum(axis=1) for m in (own, joint))
        share = joint_count / np.maximum(own_count, epsilon)
        factor = 1 + shared.get("r", 0.1) * np.clip(share, 0, shared.get("alpha", 0.2))
    lifted = moved * own * factor.reshape(-1, *[1] * base.ndim)
    return np.asarray(base + np.sum(lifted + moved * joint / np.maximum(count, 1), axis=0))


def ramplus_tl(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    return ram(base, others, shared, plus=True)


def sce(base: F64, others: Sequence[F64], shared: Shared) -> F64:
    """Wan et al. 2024: select by variance, calculate weights from squares, erase by sign."""
    moved = np.stack([v - base for v in others])
    share = shared.get("select_topk", 1.0)
    if share < 1:
        spread = np.var(moved, axis=0).ravel()
        order = np.argsort(-spread, kind="stable")[: int(np.count_nonzero(spread) * share)]
        chosen = np.zeros(spread.size, dtype=bool)
        chosen[order] = True
        moved = moved * chosen.reshape(base.shape)
    energy = (moved * moved).reshape(len(others), -1).mean(axis=1)
    weights = (energy / energy.sum()).reshape(-1, *[1] * base.ndim)
    kept = np.sign(moved) == np.where(moved.sum(axis=0) >= 0, 1, -1)
    return np.asarray(base + _ratio((weights * kept * moved).sum(axis=0), (weights * kept).sum(0)))


def _ratio(a: F64, b: F64) -> F64:
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def task_vectors(
    method: str, tensor: str, base: F64, others: Sequence[Given], shared: Shared
) -> F64:
    """θ + λ Σ wᵢ mᵢ S(δᵢ) [/ Σ wᵢ mᵢ], with or without election of signs."""
    by_default = method.startswith(("dare", "della"))
    thinned = []
    for model, values, own in others:
        delta = values - base
        part = thin(method, delta, tensor, model, own)
        if shared.get("rescale", by_default) and np.any(part):
            part = part * (np.abs(delta).sum() / np.abs(part).sum())
        thinned.append(part * own["weight"])
    stack = np.stack(thinned)
    weights = np.array([own["weight"] for *_, own in others]).reshape(-1, *[1] * base.ndim)
    agreed = np.ones_like(stack)
    if method.endswith("ties") or method == "della":
        agreed = np.asarray(
            np.sign(stack) == np.where(stack.sum(axis=0) >= 0, 1, -1), dtype=np.float64
        )
    mixed, divisor = (stack * agreed).sum(axis=0), (weights * agreed).sum(axis=0)
    if shared.get("normalize", method in _NORMALIZED):
        mixed = mixed / np.where(divisor == 0, 1.0, divisor)
    return np.asarray(base + shared.get("lambda", 1.0) * mixed)


def thin(method: str, delta: F64, tensor: str, model: str, own: Mapping[str, Any]) -> F64:
    """Drop part of a task vector, as the method does it."""
    density = own.get("density", 1.0)
    if method == "task_arithmetic" or density >= 1:
        return delta
    size = np.abs(delta)
    if method.startswith("dare"):
        return delta * parity_masks.kept(0, tensor, model, density, delta.shape)
    if method.startswith("della"):
        ranks = np.argsort(np.argsort(size, axis=-1, kind="stable"), axis=-1, kind="stable")
        epsilon = own.get("epsilon", 0.15)
        p = density - epsilon + 2 * epsilon * ranks / (delta.shape[-1] - 1)
        return delta * parity_masks.kept(0, tensor, model, p, delta.shape)
    order = np.argsort(-size.ravel(), kind="stable")
    count = int(density * delta.size)
    if method == "ties":
        chosen = order[: max(1, count)]
    else:
        # cutting off the largest gives way where as many as asked for would not be left
        top = min(int(own.get("gamma", 0.01) * delta.size), delta.size - count)
        chosen = order[top : top + count]
    mask = np.zeros(delta.size, dtype=bool)
    mask[chosen] = True
    return delta * mask.reshape(delta.shape)


_BESIDE_BASE: dict[str, Callable[[F64, Sequence[F64], Shared], F64]] = {
    "slerp": slerp, "nearswap": nearswap, "arcee_fusion": arcee_fusion, "ram": ram,
    "ramplus_tl": ramplus_tl, "sce": sce, "model_stock": model_stock,
}  # fmt: skip
