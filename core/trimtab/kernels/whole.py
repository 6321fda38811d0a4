"""Merges whole tensors in memory: the way tests, notebooks and previews call a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from trimtab.kernels.piece import (
    Array,
    Measured,
    Ops,
    Outline,
    Pass,
    Piece,
    random_key,
    settle_known,
)

#: elements measured at once: the same everywhere, so that no sum depends on how tensors are cut
MEASURED = 1 << 18


class _Method(Protocol):
    """What is needed of a merge method."""

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> Any: ...
    @property
    def passes(self) -> Any: ...
    @property
    def combine(self) -> Any: ...
    @property
    def parameters(self) -> Any: ...
    @property
    def backend(self) -> str: ...
    def check_models(self, count: int) -> None:
        """Raise where it cannot take so many models."""


def default_backend() -> str:
    """Return "numba" where it can be imported, else "torch"."""
    try:
        import numba  # noqa: F401 - whether it is there is the question
    except ImportError:
        return "torch"
    return "numba"


def make_ops(backend: str) -> Ops:
    """Return the primitives of a backend, "numba" or "torch"."""
    if backend == "numba":
        from trimtab.kernels.compiled_ops import CompiledOps

        return CompiledOps()
    from trimtab.kernels.plain import TorchOps

    return TorchOps()


def merge_tensors(
    method: _Method,
    reference: Any,
    models: Sequence[Any],
    weights: Sequence[float],
    *,
    seed: int = 0,
    tensor: str = "w",
    labels: Sequence[str] | None = None,
    base: Any = None,
    backend: str | None = None,
    chunk: int | None = None,
    **parameters: Any,
) -> Any:
    """Return the merge of torch tensors of one shape in float32; the inputs stay as they are.

    `base` is the base model's tensor, for methods that ask for it. `weights` has a number a model;
    `labels` are the models' names and `tensor` the tensor's, which with `seed` decide all random
    masks. A per-model parameter takes one number or one a model.
    With `chunk` the tensor goes through in pieces of so many elements, as in a streamed merge.
    """
    import torch

    method.check_models(len(models))
    backend = backend or default_backend()
    on_torch = backend == "torch" or method.backend == "torch"
    ops = make_ops("torch" if on_torch else backend)
    shape, numel = tuple(reference.shape), reference.numel()
    labels = labels if labels is not None else [str(i) for i in range(len(models))]
    keys = [random_key(seed, tensor, label) for label in labels]
    values = _complete(method, parameters, len(models))
    scope = method.scope(**values)

    def cut(size: int) -> list[tuple[int, int]]:
        if scope == "tensor":
            return [(0, numel)]
        if scope == "row" and shape:
            size = max(size // shape[-1], 1) * shape[-1]
        return [(low, min(low + size, numel)) for low in range(0, numel, size)]

    def prepared(low: int, high: int, **more: Any) -> Piece:
        arrays: list[Array] = []
        for source in (reference, *models, *([] if base is None else [base])):
            flat = source.detach().to(torch.float32).reshape(-1)[low:high].clone()
            own = flat if on_torch else flat.numpy()
            arrays.append(own.reshape(shape) if scope == "tensor" else own)
        of_base = None if base is None else arrays.pop()
        return Piece(
            arrays[0], arrays[1:], tuple(weights), keys, ops, shape, numel, low,
            base=of_base, **more,
        )  # fmt: skip

    if not numel:
        return reference.detach().to(torch.float32).clone()
    facts: list[Any] = []
    needed: Sequence[Pass] = method.passes(Outline(shape, numel, tuple(weights)), **values)
    while len(facts) < len(needed):
        needed_pass = needed[len(facts)]
        carry: dict[Any, Any] = {}
        total: Measured | None = None
        for low, high in cut(MEASURED):
            piece = prepared(low, high, facts=facts, carry=carry)
            total = added(total, needed_pass.measure(piece))
        assert total is not None
        facts.append(needed_pass.settle([total], facts))
        settle_known(needed, facts)
    carry = {}
    out = torch.empty(numel, dtype=torch.float32)
    for low, high in cut(chunk or numel):
        piece = prepared(low, high, facts=facts, carry=carry)
        merged = method.combine(piece, **values)
        flat = merged if on_torch else torch.from_numpy(np.ascontiguousarray(merged))
        out[low:high] = flat.reshape(-1)
    return out.reshape(shape)


def added(total: Measured | None, more: Measured) -> Measured:
    """Return what two pieces of one unit have measured together.

    An array that is the same object in both has been added to already.
    """
    if total is None:
        return more
    return [a if a is b else a + b for a, b in zip(total, more, strict=True)]


def _complete(method: _Method, given: dict[str, Any], count: int) -> dict[str, Any]:
    known = {p.name: p for p in method.parameters}
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if parameter.per_model:
            each = list(value) if isinstance(value, list | tuple) else [value] * count
            values[name] = tuple(parameter.check(v, method.name) for v in each)
        else:
            values[name] = parameter.check(value, method.name)
    unknown = set(given) - set(known)
    if unknown:
        raise TypeError(f"{method.name} has no parameter {', '.join(sorted(unknown))}")
    return values
