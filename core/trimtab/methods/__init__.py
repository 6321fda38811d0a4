"""Merge methods: one file each, one decorator, one registry."""

from trimtab.methods import linear as _linear
from trimtab.methods import task_arithmetic as _task_arithmetic
from trimtab.methods.registry import MergeMethod, Parameter, get_method, methods

__all__ = ["MergeMethod", "Parameter", "get_method", "methods"]

del _linear, _task_arithmetic
