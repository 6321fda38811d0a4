"""Writes an adapter folder that has its name only when it is whole."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from trimtab.checkpoints.dtypes import BY_CODE
from trimtab.checkpoints.index import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from trimtab.errors import UserError
from trimtab.merging.place import (
    check_output,
    give_name,
    is_ours,
    os_error,
    output_busy,
    output_exists,
    partial_path,
    remove,
)

_SPOOL = "trimtab-tensors"
_COPIED = 16 << 20


class AdapterFolder:
    """Takes tensors one by one and puts them under `output` when `commit` is called.

    Until then they lie in `<output>.partial`, in the order in which they came: a safetensors file
    begins with what only the last of them tells. Leaving the context without a commit removes it.
    Raises `UserError` with the codes of `place.check_output`.
    """

    def __init__(self, output: Path, needed: int, inputs: Sequence[Path], overwrite: bool):
        self.output = output.absolute()
        self.partial = partial_path(self.output)
        self.n_bytes = 0
        self._overwrite = overwrite
        self._tensors: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        check_output(self.output, needed, inputs, overwrite, resume=False)
        try:
            self._spool = self._begin()
        except OSError as error:
            raise os_error(error, self.output) from error

    def _begin(self) -> IO[bytes]:
        if self.partial.exists() and not is_ours(self.partial):
            raise UserError(
                "unfinished_exists",
                f"{self.partial.name} is in the way.",
                "The result is written under that name until it is whole.",
                "Rename that folder, or choose another name for the result.",
                details=str(self.partial),
            )
        self.partial.mkdir(parents=True, exist_ok=True)
        spool = open(self.partial / _SPOOL, "ab+")  # noqa: SIM115
        try:
            fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            spool.close()
            raise output_busy(self.output) from None
        for path in self.partial.iterdir():
            if path.name != _SPOOL:
                remove(path)
        spool.truncate(0)
        return spool

    def __enter__(self) -> AdapterFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._spool.closed:
            # while the lock is held: nobody else may have begun in there
            remove(self.partial)
            self._spool.close()

    def add(self, name: str, code: str, shape: Sequence[int], data: npt.NDArray[Any]) -> None:
        """Write the tensor `name`: `data` holds its bytes, of the safetensors dtype `code`."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        start = self.n_bytes
        try:
            self._spool.write(raw.data)
        except OSError as error:
            raise os_error(error, self.output) from error
        self.n_bytes += raw.size
        self._tensors[name] = (code, tuple(shape), start, self.n_bytes)

    def commit(self, config: dict[str, Any], files: dict[str, str]) -> None:
        """Write the weights file, `config` and `files`, and give the folder its name."""
        try:
            self._write_weights()
            for name, text in {
                **files,
                ADAPTER_CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n",
            }.items():
                (self.partial / name).write_text(text, encoding="utf-8")
            if self.output.exists() and not self._overwrite:
                raise output_exists(self.output)  # it was not there at the beginning
            (self.partial / _SPOOL).unlink()
            give_name(self.partial, self.output)
        except OSError as error:
            raise os_error(error, self.output) from error
        self._spool.close()

    def _write_weights(self) -> None:
        # wide elements first: each tensor then begins where its element type may
        order = sorted(
            self._tensors, key=lambda name: (-BY_CODE[self._tensors[name][0]].bits, name)
        )
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name in order:
            code, shape, start, stop = self._tensors[name]
            header[name] = {
                "dtype": code,
                "shape": list(shape),
                "data_offsets": [position, position + stop - start],
            }
            position += stop - start
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        self._spool.flush()
        with open(self.partial / ADAPTER_WEIGHTS, "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for name in order:
                _, _, start, stop = self._tensors[name]
                while start < stop:
                    part = os.pread(self._spool.fileno(), min(_COPIED, stop - start), start)
                    if not part:
                        raise OSError(f"{_SPOOL} became shorter")
                    file.write(part)
                    start += len(part)
