"""Writes a safetensors file tensor by tensor, as they become known; it appears whole or not."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError

_CODES = {"float64": "F64", "float32": "F32", "float16": "F16"}
# what a tensor takes in a header besides its name: dtype, shape, two offsets, a remark
_ENTRY = 200


class TensorFileWriter:
    """A safetensors file that grows at its end; as a context manager it leaves nothing half done.

    `names` are at least the names that will be written: room for their header is left before
    them. Raises `UserError` with `cannot_write` when the disk refuses.
    """

    def __init__(self, path: Path, names: tuple[str, ...], metadata: Mapping[str, str]):
        self._path = path
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        self._metadata = dict(metadata)
        self._entries: dict[str, dict[str, object]] = {}
        known = len(json.dumps({"__metadata__": self._metadata}))
        self._room = -(-(known + sum(3 * len(json.dumps(n)) + _ENTRY for n in names) + 64) // 8) * 8
        self._end = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._partial, "wb")  # noqa: SIM115 - closed by finish or __exit__
            self._file.seek(8 + self._room)
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> TensorFileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink()  # gone already where the file was finished

    def add(self, name: str, values: npt.NDArray[np.floating]) -> None:
        """Append a tensor of float64, float32 or float16."""
        values = np.ascontiguousarray(values)
        self._entries[name] = {
            "dtype": _CODES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [self._end, self._end + values.nbytes],
        }
        try:
            self._file.write(values.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise self._refused(error) from error
        self._end += values.nbytes

    def finish(self, remarks: Mapping[str, str] | None = None) -> None:
        """Put the header before the tensors and give the file its name.

        `remarks` are further metadata; a few words on each tensor have room.
        """
        self._metadata.update(remarks or {})
        text = json.dumps({"__metadata__": self._metadata, **self._entries}).encode()
        assert len(text) <= self._room, "a tensor was written that was not announced"
        try:
            self._file.seek(0)
            # the format lets a header end in spaces
            self._file.write(self._room.to_bytes(8, "little") + text.ljust(self._room))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> UserError:
        return UserError(
            "cannot_write",
            f"{self._path.name} could not be written.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name another one in TRIMTAB_CACHE_DIR.",
            details=str(self._path),
        )
