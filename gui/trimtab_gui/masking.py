"""What the active model's stack of masks keeps and takes away, asked anew as it changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX
from trimtab.paths import cache_dir
from trimtab.project.edits import set_masks
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job

Floats = npt.NDArray[np.float64]
#: how much is kept; what is taken away; what lies in alignment's directions; a random mask that
#: takes as much; what that one answers
Kind = Literal["shares", "account", "overlap", "control", "answers"]
#: models of so many bytes are read without asking when the stack changes, or projected
SMALL, SMALL_TO_PROJECT = 4 << 30, 64 << 20
_TITLES: Mapping[Kind, str] = {
    "shares": "Counting what masks keep", "account": "What masks take away",
    "overlap": "Directions of alignment", "control": "Random control",
    "answers": "Measuring the random control",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shares:
    """What a stack keeps: of all entries after each of its entries that is on, and in the end.

    `groups` float64 [groups] is the share of each cell of the grid; nan where the model changed
    nothing.
    """

    so_far: tuple[float | None, ...]
    kept: float
    groups: Floats


@dataclass(frozen=True, eq=False)
class Inside:
    """What the directions of alignment hold, as shares in each column of the grid; nan for none.

    Of τ and of what masks keep of it, float64 [columns]; `chance` float64 [draws, columns] of τ in
    random directions.
    """

    tau: Floats
    kept: Floats
    chance: Floats


class Masking(QObject):
    """Answers go with the stack, its files and the model they were asked for; the latest one wins.

    `changed` follows every change of what is known or under way. Nothing is asked before `watch`.
    """

    changed = Signal()

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._watched = False
        #: whether the merge can be asked anything: without tokenizer and config it cannot
        self.measurable: Callable[[], bool] = lambda: True
        self._known: dict[tuple[Kind, str], Any] = {}
        self._failed: dict[tuple[Kind, str], UserError] = {}
        self._wished: set[tuple[Kind, str]] = set()
        self._flight: tuple[Job, Kind, str] | None = None
        for signal in (desk.recipe_changed, desk.active_changed, desk.lineup_changed):
            signal.connect(self.refresh)
        desk.jobs.finished.connect(self._finished)
        desk.jobs.failed.connect(self._job_failed)
        desk.jobs.cancelled.connect(self._cancelled)

    def watch(self) -> None:
        """Begin to ask: somebody looks."""
        if not self._watched:
            self._watched = True
            self.refresh()

    # What is known.

    @property
    def stack(self) -> tuple[MaskEntry, ...]:
        """The active model's masks."""
        active = self._desk.active
        return self._desk.recipe.finetuned[active].masks if active >= 0 else ()

    @property
    def ready(self) -> bool:
        """Whether there is a model whose change could be masked."""
        lineup = self._desk.lineup
        return lineup is not None and not lineup.errors and self._desk.active >= 0

    @property
    def shares(self) -> Shares | None:
        """What the stack as it is keeps; None while it is being counted."""
        found = self._known.get(("shares", self._key))
        return found if isinstance(found, Shares) else None

    @property
    def account(self) -> Mapping[str, Any] | None:
        """What the stack takes away, as the job `mask_account` tells it."""
        return self._known.get(("account", self._key))

    @property
    def overlap(self) -> Inside | None:
        """What alignment's directions hold of τ, and of what the stack keeps of it."""
        found = self._known.get(("overlap", self._key))
        return found if isinstance(found, Inside) else None

    @property
    def control(self) -> Mapping[str, Any] | None:
        """The random control that takes as much of τ's energy, as `mask_control` tells it."""
        return self._known.get(("control", self._key))

    @property
    def control_answers(self) -> Mapping[str, Any] | None:
        """What the merge answers with the control in the stack's place, as `preview` tells it."""
        key = self._answers_key
        return self._known.get(("answers", key)) if key else None

    @property
    def error(self) -> UserError | None:
        """Why something about this stack is not known."""
        keys: tuple[tuple[Kind, str], ...] = (
            ("shares", self._key), ("account", self._key), ("overlap", self._key),
            ("control", self._key), ("answers", self._answers_key),
        )  # fmt: skip
        return next((self._failed[key] for key in keys if key in self._failed), None)

    def asking(self, kind: Kind) -> bool:
        """Whether something is being found out."""
        return self._flight is not None and self._flight[1] == kind

    @property
    def is_small(self) -> bool:
        """Whether what is taken away is added up without asking."""
        return self.bytes_read() <= SMALL

    def bytes_read(self) -> int:
        """Return how many bytes adding up reads."""
        lineup = self._desk.lineup
        return sum(m.checkpoint.n_bytes for m in lineup.members) if lineup is not None else 0

    # Asking.

    def wish(self, kind: Kind) -> None:
        """Ask for what is not asked for by itself."""
        key = self._key
        self._wished.add((kind, key))
        for failed in [name for name in self._failed if name[1] in (key, self._answers_key)]:
            del self._failed[failed]
        if kind != "overlap" and self.asking("overlap"):  # what a hand asks for comes first
            self._drop()
        self._go_on()
        self.changed.emit()

    def refresh(self) -> None:
        """Ask for what is not known of the stack as it now is."""
        self._go_on()
        self.changed.emit()

    @property
    def _key(self) -> str:
        """All that answers depend on, as a hex digest."""
        lineup, active = self._desk.lineup, self._desk.active
        if lineup is None or active < 0:
            return ""
        entries = [(e.model_dump_json(), _stamp(e)) for e in self.stack]
        return _digest([lineup.fingerprint, active, self._desk.recipe.seed, entries])

    @property
    def _answers_key(self) -> str:
        """The same for what the control answers, which depends on the whole recipe."""
        control = self.control
        recipe = self._desk.recipe
        return _digest([self._key, recipe.model_dump_json()]) if control is not None else ""

    def _wanted(self) -> Iterator[tuple[Kind, str]]:
        key = self._key
        yield "shares", key
        if self.stack and (self.is_small or ("account", key) in self._wished):
            yield "account", key
        if self.stack and ("control", key) in self._wished:
            yield "control", key
            if self.control is not None and self.measurable():
                yield "answers", self._answers_key
        projects = self.bytes_read() <= SMALL_TO_PROJECT or ("overlap", key) in self._wished
        if projects and self._desk.lineup is not None and self._desk.lineup.has_alignment:
            yield "overlap", key

    def _go_on(self) -> None:
        if not self._watched or not self.ready:
            self._drop()
            return
        wanted = list(self._wanted())
        if self._flight is not None and self._flight[1:] not in wanted:
            self._drop()
        if self._flight is not None:
            return
        for kind, key in wanted:
            if (kind, key) not in self._known and (kind, key) not in self._failed:
                name, params = self._question(kind, key)
                job = self._desk.jobs.submit(name, params, self.tr(_TITLES[kind]), quiet=True)
                self._flight = job, kind, key
                return

    def _drop(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._desk.jobs.cancel(flight[0])

    def _question(self, kind: Kind, key: str) -> tuple[str, dict[str, Any]]:
        desk, recipe = self._desk, self._desk.recipe
        assert desk.lineup is not None
        if kind == "answers":
            assert self.control is not None
            entry = MaskEntry(path=self.control["path"], name="random control")
            recipe = set_masks(recipe, desk.active, [entry], "").after
            given = recipe.model_dump(mode="json")
            return "preview", {"recipe": given, "against": desk.active}
        params: dict[str, Any] = {
            "recipe": recipe.model_dump(mode="json"),
            "model": desk.lineup.finetuned[desk.active].name,
        }
        if kind == "control":
            whole = all(entry.rule is not None for entry in self.stack if entry.on)
            folder = cache_dir() / "controls"
            with contextlib.suppress(OSError):  # the job says why nothing can be written there
                folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{key}{SUFFIX}"
            params |= {"output": str(path), "overwrite": True, "over": "tensor"}
            if whole:  # matched in each tensor, chance would have no choice
                params["over"] = "model"
        names = {
            "shares": "mask_shares", "account": "mask_account", "control": "mask_control",
            "overlap": "mask_overlap",
        }  # fmt: skip
        return names[kind], params

    # Answers.

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if self._flight is None or job is not self._flight[0]:
            return
        _, kind, key = self._flight
        self._flight = None
        made: dict[Kind, Callable[[Mapping[str, Any]], Any]] = {
            "shares": self._shares_of, "overlap": self._inside_of,
        }  # fmt: skip
        self._known[kind, key] = made[kind](result) if kind in made else result
        while len(self._known) > 400:  # a long hour of painting
            self._known.pop(next(iter(self._known)))
        self.refresh()

    def _shares_of(self, result: Mapping[str, Any]) -> Shares:
        lineup = self._desk.lineup
        assert lineup is not None
        grid = lineup.grid
        kept, entries = np.zeros(grid.n_groups), np.zeros(grid.n_groups)
        groups = dict(zip(lineup.names, grid.group_of.tolist(), strict=True))
        for name, tensor in result["tensors"].items():
            kept[groups[name]] += tensor["kept"]
            entries[groups[name]] += tensor["entries"]
        with np.errstate(invalid="ignore"):
            shares = kept / np.where(entries > 0, entries, np.nan)
        total = float(entries.sum())
        return Shares(
            tuple(result["so_far"]), float(kept.sum()) / total if total else 1.0, shares
        )  # fmt: skip

    def _inside_of(self, result: Mapping[str, Any]) -> Inside:
        lineup = self._desk.lineup
        assert lineup is not None
        grid = lineup.grid
        rows = {name: row for row, name in enumerate(lineup.names)}
        draws = max((len(t["chance"]) for t in result["tensors"].values()), default=1)
        sums = np.zeros((4 + draws, len(grid.columns)))
        for name, t in result["tensors"].items():
            column = grid.column_of[grid.group_of[rows[name]]]
            parts = (t["inside"], t["whole"], t["kept_inside"], t["kept_whole"], *t["chance"])
            sums[:, column] += parts
        whole, kept = (np.where(sums[k] > 0, sums[k], np.nan) for k in (1, 3))
        return Inside(sums[0] / whole, sums[2] / kept, sums[4:] / whole)

    def _job_failed(self, job: Job, error: UserError) -> None:
        if self._flight is not None and job is self._flight[0]:
            self._failed[self._flight[1:]] = error
            self._flight = None
            self.refresh()

    def _cancelled(self, job: Job) -> None:
        if self._flight is not None and job is self._flight[0]:
            self._flight = None
            self.refresh()


def _digest(parts: object) -> str:
    text = json.dumps(parts)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _stamp(entry: MaskEntry) -> tuple[int, int] | None:
    """Return what tells a mask's file from a later one at the same place."""
    if not entry.path:
        return None
    try:
        status = Path(entry.path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
