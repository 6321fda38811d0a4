"""Merge methods: one file each, one decorator, one registry."""

from trimtab.kernels.piece import Piece
from trimtab.methods import (  # noqa: F401 - each registers its method
    arcee_fusion,
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    iso_c,
    iso_cts,
    karcher,
    linear,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    sce,
    slerp,
    task_arithmetic,
    ties,
    tsv_merge,
)
from trimtab.methods.registry import (
    MergeMethod,
    Param,
    Parameter,
    get_method,
    load_entry_points,
    load_no_entry_points,
    merge_method,
    methods,
)

__all__ = [
    "MergeMethod",
    "Param",
    "Parameter",
    "Piece",
    "get_method",
    "load_entry_points",
    "load_no_entry_points",
    "merge_method",
    "methods",
]
