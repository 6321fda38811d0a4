"""What safe and useful answers activate in the open lineup's reference, and what is drawn of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QObject

from trimtab.checkpoints.naming import parse
from trimtab.inspection.activation_subspaces import ActivationSubspaces
from trimtab_gui.desk import Desk
from trimtab_gui.finding import Finding
from trimtab_gui.scores_found import EXAMPLES, LIGHT

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """MSO of safe and useful activations and what chance gives, float64 [columns]; nan elsewhere.

    `dealt` and `relabelled` are [columns, draws].
    """

    mso: Floats
    chance: Floats
    dealt: Floats
    relabelled: Floats


def overlaps(found: ActivationSubspaces, columns: tuple[str, ...]) -> Overlaps:
    """Add the matrices of each layer up, by the columns of the heatmap."""
    place = {column: k for k, column in enumerate(columns)}
    rows: list[list[int]] = [[] for _ in columns]
    for number, matrix in enumerate(found.matrices):
        column = place.get(str(parse(matrix.name).layer))
        if column is not None:
            rows[column].append(number)
    deals, ways = (len(getattr(found.matrices[0], key)) for key in ("dealt", "relabelled"))
    out = Overlaps(
        np.full(len(columns), np.nan), np.full(len(columns), np.nan),
        np.full((len(columns), deals), np.nan), np.full((len(columns), ways), np.nan),
    )  # fmt: skip
    for column, numbers in enumerate(rows):
        matrices = [found.matrices[n] for n in numbers]
        most = sum(m.most for m in matrices)
        if most:
            out.mso[column] = sum(m.overlap for m in matrices) / most
            out.chance[column] = sum(m.expected for m in matrices) / most
            out.dealt[column] = np.sum([m.dealt for m in matrices], axis=0) / most
            out.relabelled[column] = np.sum([m.relabelled for m in matrices], axis=0) / most
    return out


@dataclass(frozen=True, eq=False)
class Refusals:
    """The refusal direction of one model behind each block, float64 [columns]; nan elsewhere.

    `length` is |r| over the mean length of a state, `chance` the 95th percentile of that with the
    prompts dealt out anew; `cosine` that with the reference's.
    """

    model: str
    length: Floats
    chance: Floats
    cosine: Floats


def refusals(found: ActivationSubspaces, columns: tuple[str, ...]) -> list[Refusals]:
    """Lay the refusal directions out over the columns of the heatmap, model by model."""
    place = {column: k for k, column in enumerate(columns)}
    models = list(dict.fromkeys(layer.model for layer in found.refusal))
    out = {m: Refusals(m, *(np.full(len(columns), np.nan) for _ in range(3))) for m in models}
    for layer in found.refusal:
        column, of = place.get(str(layer.block)), out[layer.model]
        if column is not None:
            of.length[column] = layer.relative
            of.cosine[column] = layer.cosine
            if layer.norm > 0:
                of.chance[column] = layer.chance * layer.relative / layer.norm
    return list(out.values())


class ActivationsFinding(Finding):
    """`safe` and `useful` are the sets that are asked for next; empty for none.

    What was found for others is kept beside it.
    """

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        self.safe = self.useful = ""
        self._asking = ("", "")
        self._known: dict[tuple[str, str], ActivationSubspaces] = {}
        self._reading = False
        super().__init__(desk, parent)

    @property
    def running(self) -> bool:
        """Whether it is being measured, or what came of it is being read."""
        return super().running or self._reading

    @property
    def known(self) -> ActivationSubspaces | None:
        """What was found on the chosen sets; None where that is not known."""
        return self._known.get((self.safe, self.useful))

    @property
    def can_start(self) -> bool:
        """Whether there are models and both sets of prompts."""
        return bool(self._desk.lineup is not None and self.safe and self.useful)

    @property
    def is_small(self) -> bool:
        """Whether the answer comes sooner than a question about it is read."""
        return self._desk.lineup is not None and self.bytes_read() <= LIGHT

    def bytes_read(self) -> int:
        """Return how many bytes of weights go through memory once, block by block."""
        lineup = self._desk.lineup
        assert lineup is not None
        return sum(member.checkpoint.n_bytes for member in lineup.members)

    def choose(self, safe: str, useful: str) -> None:
        """Ask for other sets of prompts."""
        if (safe, useful) != (self.safe, self.useful):
            self.safe, self.useful, self.error = safe, useful, None
            self.changed.emit()

    def start(self) -> None:
        """Measure on the chosen sets; another measurement under way is given up."""
        wanted = (self.safe, self.useful)
        same = self.running and self._asking == wanted
        if not self.can_start or self.known is not None or same:
            return
        self.stop()
        self._asking = wanted
        params = {"safe": self.safe, "useful": self.useful, "limit": EXAMPLES}
        self.submit("activation_subspaces", params, self.tr("Activations"))

    def forget(self) -> None:
        self._desk.background.forget("activations")
        self._known.clear()
        self._reading = False

    def take(self, result: Mapping[str, Any], seconds: float) -> None:
        path, wanted = Path(result["path"]), self._asking
        self._reading = True

        def done(found: ActivationSubspaces) -> None:
            self._known[wanted], self._reading = found, False
            self.changed.emit()

        def failed(error: Exception) -> None:
            self._reading = False
            self.failed_to_read(error)

        self._desk.background.submit(
            "activations", lambda: ActivationSubspaces.load(path), done, failed
        )
