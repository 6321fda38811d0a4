"""Fonts, icons, demo data and texts that Trimtab ships, found by path."""

from __future__ import annotations

from pathlib import Path


def path(*parts: str) -> Path:
    """Return the path of a shipped resource, for example ``path("icons", "plus.svg")``."""
    return Path(__file__).resolve().parent.joinpath(*parts)
