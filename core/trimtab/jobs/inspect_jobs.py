"""The jobs `spectra` and `subspaces`: spectra of a lineup, and what a safety subspace can mean."""

from __future__ import annotations

from typing import Any

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.jobs.params import Params, SpectraParams
from trimtab.merging.recipe import open_lineup


def spectra(params: SpectraParams, control: Control) -> dict[str, Any]:
    """Bring the spectra of a lineup to a level; the file they are in grows while that goes on.

    Where it lies is known before: `trimtab.inspection.spectra.spectra_path`.
    """
    from trimtab.inspection.spectra_scan import MEMORY, find_spectra

    lineup = open_lineup(params.recipe)
    try:
        path = find_spectra(
            lineup, control, params.level, rank=params.rank, seed=params.seed,
            memory=params.memory or MEMORY, threads=params.threads,
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            "cannot_write",
            "What was found of the spectra could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(error),
        ) from error
    return {"path": str(path)}


def subspaces(params: Params, control: Control) -> dict[str, Any]:
    """Describe every definition of a subspace, and the metrics that spectra give."""
    from trimtab.inspection.spectral_metrics import SPECTRAL_METRICS
    from trimtab.subspaces import subspaces as definitions

    texts = ("id", "title", "sentence", "formula", "value_range", "reference")
    return {
        "subspaces": [definition.described() for definition in definitions()],
        "metrics": [{key: getattr(m, key) for key in texts} for m in SPECTRAL_METRICS],
    }
