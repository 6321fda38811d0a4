"""The place a result goes to: what may be there already, and whether there is room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from trimtab.errors import UserError

JOURNAL = "trimtab-journal.jsonl"
_MARGIN = 16 << 20


def partial_path(output: Path) -> Path:
    """Return the name under which `output` is written until it is whole."""
    return output.with_name(output.name + ".partial")


def replaced_path(output: Path) -> Path:
    """Return the name that a folder at `output` has for the moment in which it is replaced."""
    return output.with_name(f"{output.name}.replaced-{os.getpid()}")


def remove(path: Path) -> None:
    """Remove a file, link or folder, as far as it lets itself be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # some file systems cannot flush a folder, and need not
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_name(partial: Path, output: Path) -> None:
    """Flush a whole result and give it its final name, in place of what is there.

    Killed at any moment, this leaves the old folder or the new one under the name, or neither and
    both beside it: `recover_replaced` puts the old one back.
    """
    for path in partial.iterdir():
        flush(path)
    flush(partial)
    replaced = replaced_path(output)
    if output.exists():
        output.rename(replaced)
    try:
        partial.rename(output)
    except OSError:
        if replaced.exists():
            replaced.rename(output)
        raise
    remove(replaced)
    flush(output.parent)


def is_whole(output: Path, plan_digest: str) -> bool:
    """Whether a merge by this plan ended between giving `output` its name and its last step."""
    try:
        with open(output / JOURNAL, encoding="utf-8") as journal:
            return bool(json.loads(journal.readline()).get("plan") == plan_digest)
    except (OSError, ValueError, AttributeError):
        return False


def recover_replaced(output: Path) -> None:
    """Finish what a merge that was killed while it gave `output` its name has left.

    What it had moved aside goes back when nothing is under the final name, and goes away when
    the new result is; a journal beside a whole result goes away.
    """
    with contextlib.suppress(OSError):
        (output / JOURNAL).unlink()
    pattern = re.compile(re.escape(output.name) + r"\.replaced-([0-9]{1,10})")
    with contextlib.suppress(OSError):
        for path in output.parent.iterdir():
            match = pattern.fullmatch(path.name)
            # this process has not begun: its number is that of one before it, as in a container
            if not match or (int(match[1]) != os.getpid() and psutil.pid_exists(int(match[1]))):
                continue
            if output.exists():
                remove(path)
            else:
                path.rename(output)


def is_ours(partial: Path) -> bool:
    """Whether a folder named like an unfinished merge is one, and not somebody else's."""
    if not partial.is_dir() or partial.is_symlink():
        return False
    names = [path.name for path in partial.iterdir()]
    return not names or any(name.startswith("trimtab-") for name in names)


def output_exists(output: Path) -> UserError:
    """The error for an output that may not be replaced."""
    return UserError(
        "output_exists",
        f"{output.name} exists already.",
        "Nothing is overwritten without a yes.",
        "Choose another name, or allow overwriting.",
        details=str(output),
    )


def output_busy(output: Path) -> UserError:
    """The error for an output that another merge is writing."""
    return UserError(
        "output_busy",
        f"{output.name} is being written by another merge.",
        f"It has {partial_path(output).name} open.",
        "Wait until it is finished, or choose another name.",
        details=str(partial_path(output)),
    )


def _is_busy(journal: Path) -> bool:
    descriptor = os.open(journal, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _disk_full(output: Path, needed: int, free: int) -> UserError:
    return UserError(
        "disk_full",
        "There is not enough room on the disk.",
        f"The result takes {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB are free at {output.parent}.",
        "Free some space or choose another folder.",
        details=str(output),
    )


def os_error(error: OSError, output: Path) -> UserError:
    """Say what the system's refusal to write means to the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "disk_full",
            "The disk filled up while the result was written.",
            "What is finished is kept under the name "
            f"{partial_path(output).name}; the final name was not touched.",
            "Free some space and resume, or choose another folder.",
            details=str(output),
        )
    return UserError(
        "cannot_write",
        f"{output.name} could not be written.",
        f"The system says: {error.strerror}.",
        "Choose a folder in which you may write.",
        details=str(error),
    )


def check_output(
    output: Path, needed: int, inputs: Sequence[Path], overwrite: bool, resume: bool
) -> None:
    """Refuse an output that exists, is one of the inputs, or has no room; changes nothing.

    Raises `UserError` with `output_exists`, `unfinished_exists`, `output_busy`,
    `output_is_input`, `cannot_write` or `disk_full`.
    """
    try:
        _check_output(output, needed, inputs, overwrite, resume)
    except OSError as error:
        raise os_error(error, output) from error


def _check_output(
    output: Path, needed: int, inputs: Sequence[Path], overwrite: bool, resume: bool
) -> None:
    resolved = output.resolve()
    for path in inputs:
        other = path.resolve()
        if resolved == other or resolved in other.parents or other in resolved.parents:
            raise UserError(
                "output_is_input",
                f"{output.name} is one of the models being merged.",
                "Writing there would destroy it while it is read.",
                "Choose another folder for the result.",
                details=str(output),
            )
    if output.exists() and not overwrite:
        raise output_exists(output)
    journal = partial_path(output) / JOURNAL
    if journal.exists() and _is_busy(journal):
        raise output_busy(output)
    if journal.exists() and not (overwrite or resume):
        raise UserError(
            "unfinished_exists",
            f"There is an unfinished merge to {output.name}.",
            "It was interrupted, and what it finished is still there.",
            "Resume it, or allow overwriting to start anew.",
            details=str(partial_path(output)),
        )
    parent = _existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(
            "cannot_write",
            f"{output.name} cannot be written.",
            f"{parent} is not a folder in which you may write.",
            "Choose another folder.",
            details=str(output),
        )
    free = shutil.disk_usage(parent).free
    if needed + _MARGIN > free:
        raise _disk_full(output, needed, free)


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent
