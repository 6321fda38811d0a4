"""Remembers what merges have measured of tensors, as far as it does not depend on the ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

from trimtab.checkpoints import Source
from trimtab.kernels.piece import Measured, Outline, Pass, Piece
from trimtab.merging.plan import Plan, PlannedTensor
from trimtab.methods import MergeMethod


class RatiosRead(Exception):
    """A method's pass has looked at the ratios, so what it finds may depend on them."""


class _Unread:
    """Stands for the ratios where they are not to count; their number may be asked for."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _read(self, *arguments: object, **more: object) -> NoReturn:
        raise RatiosRead

    __getitem__ = __iter__ = __array__ = __contains__ = __eq__ = __hash__ = _read
    __getattr__ = _read


class Facts:
    """What passes over tensors have found, for the next recipe of the same models.

    Inner products serve every method. Of others what is found is kept for the same method with the
    same parameters, unless its passes look at the ratios: those are kept from it, and `RatiosRead`
    tells whoever runs them to call `mistrust` and run them again. One finding is kept a tensor.
    """

    def __init__(self) -> None:
        self._grams: dict[str, tuple[object, Any]] = {}
        self._found: dict[str, tuple[object, list[Any]]] = {}
        self._mistrusted: set[str] = set()

    def mistrust(self, method: MergeMethod) -> None:
        """Note that a method's passes look at the ratios."""
        self._mistrusted.add(method.name)

    def passes(self, plan: Plan, tensor: PlannedTensor) -> tuple[Sequence[Pass], Sequence[Any]]:
        """Return a tensor's passes, and what is known of the first of them."""
        method = plan.method
        if tensor.selects:
            return (), ()
        passes = list(method.passes(tensor.outline, **tensor.parameters))
        if not passes:
            return passes, ()
        origins = (
            origin(tensor.origin), *(origin(source) for source in tensor.models), tensor.masked
        )  # fmt: skip
        if passes[0].kind:
            return self._with_gram(tensor.name, (passes[0].kind, origins), passes)
        if method.name in self._mistrusted:
            return passes, ()
        keys = tensor.keys if method.random else ()
        key = (method.name, tuple(sorted(tensor.parameters.items())), keys, origins)
        known = self._found.get(tensor.name)
        if known is None or known[0] != key:
            known = self._found[tensor.name] = (key, [])
        outline = Outline(tensor.shape, tensor.numel, _unread(tensor))
        try:
            blind = method.passes(outline, **tensor.parameters)
        except RatiosRead:
            self.mistrust(method)
            return passes, ()
        facts = known[1]
        return [_watched(each, i, facts, tensor) for i, each in enumerate(blind)], tuple(facts)

    def _with_gram(
        self, name: str, origins: object, passes: list[Pass]
    ) -> tuple[Sequence[Pass], Sequence[Any]]:
        known = self._grams.get(name)
        if known is not None and known[0] == origins:
            return passes, (known[1],)
        settle = passes[0].settle

        def remembered(units: list[Measured], facts: Sequence[Any]) -> Any:
            gram = settle(units, facts)
            self._grams[name] = (origins, gram)
            return gram

        return [replace(passes[0], settle=remembered), *passes[1:]], ()


def _unread(tensor: PlannedTensor) -> tuple[float, ...]:
    return cast(tuple[float, ...], _Unread(len(tensor.ratios)))


def _watched(each: Pass, number: int, facts: list[Any], tensor: PlannedTensor) -> Pass:
    """Return a pass that does not see the ratios and leaves what it finds in `facts`."""

    def measure(piece: Piece) -> Measured:
        return each.measure(replace(piece, weights=_unread(tensor)))

    def settle(units: list[Measured], earlier: Sequence[Any]) -> Any:
        found = each.settle(units, earlier)
        if len(facts) == number:
            facts.append(found)
        return found

    return replace(each, measure=measure, settle=settle)


def origin(source: Source) -> object:
    """Return what tells one stored tensor from another, with what is put on top of it."""
    adapter = source.adapter.fingerprint if source.adapter else ""
    rows = id(source.rows) if source.rows is not None else 0
    return source.checkpoint.fingerprint, source.row, adapter, rows
