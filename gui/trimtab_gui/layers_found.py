"""What the job `safety_layers` found, ready to be drawn; it touches no widget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trimtab.errors import UserError

Floats = npt.NDArray[np.float64]
Mode = Literal["ours", "paper", "authors' code"]
MODES: tuple[Mode, ...] = ("ours", "paper", "authors' code")
Range = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Band:
    """A value behind each block and what surrounds it, float64 [blocks]; None without a band."""

    value: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True, eq=False)
class ModelLayers:
    """One model: cosines of pairs ("nn", "mm", "nm", mean ± deviation) and gaps in degrees."""

    name: str
    role: str
    cosines: Mapping[str, Band]
    gaps: Mapping[Mode, Band]
    initial: Range | None


@dataclass(frozen=True)
class Share:
    """How much of a task vector's energy, and of the blocks' weights, a range holds; 0 to 1."""

    model: str
    energy: float | None
    parameters: float


@dataclass(frozen=True, eq=False)
class LayersFound:
    """All models of a lineup, degrees lost since the reference, and the range, first to last.

    `located` is the range that scaling found in the model `located_in`; both are empty where it
    was not asked for, and `located` alone where scaling changed nothing. `tried` says by what.
    """

    reference: str
    published: str
    formulas: Mapping[str, str]
    queries: tuple[int, int]
    models: tuple[ModelLayers, ...]
    lost: Mapping[str, Band]
    located: Range | None
    located_in: str
    tried: str
    shares: tuple[Share, ...]

    @property
    def range(self) -> Range | None:
        """The range located, else where the reference's gap begins; None where there is none."""
        if self.located is not None:
            return self.located
        return next(m.initial for m in self.models if m.name == self.reference)

    @classmethod
    def load(cls, path: Path) -> LayersFound:
        """Read a result. Raises `UserError` with `damaged` when it is not one."""
        try:
            return _parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
            raise UserError(
                "damaged",
                "What was found of the safety layers cannot be read.",
                f"{path.name} is missing or not what was written.",
                "Measure again.",
                details=str(error),
            ) from error


def _parse(data: Mapping[str, Any]) -> LayersFound:
    located = data["located"]
    tried = ""
    if located:
        tried = f"weights × {located['alpha']:g}, {located['queries']} lookalikes"
    return LayersFound(
        reference=data["reference"],
        published=data["published"],
        formulas=data["formulas"],
        queries=(int(data["normal"]["n"]), int(data["malicious"]["n"])),
        models=tuple(_model(model) for model in data["models"]),
        lost={one["model"]: _band(one) for one in data["lost"]},
        located=_range(located["located"]) if located else None,
        located_in=located["model"] if located else "",
        tried=tried,
        shares=tuple(Share(s["model"], s["energy"], s["parameters"]) for s in data["shares"]),
    )


def _model(data: Mapping[str, Any]) -> ModelLayers:
    cosines = {}
    for kind, curve in data["curves"].items():
        mean, deviation = np.array(curve["mean"], float), np.array(curve["std"], float)
        cosines[kind] = Band(mean, mean - deviation, mean + deviation)
    gaps = {mode: _band(data["gap"][mode]) for mode in MODES}
    return ModelLayers(data["name"], data["role"], cosines, gaps, _range(data["initial"]))


def _band(data: Any) -> Band:
    if isinstance(data, Mapping):
        value, low, high = (np.array(data[key], float) for key in ("value", "low", "high"))
        return Band(value, low, high)
    return Band(np.array(data, float))


def _range(data: Any) -> Range | None:
    return None if data is None else (int(data[0]), int(data[1]))
