"""What the window remembers between two runs, in small JSON files that are replaced whole."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.merging.recipe import Recipe
from trimtab.paths import config_dir

RECENT_LIMIT = 10
_SETTINGS = "window.json"
_UNFINISHED = "unfinished-merge.json"
_RECOVERY = "recovery.json"


@dataclass(frozen=True)
class Recent:
    """A document that was open, and when, in seconds since 1970."""

    path: Path
    opened: float

    @property
    def missing(self) -> bool:
        """Whether it is no longer where it was."""
        return not self.path.exists()


@dataclass(frozen=True)
class UnfinishedMerge:
    """A merge that was running when the window or its worker ended.

    `overwrite` is the user's yes to replacing what is at `output`.
    """

    recipe: Recipe
    output: Path
    overwrite: bool


@dataclass(frozen=True)
class Recovered:
    """A document as it was a moment before the window ended without saving it."""

    recipe: Recipe
    path: Path | None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


class Session:
    """Settings, recent documents, the recovery copy and the note of a running merge.

    A settings folder that cannot be written makes the window forgetful, not unusable: writing
    there never raises.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or config_dir()
        self._settings = _read(self._folder / _SETTINGS)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting as JSON holds it."""
        return self._settings.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep a setting."""
        if self._settings.get(key) != value:
            self._settings[key] = value
            self._store(_SETTINGS, self._settings)

    @property
    def recent(self) -> list[Recent]:
        """The documents that were open, the latest first, at most ten."""
        found = []
        for entry in self._settings.get("recent", []):
            try:
                found.append(Recent(Path(entry["path"]), float(entry["opened"])))
            except (KeyError, TypeError, ValueError):
                continue
        return found[:RECENT_LIMIT]

    def opened(self, path: Path) -> None:
        """Put a document at the top of the recent ones."""
        kept = [r for r in self.recent if r.path != path]
        self._keep([Recent(path, time.time()), *kept])

    def relocate(self, old: Path, new: Path) -> None:
        """Say where a missing document has gone."""
        kept = [r for r in self.recent if r.path != new]
        self._keep([Recent(new, r.opened) if r.path == old else r for r in kept])

    def forget(self, path: Path) -> None:
        """Take a document off the list."""
        self._keep([r for r in self.recent if r.path != path])

    def _keep(self, entries: list[Recent]) -> None:
        rows = [{"path": str(r.path), "opened": r.opened} for r in entries[:RECENT_LIMIT]]
        self.set("recent", rows)

    @property
    def unfinished(self) -> UnfinishedMerge | None:
        """The merge that was running when the last window ended."""
        content = _read(self._folder / _UNFINISHED)
        try:
            recipe = Recipe.model_validate(content["recipe"])
            return UnfinishedMerge(recipe, Path(content["output"]), bool(content["overwrite"]))
        except (KeyError, TypeError, ValidationError):
            return None

    def merge_started(self, merge: UnfinishedMerge) -> None:
        """Note a merge, so that it can be gone on with after a crash."""
        content = {
            "recipe": merge.recipe.model_dump(mode="json"),
            "output": str(merge.output),
            "overwrite": merge.overwrite,
        }
        self._store(_UNFINISHED, content)

    def merge_ended(self) -> None:
        """Drop the note of the running merge."""
        self._remove(_UNFINISHED)

    @property
    def recovered(self) -> Recovered | None:
        """The unsaved work of a window that did not end by itself."""
        content = _read(self._folder / _RECOVERY)
        try:
            recipe = Recipe.model_validate(content["recipe"])
            path = content.get("path")
            return Recovered(recipe, Path(path) if path else None)
        except (KeyError, TypeError, ValidationError):
            return None

    def autosave(self, recipe: Recipe, path: Path | None) -> None:
        """Keep a copy of unsaved work."""
        content = {
            "recipe": recipe.model_dump(mode="json"),
            "path": str(path) if path is not None else None,
        }
        self._store(_RECOVERY, content)

    def drop_recovery(self) -> None:
        """Drop the copy: the work is saved or given up."""
        self._remove(_RECOVERY)

    def _store(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            _write(self._folder / name, content)
        except OSError:
            return

    def _remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:
            return
