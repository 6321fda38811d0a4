"""The scores of the chosen builder, asked for as its form changes, and masks built of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.mask_building import MaskBuilding, Order
from trimtab_gui.masking import Masking
from trimtab_gui.views.mask.builders import Values
from trimtab_gui.views.mask.score_kinds import (
    ANTIDOTE,
    DIFFERENCE,
    MAGNITUDE,
    SOMF,
    ScoreKind,
    build,
    kind_of,
    question,
)

#: what is asked while a hand still turns a number is not worth beginning
_PAUSE_MS = 250
#: the parameters that scores do not depend on
_APART = {DIFFERENCE.id: ("safety",), MAGNITUDE.id: ("keep", "extent")}
_KEPT = 60


class Scoring(QObject):
    """`changed` follows every change of what is known or under way; the latest question wins.

    Of small models it asks by itself, of others when it is told to.
    """

    changed = Signal()

    def __init__(
        self, desk: Desk, masking: Masking, building: MaskBuilding, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._desk, self._masking, self._building = desk, masking, building
        self.kind: ScoreKind = SOMF
        self._values: Values = {}
        self._lacking = ""
        self._known: dict[str, Mapping[str, Any]] = {}
        self._failed: dict[str, UserError] = {}
        self._wished: set[str] = set()
        self._flight: tuple[Job, str] | None = None
        #: the file of the mask that a threshold of these scores made last
        self._made: dict[str, str] = {}
        #: a threshold that was let go while something else was being built
        self._next: tuple[str, float] | None = None
        self._clock = QTimer(self)
        self._clock.setSingleShot(True)
        self._clock.setInterval(_PAUSE_MS)
        self._clock.timeout.connect(self._go_on)
        desk.active_changed.connect(lambda _: self.refresh())
        desk.lineup_changed.connect(self._forget)
        building.changed.connect(self._built)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._job_failed)
        desk.jobs.cancelled.connect(self._cancelled)

    def choose(self, builder: str, values: Values, lacking: str) -> None:
        """Ask for the scores of a builder that is set so; `lacking` says what it still needs."""
        self.kind, self._values, self._lacking = kind_of(builder), dict(values), lacking
        self.refresh()

    # What is known.

    @property
    def found(self) -> Mapping[str, Any] | None:
        """What the job told of these scores; None while it is not known."""
        return self._known.get(self.key) if self.key else None

    @property
    def error(self) -> UserError | None:
        """Why it is not known."""
        return self._failed.get(self.key)

    @property
    def asking(self) -> bool:
        """Whether it is being found out, or about to be."""
        return self._clock.isActive() or (self._flight is not None and self._flight[1] == self.key)

    @property
    def lacking(self) -> str:
        """What must be chosen before there can be scores."""
        return self._lacking if self.kind.runs else ""

    @property
    def draggable(self) -> bool:
        """Whether a threshold of these scores makes a mask."""
        return self.found is not None and not (
            self.kind is ANTIDOTE and self._values["variant"] != "delta-revert"
        )

    @property
    def key(self) -> str:
        """What these scores are told from others by; empty where there can be none."""
        if not self._masking.ready or self.lacking:
            return ""
        if self.kind is SOMF:
            return self._logits
        apart = _APART.get(self.kind.id, ())
        values = {k: v for k, v in self._values.items() if k not in apart}
        if self.kind is MAGNITUDE:
            values = {}
        return f"{self.kind.id} {self._desk.active} {json.dumps(values, sort_keys=True)}"

    @property
    def _logits(self) -> str:
        report = self._building.reports.get("somf")
        return str(report["files"]["logits"]) if report else ""

    @property
    def asks_itself(self) -> bool:
        """Whether scores are found without being wished for."""
        if self.kind is SOMF:
            return True
        return self._masking.is_tiny if self.kind.runs else self._masking.is_small

    # Asking.

    def wish(self) -> None:
        """Ask for these scores, or once more after an error."""
        self._wished.add(self.key)
        self._failed.pop(self.key, None)
        self.refresh()

    def refresh(self) -> None:
        """Ask for what is not known of what is chosen."""
        if self._wants and self.kind.runs:
            self._clock.start()
        elif self._wants:
            self._go_on()
        elif self._flight is not None and self._flight[1] != self.key:
            self._drop()
        self.changed.emit()

    @property
    def _wants(self) -> bool:
        key = self.key
        waits = self._flight is not None and self._flight[1] == key
        known = key in self._known or key in self._failed
        return bool(key) and not waits and not known and (self.asks_itself or key in self._wished)

    def _go_on(self) -> None:
        if not self._wants:
            return
        self._drop()
        desk = self._desk
        assert desk.lineup is not None  # else there is no key
        name, params = question(
            self.kind, self._values, desk.recipe.model_dump(mode="json"),
            desk.lineup.finetuned[desk.active].name, self._logits,
        )  # fmt: skip
        job = desk.jobs.submit(name, params, self.tr("Counting scores"), quiet=self.asks_itself)
        self._flight = job, self.key
        self.changed.emit()

    def _drop(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._desk.jobs.cancel(flight[0])

    def _forget(self) -> None:
        self._drop()
        self._clock.stop()
        self._known.clear()
        self._failed.clear()
        self._made.clear()
        self._next = None
        self.refresh()

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if self._flight is None or job is not self._flight[0]:
            return
        self._known[self._flight[1]] = result
        while len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)))
        self._flight = None
        self.refresh()

    def _job_failed(self, job: Job, error: UserError) -> None:
        if self._flight is not None and job is self._flight[0]:
            self._failed[self._flight[1]] = error
            self._flight = None
            self.refresh()

    def _cancelled(self, job: Job) -> None:
        """Somebody stopped it: it is not begun again before it is asked for."""
        if self._flight is not None and job is self._flight[0]:
            key, self._flight = self._flight[1], None
            self._wished.discard(key)
            if self.asks_itself:
                self._failed[key] = UserError(
                    "stopped",
                    self.tr("This is not known."),
                    self.tr("It was stopped before it was done."),
                    self.tr("Ask for it again."),
                )
            self.refresh()

    # Building.

    def cut(self, threshold: float) -> None:
        """Build the mask of a threshold, in the place of the one that these scores made before.

        While something else is being built it waits; of several the last one counts.
        """
        self._next = self.key, threshold
        self._build_next()

    @property
    def waits(self) -> bool:
        """Whether a threshold waits for what is being built."""
        return self._next is not None

    def _built(self) -> None:
        self._build_next()
        self.refresh()

    def _build_next(self) -> None:
        desk, building, found = self._desk, self._building, self.found
        if self._next is None or building.obstacle or desk.lineup is None:
            return
        (key, threshold), self._next = self._next, None
        if key != self.key or found is None:  # other scores were chosen meanwhile
            return
        member = desk.lineup.finetuned[desk.active].name
        output = str(building.new_file(f"{member}-threshold"))
        recipe = desk.recipe.model_dump(mode="json")
        job, params, name = build(
            self.kind, found, recipe, member, self._logits, threshold, output
        )  # fmt: skip
        # scores of another setting are still the same builder's
        place = key if self.kind is SOMF else f"{self.kind.id} {desk.active}"
        before = self._made.get(place, "")
        if self.kind is SOMF:
            before = before or str(building.reports["somf"]["files"]["mask"])

        def entry(_: Mapping[str, Any]) -> MaskEntry:
            self._made[place] = output
            return MaskEntry(path=output, name=name)

        title = self.tr("Building {mask}").format(mask=name)
        building.start(job, params, title, Order("threshold", desk.active, entry, replaces=before))
