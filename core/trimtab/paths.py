"""Where Trimtab keeps its things: one folder for what can be made again, one for settings."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Return the folder for results that can be computed again; it need not exist yet.

    `TRIMTAB_CACHE_DIR` overrides the platform's own place.
    """
    chosen = os.environ.get("TRIMTAB_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("trimtab", appauthor=False))


def config_dir() -> Path:
    """Return the folder for settings and recovery files; it need not exist yet.

    `TRIMTAB_CONFIG_DIR` overrides the platform's own place.
    """
    chosen = os.environ.get("TRIMTAB_CONFIG_DIR")
    if chosen:
        return Path(chosen)
    return Path(platformdirs.user_config_dir("trimtab", appauthor=False))
