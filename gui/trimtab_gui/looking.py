"""What Inspect finds out on demand: spectra of the changes, and where a model tells harm apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, QTimer

from trimtab.checkpoints import Lineup
from trimtab.inspection.spectra import LEVELS, Spectra, spectra_path
from trimtab_gui.activations_found import ActivationsFinding
from trimtab_gui.desk import Desk
from trimtab_gui.finding import Finding
from trimtab_gui.layers_found import LayersFound
from trimtab_gui.scores_found import ScoresFinding

Level = Literal["coarse", "fine", "exact"]
#: multiplications that take a second or so: they are not worth a question
_SMALL = 2e10
#: queries of each kind that safety layers are looked for with, at most
QUERIES = 100
_LOOK_MS = 500


@dataclass(frozen=True)
class Cost:
    """What spectra of a lineup take: matrices times vectors, bytes to be read, multiplications."""

    matrices: int
    bytes: int
    products: float


@dataclass(frozen=True)
class Known:
    """Spectra of the grid's groups and of its columns, as far as they are known."""

    groups: Spectra
    columns: Spectra


class SpectraFinding(Finding):
    """The spectra of the open lineup, which arrive tensor by tensor while they are computed."""

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        self.known: Known | None = None
        self._seen: tuple[Path, int] | None = None
        super().__init__(desk, parent)
        self._fresh = False
        self._clock = QTimer(self)
        self._clock.setInterval(_LOOK_MS)
        self._clock.timeout.connect(self.look)
        desk.figures_changed.connect(self.look)

    @property
    def stage(self) -> str:
        """The level that every tensor has reached: nothing, coarse, fine or exact."""
        return LEVELS[0] if self.known is None else self.known.groups.stage

    def cost(self) -> Cost | None:
        """Return what exact spectra of everything take; None without a lineup."""
        lineup = self._desk.lineup
        if lineup is None:
            return None
        index, matrices, products = lineup.reference.checkpoint.index, 0, 0.0
        vectors = len(lineup.finetuned) + lineup.has_alignment
        for shape in index.shapes:
            if len(shape) >= 2:
                many = math.prod(shape[:-2])
                matrices += many
                products += many * min(shape[-2:]) ** 2 * max(shape[-2:])
        size = sum(member.checkpoint.n_bytes for member in lineup.members)
        return Cost(matrices * vectors, size, products * vectors)

    def seconds_expected(self) -> float | None:
        """Return how long exact spectra may take by the last run's speed; None when unknown."""
        rate, cost = self._desk.session.get("spectra rate"), self.cost()
        if not isinstance(rate, int | float) or rate <= 0 or cost is None:
            return None
        return cost.products / rate

    @property
    def is_small(self) -> bool:
        """Whether the answer comes sooner than a question about it is read."""
        cost = self.cost()
        return cost is not None and cost.products <= _SMALL

    def start(self, level: Level = "exact") -> None:
        """Compute the spectra, coarse ones of everything first."""
        if self.running or self._desk.lineup is None:
            return
        self._fresh = self.known is None and level == "exact"
        self.submit("spectra", {"level": level}, self.tr("Spectra"))
        self._clock.start()

    def look(self) -> None:
        """Take up what the file of the spectra holds by now, read elsewhere."""
        desk, lineup = self._desk, self._desk.lineup
        if lineup is None or desk.figures is None:
            return
        if not self.running:
            self._clock.stop()
        seen = self._seen
        desk.background.submit(
            "spectra", lambda: _read(lineup, seen), self._arrived, self.failed_to_read
        )

    def _arrived(self, found: tuple[Known, tuple[Path, int]] | None) -> None:
        if found is not None:
            self.known, self._seen = found
            self.changed.emit()

    def forget(self) -> None:
        self._desk.background.forget("spectra")
        self.known = self._seen = None

    def take(self, result: Mapping[str, Any], seconds: float) -> None:
        cost = self.cost()
        if self._fresh and cost is not None and seconds > 0:
            self._desk.session.set("spectra rate", cost.products / seconds)
        self.look()


def _read(lineup: Lineup, seen: tuple[Path, int] | None) -> tuple[Known, tuple[Path, int]] | None:
    """Return the spectra in the cache, with what tells them from later ones; None if not new."""
    path = spectra_path(lineup)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return None
    if seen == (path, stamp):
        return None
    found = Spectra.load(path)
    if found is None or not found.fits(lineup):
        return None
    groups, grid = found.grouped(lineup.grid), lineup.grid
    return Known(groups, groups.summed(grid.column_of, grid.columns)), (path, stamp)


class LayersFinding(Finding):
    """Where the models of the open lineup hold harmless and harmful queries apart."""

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        self.found: LayersFound | None = None
        super().__init__(desk, parent)

    @property
    def suite(self) -> str:
        """The prompts that are asked: the demo's models read only their own."""
        return "demo" if self._desk.is_demo else "core"

    def bytes_read(self) -> int:
        """Return how many bytes of weights go through memory once, block by block."""
        lineup = self._desk.lineup
        if lineup is None:
            return 0
        return sum(member.checkpoint.n_bytes for member in lineup.members)

    def start(self, locate: bool = False) -> None:
        """Measure all models; with `locate` also find the reference's range by scaling it."""
        lineup = self._desk.lineup
        if self.running or lineup is None:
            return
        params: dict[str, Any] = {"suite": self.suite, "limit": QUERIES}
        if self._desk.is_demo:
            params["judge"] = "demo"
        if locate:
            params["locate"] = lineup.reference.name
        self.submit("safety_layers", params, self.tr("Safety layers"))

    def load(self, path: Path) -> None:
        """Read a result elsewhere, and show it."""

        def done(found: LayersFound) -> None:
            self.found = found
            self.changed.emit()

        self._desk.background.submit(
            "layers", lambda: LayersFound.load(path), done, self.failed_to_read
        )

    def forget(self) -> None:
        self._desk.background.forget("layers")
        self.found = None

    def take(self, result: Mapping[str, Any], seconds: float) -> None:
        self.load(Path(result["path"]))


class Looking(QObject):
    """All that Inspect finds out on demand."""

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.spectra = SpectraFinding(desk, self)
        self.layers = LayersFinding(desk, self)
        self.scores = ScoresFinding(desk, self)
        self.activations = ActivationsFinding(desk, self)
