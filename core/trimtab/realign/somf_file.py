"""What SOMF has learned, as a file: logits and seed, of which every form of mask can be made."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file, save_file

from trimtab.checkpoints.header import read_header
from trimtab.errors import UserError
from trimtab.masks.file import MaskAbout, MaskWriter
from trimtab.realign.somf_options import TEMPERATURE
from trimtab.realign.somf_units import Units

SUFFIX = ".logits.safetensors"
_MARK = "trimtab_somf"
Floats = npt.NDArray[np.float32]
Form = Literal["expected", "threshold", "sample", "concrete"]
FORMS: tuple[Form, ...] = ("expected", "threshold", "sample", "concrete")
BINS = 20
#: a mask has learned nothing where more of its entries than this are still near one half
_UNDECIDED = 0.9
_NEAR = 0.1


class _Unit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    shape: tuple[int, ...]
    view: tuple[int, ...]
    logits: tuple[int, ...]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    about: MaskAbout
    units: dict[str, _Unit]
    seed: int


@dataclass(frozen=True)
class SomfLogits:
    """The learned logits by tensor name, float32 of each tensor's `Units.logits`."""

    about: MaskAbout
    units: Mapping[str, Units]
    logits: Mapping[str, Floats]
    seed: int

    @classmethod
    def open(cls, path: Path) -> SomfLogits:
        """Read a file that `save` wrote.

        Raises `UserError` as `read_header` does, and with `not_logits`.
        """
        header = read_header(Path(path))
        try:
            if _MARK not in header.metadata:
                raise ValueError("its metadata do not speak of SOMF")
            said = _Said.model_validate_json(header.metadata[_MARK])
            units = {name: Units(u.shape, u.view, u.logits) for name, u in said.units.items()}
            logits = load_file(path)
            for name, unit in units.items():
                np.broadcast_to(logits[name].reshape(unit.logits), unit.view).reshape(unit.shape)
                if logits[name].dtype != np.float32 or not np.isfinite(logits[name]).all():
                    raise ValueError(f"{name} is not of finite numbers in float32")
        except (KeyError, ValueError, AttributeError, ValidationError, RecursionError) as error:
            raise UserError(
                "not_logits",
                f"{path.name} holds no logits of SOMF.",
                f"It is a safetensors file: {error}.",
                f"They lie beside a learned mask; their names end in {SUFFIX}.",
                details=str(path),
            ) from error
        return cls(said.about, units, logits, said.seed)

    def save(self, path: Path) -> None:
        """Write whole, or not at all. Raises `UserError` with `cannot_write`."""
        units = {
            name: _Unit(shape=u.shape, view=u.view, logits=u.logits)
            for name, u in self.units.items()
        }
        said = _Said(about=self.about, units=units, seed=self.seed)
        # one key: the library writes several in an order of its own, and the bytes would differ
        write_tensors(path, dict(self.logits), {_MARK: said.model_dump_json()})

    def probabilities(self, name: str) -> Floats:
        """Return σ(x) of a tensor's units, float32."""
        return _sigmoid(self.logits[name])

    def histogram(self) -> list[float]:
        """Return the share of entries whose σ(x) lies in each twentieth of [0, 1]."""
        found = self.counts(BINS)
        return [float(share) for share in found / max(found.sum(), 1)]

    def counts(self, bins: int) -> npt.NDArray[np.float64]:
        """Return how many entries' σ(x) lie in each of `bins` equal parts of [0, 1], [bins]."""
        found = np.zeros(bins)
        for name, units in self.units.items():
            counts = np.histogram(self.probabilities(name), bins, (0.0, 1.0))[0]
            found += counts * units.entries
        return found

    def undecided(self) -> float:
        """Return the share of entries whose σ(x) is within 0.1 of one half."""
        near = total = 0
        for name, units in self.units.items():
            close = np.abs(self.probabilities(name) - 0.5) < _NEAR
            near += int(close.sum()) * units.entries
            total += close.size * units.entries
        return near / max(total, 1)

    def informative(self) -> bool:
        """Whether the mask has learned something: at most 90 % of it is undecided."""
        return self.undecided() <= _UNDECIDED

    def permuted(self, seed: int) -> SomfLogits:
        """Return the random control: each tensor's logits, dealt out anew among its units.

        The histogram and every tensor's mean(m) stay what they are; only the places are random.
        """
        dealt = {}
        for name, values in self.logits.items():
            order = _generator("control", seed, name).permutation(values.size)
            dealt[name] = values.reshape(-1)[order].reshape(values.shape)
        return SomfLogits(self.about, self.units, dealt, seed)

    def values(self, name: str, form: Form, seed: int, cut: float = 0.5) -> Floats:
        """Return the mask of a tensor's units in one form, float32; `seed` decides samples.

        expected: σ(x); threshold: σ(x) > `cut`; sample: one draw of Bernoulli(σ(x)), which is where
        a Concrete sample exceeds one half (the binary variant); concrete: that sample itself, as
        the authors' continuous variant draws at inference.
        """
        x = self.logits[name]
        if form == "expected":
            return _sigmoid(x)
        if form == "threshold":
            return (x > np.float32(math.log(cut / (1 - cut)))).astype(np.float32)
        u = np.clip(_generator("mask", seed, name).random(x.shape), 2.0**-53, 1 - 2.0**-53)
        noisy = x + np.log(u) - np.log1p(-u)
        if form == "sample":
            return (noisy > 0).astype(np.float32)
        return _sigmoid(noisy / TEMPERATURE)

    def write_mask(self, path: Path, form: Form, seed: int | None = None, cut: float = 0.5) -> None:
        """Write the mask in one form to `path`; `seed` is by default that of the learning.

        expected and concrete are soft, the others bits. Raises `UserError` as `MaskWriter` does.
        """
        chosen = self.seed if seed is None else seed
        parameters = {**self.about.parameters, "form": form}
        if form == "threshold" and cut != 0.5:
            parameters["cut"] = cut
        about = self.about.model_copy(
            update={
                "parameters": parameters,
                "seed": chosen if form in ("sample", "concrete") else self.about.seed,
            }
        )
        with MaskWriter(path, about) as writer:
            for name, units in self.units.items():
                values = units.spread(self.values(name, form, chosen, cut))
                if form in ("expected", "concrete"):
                    writer.soft(name, units.shape, values.reshape(-1).astype(np.float16))
                else:
                    packed = np.packbits(values.reshape(-1) > 0, bitorder="little")
                    writer.bits(name, units.shape, packed)
            writer.finish()


def write_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write a safetensors file of numpy arrays, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            "cannot_write",
            f"{path.name} could not be written.",
            f"The system says: {error.strerror or error}.",
            "Choose another place.",
            details=str(path),
        ) from error


def _sigmoid(x: npt.NDArray[Any]) -> Floats:
    wide = np.exp(-np.abs(x.astype(np.float64)))
    found: Floats = np.where(x >= 0, 1 / (1 + wide), wide / (1 + wide)).astype(np.float32)
    return found


def _generator(*key: object) -> np.random.Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
