"""The folder of a sweep: begun, gone on with, and written into by one process at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab.errors import UserError
from trimtab.search.spec import SPEC, Spec, load_spec

_LOCK = "lock"


def begin(folder: Path, spec: Spec, *, resume: bool, overwrite: bool) -> None:
    """Make `folder` that of a sweep, or with `resume` make sure that it is that of this one.

    Raises `UserError` with `output_exists`, `no_sweep`, `bad_sweep`, and with `sweep_differs` where
    `spec` is not what goes on there.
    """
    if resume:
        known = load_spec(folder)
        differing = known.differing(spec)
        if differing:
            raise UserError(
                "sweep_differs",
                f"The sweep in {folder.name} is another one.",
                f"Not the same: {', '.join(differing)}. Its trials could not be compared.",
                "Go on without these options, or start a sweep in a folder of its own.",
            )
        return
    if folder.exists() and any(folder.iterdir()):
        ours = (folder / SPEC).is_file()
        if not (ours and overwrite):
            raise UserError(
                "output_exists",
                f"{folder.name} is there already.",
                "It holds a sweep." if ours else "It holds other files.",
                "Go on with --resume, replace it with --overwrite, or name another folder."
                if ours
                else "Name another folder.",
                details=str(folder),
            )
        with alone_in(folder):
            shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        spec.save(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no second sweep write into the same folder; the system lets go when a process ends."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                "sweep_running",
                f"The sweep in {folder.name} is under way.",
                "Another process writes into it.",
                "Wait for it, or stop it there.",
            ) from error
        yield


def cannot_write(folder: Path, error: OSError) -> UserError:
    """Return the error for a folder that the system does not let us write to."""
    return UserError(
        "cannot_write",
        f"The sweep cannot be written to {folder.name}.",
        f"The system says: {error.strerror}.",
        "Make room, or choose another folder.",
        details=str(folder),
    )
