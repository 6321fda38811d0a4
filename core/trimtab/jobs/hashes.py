"""SHA-256 of the files that a model is made of, each read once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from trimtab.checkpoints import Lineup, open_checkpoint
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.asking import Target
from trimtab.evaluation.merged_target import MergedTarget
from trimtab.jobs.common import keep
from trimtab.paths import cache_dir

#: bytes read at once
_STRIDE = 1 << 22
#: files whose hashes are remembered
_KEPT = 4096


def hashes_of(targets: Sequence[Target], control: Control) -> dict[str, dict[str, str]]:
    """Return for each target its files' SHA-256 in hex, by name; a target behind an endpoint has
    none.

    Of a merge that is not saved they are the files that it is made from: weights, adapters and
    masks. A file that has the size and the time of change that it had is not read again. Raises
    `UserError` with `unreadable`; `JobCancelled` between pieces.
    """
    files = {target.name: _files(target) for target in targets}
    every = dict.fromkeys(path for found in files.values() for path in found)
    unknown = [path for path in every if _remembered(path) is None]
    control.stage("Hashing", len(unknown), sum(path.stat().st_size for path in unknown))
    for path in unknown:
        _hash(path, control)
        control.advance(1)
    return {
        name: {_name(path, found): _remembered(path) or _hash(path, control) for path in found}
        for name, found in files.items()
    }


def _files(target: Target) -> tuple[Path, ...]:
    if isinstance(target, MergedTarget):
        models = target.plan.recipe.finetuned
        masks = [Path(e.path) for model in models for e in model.masks if e.on and e.path]
        return tuple(dict.fromkeys([*_weights(target.plan.lineup), *masks]))
    about = target.describe()
    if about.get("kind") != "checkpoint":
        return ()
    return tuple(header.path for header in open_checkpoint(about["path"]).headers)


def _weights(lineup: Lineup) -> list[Path]:
    checkpoints = [c for m in lineup.members for c in (m.checkpoint, m.adapter) if c is not None]
    return list(dict.fromkeys(h.path for checkpoint in checkpoints for h in checkpoint.headers))


def _name(path: Path, among: Sequence[Path]) -> str:
    """Return a file's name, with its folder's where another one is called the same."""
    alone = sum(other.name == path.name for other in among) == 1
    return path.name if alone else f"{path.parent.name}/{path.name}"


def _place(path: Path) -> Path:
    stat = path.stat()
    key = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return cache_dir() / "hashes" / f"{name}.json"


def _remembered(path: Path) -> str | None:
    try:
        found = json.loads(_place(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) and len(found) == 64 else None


def _hash(path: Path, control: Control) -> str:
    place = _place(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_STRIDE):
                control.check()
                digest.update(piece)
                control.advance(0, len(piece))
    except OSError as error:
        raise UserError(
            "unreadable",
            f"{path.name} cannot be read.",
            f"The system says: {error.strerror}.",
            "Look after the disk, and try again.",
            details=str(path),
        ) from error
    found = digest.hexdigest()
    with contextlib.suppress(OSError):  # a full cache costs the next run time and nothing else
        keep(place, json.dumps(found), _KEPT)
    return found
