"""Which entries of each model's task vector a merge leaves out, as its recipe's masks say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.errors import UserError
from trimtab.masks.stack import MaskStack, TensorMask
from trimtab.merging.recipe import Recipe
from trimtab.merging.slots import Input, Slot


class Masking:
    """The stacks of all fine-tuned models, with their files open.

    `shapes` are those of the output's tensors: a mask goes by their names. Raises `UserError` as
    `MaskStack` does, naming the model.
    """

    def __init__(self, recipe: Recipe, shapes: dict[str, tuple[int, ...]]):
        self._shapes = shapes
        self._stacks: dict[int, MaskStack] = {}
        for number, model in enumerate(recipe.finetuned):
            if not model.masked:
                continue
            stack = MaskStack(model.masks, recipe.seed, model.rescale)
            try:
                stack.check(shapes)
            except UserError as error:
                name = model.name or model.path
                raise UserError(
                    error.code, error.what, error.why, error.fix, f"{name}: {error.details}"
                ) from error
            self._stacks[number] = stack

    def without_removed(self, slots: Sequence[Slot]) -> list[Slot]:
        """Put the reference's tensor where a model's is masked out as a whole: there τ is 0."""
        return [
            replace(slot, inputs=tuple(self._left(slot, given) for given in slot.inputs))
            if self._stacks
            else slot
            for slot in slots
        ]

    def _left(self, slot: Slot, given: Input) -> Input:
        if given.source is None or self._given(slot, given) is not False:
            return given
        return replace(given, source=slot.reference, masked_out=True)

    def of(self, slot: Slot, given: Input) -> TensorMask | bool:
        """Return one model's mask in a slot; True where all is kept, False where all is removed."""
        if given.masked_out:
            return False
        if given.source is None or given.source.same_bytes_as(slot.reference):
            return True
        return self._given(slot, given)

    def _given(self, slot: Slot, given: Input) -> TensorMask | bool:
        stack = self._stacks.get(given.model)
        return True if stack is None else stack.of(slot.name, self._shapes[slot.name])
