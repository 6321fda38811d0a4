"""A copy of a model or adapter folder in which chosen entries are others, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from trimtab.checkpoints import Checkpoint
from trimtab.checkpoints.index import INDEX_NAME
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.kernels.rounding import store
from trimtab.merging.layout import is_weights
from trimtab.merging.place import (
    check_output,
    give_name,
    is_ours,
    os_error,
    output_exists,
    partial_path,
    remove,
)
from trimtab.realign.antidote import Bools, Floats

_MARK = "trimtab-antidote"
_STRIDE = 16 << 20


class ZeroedCopy:
    """Copies a checkpoint's folder to `<output>.partial` and gives it its name at `commit`.

    Zero has the same bytes in every floating type, so the rest of the files stays bit for bit what
    it is. Leaving the context without a commit removes what was begun. Raises `UserError` with the
    codes of `place.check_output`.
    """

    def __init__(
        self, checkpoint: Checkpoint, output: Path, inputs: list[Path], overwrite: bool,
        control: Control,
    ):  # fmt: skip
        self._checkpoint = checkpoint
        self._output = output.absolute()
        self._overwrite = overwrite
        self._partial = partial_path(self._output)
        self._open: dict[int, IO[bytes]] = {}
        self._done = False
        check_output(self._output, checkpoint.n_bytes, inputs, overwrite, resume=False)
        if self._partial.exists() and not is_ours(self._partial):
            raise UserError(
                "unfinished_exists",
                f"{self._partial.name} is in the way.",
                "The result is written under that name until it is whole.",
                "Rename that folder, or choose another name for the result.",
                details=str(self._partial),
            )
        try:
            remove(self._partial)
            self._partial.mkdir(parents=True)
            (self._partial / _MARK).touch()
            self._copy(control)
        except OSError as error:
            remove(self._partial)
            raise os_error(error, self._output) from error
        except BaseException:
            remove(self._partial)
            raise

    def _copy(self, control: Control) -> None:
        own = [path for path in self._checkpoint.folder.iterdir() if path.is_file()]
        index = self._checkpoint.folder / INDEX_NAME
        beside = sorted(path for path in own if not is_weights(path) or path == index)
        control.stage("Copying", len(beside) + len(self._checkpoint.files))
        for path in (*beside, *self._checkpoint.files):
            with open(path, "rb") as source, open(self._partial / path.name, "wb") as target:
                while piece := source.read(_STRIDE):
                    control.check()
                    target.write(piece)
            control.advance(1)

    def __enter__(self) -> ZeroedCopy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._open.values():
            file.close()
        if not self._done:
            remove(self._partial)

    def zero(self, row: int, chosen: Bools) -> None:
        """Make the chosen entries of the checkpoint's tensor `row` zero; bool of its size."""
        index = self._checkpoint.index
        start, width = int(index.start[row]), index.dtype_of(row).bits // 8
        try:
            file = self._file(row)
            raw = np.frombuffer(os.pread(file, chosen.size * width, start), dtype=np.uint8).copy()
            raw.reshape(chosen.size, width)[chosen.reshape(-1)] = 0
            os.pwrite(file, raw.data, start)
        except OSError as error:
            raise os_error(error, self._output) from error

    def put(self, row: int, values: Floats) -> None:
        """Replace the checkpoint's tensor `row` by float32 values of its size, rounded to its type.

        Raises `UserError` with `not_finite` where its type cannot hold them.
        """
        index = self._checkpoint.index
        dtype = index.dtype_of(row)
        raw = np.empty(values.size * dtype.bits // 8, dtype=np.uint8)
        if not store(np.ascontiguousarray(values).reshape(-1), dtype.code, raw):
            raise UserError(
                "not_finite",
                f"{index.names[row]} would hold NaN or Inf.",
                f"It is stored as {dtype.code}, or the models hold such values themselves.",
                "Look for them with 'trimtab inspect'.",
            )
        try:
            os.pwrite(self._file(row), raw.data, int(index.start[row]))
        except OSError as error:
            raise os_error(error, self._output) from error

    def _file(self, row: int) -> int:
        number = int(self._checkpoint.index.file[row])
        if number not in self._open:
            path = self._partial / self._checkpoint.files[number].name
            self._open[number] = open(path, "r+b")  # noqa: SIM115 - closed on leaving
        return self._open[number].fileno()

    def commit(self, files: dict[str, str]) -> None:
        """Add `files`, and give the folder its name."""
        try:
            for file in self._open.values():
                file.flush()
                file.close()
            for name, text in files.items():
                (self._partial / name).write_text(text, encoding="utf-8")
            (self._partial / _MARK).unlink()
            if self._output.exists() and not self._overwrite:
                raise output_exists(self._output)  # it was not there at the beginning
            give_name(self._partial, self._output)
        except OSError as error:
            raise os_error(error, self._output) from error
        self._done = True
