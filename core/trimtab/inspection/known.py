"""Gives a merge the inner products that an inspection has computed already, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.checkpoints import Lineup, Source
from trimtab.inspection.result import Floats, Inspection


def finetuned_indices(
    lineup: Lineup, row: int, reference: Source, models: Sequence[Source]
) -> tuple[int, ...] | None:
    """Return which fine-tuned models of the lineup these sources of one tensor belong to.

    None where the reference or a model is not the lineup's own source of tensor number `row`: a
    layer moved elsewhere, a vocabulary put together anew.
    """
    sources = lineup.sources[lineup.names[row]]
    own = sources[lineup.members.index(lineup.reference)]
    if own is not reference:
        return None
    columns = sources[len(lineup.members) - len(lineup.finetuned) :]
    found = [next((i for i, s in enumerate(columns) if s is model), -1) for model in models]
    return None if -1 in found else tuple(found)


def known_gram(
    inspection: Inspection, lineup: Lineup, row: int, models: Sequence[int]
) -> Floats | None:
    """Return the inner products of [reference, tau...] of tensor number `row`, [1 + k, 1 + k].

    `models` are the numbers of k fine-tuned models that have this tensor. The bits are those that a
    merge computes on the CPU, with the same backend, in pieces of `kernels.whole.MEASURED` within
    units of `scan.UNIT` elements. None where they are not known: the inspection is of other models,
    the tensor is not of floats, a model lacks it, or something in it is not finite, which a merge
    is to find for itself.
    """
    names = tuple(member.name for member in lineup.finetuned)
    if inspection.names != lineup.names or inspection.finetuned != names:
        return None
    columns = lineup.sources[lineup.names[row]][len(lineup.members) - len(names) :]
    if inspection.not_numbers[row] or any(columns[model] is None for model in models):
        return None
    gram = inspection.gram_of(row, models)
    return gram if np.isfinite(gram).all() else None
