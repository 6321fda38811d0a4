"""Finds models by their path or, in the local cache of the Hugging Face hub, by their name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from trimtab.errors import UserError

_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(path_or_id: str, revision: str = "") -> Path:
    """Return the folder or file of a model: a path that exists, or a hub name in the cache.

    `revision` is a branch, a tag or a commit, "main" when empty; of a local path there is no
    other, so that giving one is refused. Nothing is downloaded. Raises `UserError` with
    `not_found` when there is neither such a path nor could it be a name, with `not_in_cache`
    when the hub's cache does not hold it, and with `no_revision` for a revision of a path.
    """
    path = Path(os.path.expanduser(path_or_id))  # noqa: PTH111 - knows no unknown user
    if path_or_id and path.exists():
        if revision:
            raise UserError(
                "no_revision",
                f"{path_or_id} is a path, and revision {revision} was asked for.",
                "Only models of the hub have revisions; a folder holds one.",
                "Leave the revision out, or give the model's name on the hub.",
            )
        return path
    if not is_hub_id(path_or_id):
        raise UserError(
            "not_found",
            f"{path.name or 'A model without a path'} is not there.",
            f"Nothing was found at {path.absolute()}.",
            "It may have been moved or renamed: choose it again.",
        )
    found = _snapshot(path_or_id, revision or "main")
    if found is None:
        option = f" --revision {revision}" if revision else ""
        what = f"{path_or_id} at revision {revision}" if revision else path_or_id
        raise UserError(
            "not_in_cache",
            f"{what} is neither a path nor in the hub's local cache.",
            "Trimtab itself never downloads anything.",
            f"Fetch it with 'hf download {path_or_id}{option}', or give the path of a copy.",
            details=str(cache_folder()),
        )
    return found


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form of a model's name on the hub, such as org/model."""
    return _ID.fullmatch(text) is not None and "--" not in text and ".." not in text


def cache_folder() -> Path:
    """Return the hub's cache as its own tools place it; it need not exist.

    `HF_HUB_CACHE` (or the older `HUGGINGFACE_HUB_CACHE`) names it, otherwise it is `hub` in
    `HF_HOME`, which is `huggingface` in `XDG_CACHE_HOME` or ~/.cache.
    """
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable):
            return Path(os.path.expandvars(chosen)).expanduser()
    if chosen := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(chosen)).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(cache)).expanduser() / "huggingface" / "hub"


def _snapshot(name: str, revision: str) -> Path | None:
    """Return the snapshot of a model in the cache, None when it is not there.

    The cache keeps models--org--name/refs/<branch or tag>, a file with a commit in it, and
    models--org--name/snapshots/<commit>, the folder of that commit's files.
    """
    root = cache_folder() / f"models--{name.replace('/', '--')}"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        reference = (root / "refs" / revision).resolve()
        if not reference.is_relative_to((root / "refs").resolve()):
            return None
        try:
            commit = reference.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        if not _COMMIT.fullmatch(commit):
            return None
    folder = root / "snapshots" / commit
    return folder if folder.is_dir() and any(folder.iterdir()) else None
