"""What the active model's stack of masks keeps and takes away, asked anew as it changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.masks.entries import MaskEntry
from trimtab.masks.file import SUFFIX
from trimtab.paths import cache_dir
from trimtab.project.edits import set_masks
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.mask_facts import Inside, Shares, inside_of, shares_of

#: how much is kept; what is taken away; what of the outputs, and what the control takes of them;
#: what lies in alignment's directions; a random mask that takes as much; what that one answers
Kind = Literal["shares", "account", "outputs", "control", "control outputs", "overlap", "answers"]
#: models of so many bytes are read without asking when the stack changes; or run, or projected
SMALL, SMALL_TO_RUN = 4 << 30, 64 << 20
_TITLES: Mapping[Kind, str] = {
    "shares": "Counting what masks keep", "account": "What masks take away",
    "outputs": "What masks take of the outputs", "overlap": "Directions of alignment",
    "control": "Random control", "control outputs": "What the control takes of the outputs",
    "answers": "Measuring the random control",
}  # fmt: skip
_JOBS: Mapping[Kind, str] = {
    "shares": "mask_shares", "account": "mask_account", "outputs": "mask_account",
    "control": "mask_control", "control outputs": "mask_account", "overlap": "mask_overlap",
}  # fmt: skip
# controls are as large as masks: so many are kept in the cache
_CONTROLS = 32


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
        #: the prompts on which the energy of outputs is found: a file or a shipped set
        self.calibration = ""
        self._key = ""
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
    def masked(self) -> bool:
        """Whether a mask is on."""
        return any(entry.on for entry in self.stack)

    @property
    def whole(self) -> bool:
        """Whether masks are of whole tensors, so that chance has no choice within one."""
        return all(entry.rule is not None for entry in self.stack if entry.on)

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
    def outputs(self) -> Mapping[str, Any] | None:
        """The same with the energy of outputs on the calibration set."""
        return self._known.get(("outputs", self._outputs_key))

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
    def control_outputs(self) -> Mapping[str, Any] | None:
        """What the control takes of the outputs, as `outputs` is told."""
        return self._known.get(("control outputs", self._outputs_key))

    @property
    def control_answers(self) -> Mapping[str, Any] | None:
        """What the merge answers with the control in the stack's place, as `preview` tells it."""
        key = self._answers_key
        return self._known.get(("answers", key)) if key else None

    @property
    def error(self) -> UserError | None:
        """Why something about this stack is not known, outputs apart."""
        keys: tuple[tuple[Kind, str], ...] = (
            ("shares", self._key), ("account", self._key), ("overlap", self._key),
            ("control", self._key), ("answers", self._answers_key),
        )  # fmt: skip
        return next((self._failed[key] for key in keys if key in self._failed), None)

    @property
    def outputs_error(self) -> UserError | None:
        """Why the energy of outputs is not known."""
        return self._failed.get(("outputs", self._outputs_key))

    def asking(self, kind: Kind) -> bool:
        """Whether something is being found out."""
        return self._flight is not None and self._flight[1] == kind

    @property
    def is_small(self) -> bool:
        """Whether what is taken away is added up without asking."""
        return self.bytes_read() <= SMALL

    @property
    def is_tiny(self) -> bool:
        """Whether models are run without asking."""
        return self.bytes_read() <= SMALL_TO_RUN

    def bytes_read(self) -> int:
        """Return how many bytes adding up reads."""
        lineup = self._desk.lineup
        return sum(m.checkpoint.n_bytes for m in lineup.members) if lineup is not None else 0

    # Asking.

    def wish(self, kind: Kind) -> None:
        """Ask for what is not asked for by itself."""
        self._wished.add((kind, self._key))
        keys = (self._key, self._outputs_key, self._answers_key)
        for failed in [name for name in self._failed if name[1] in keys]:
            del self._failed[failed]
        if kind != "overlap" and self.asking("overlap"):  # what a hand asks for comes first
            self._drop()
        self.refresh()

    def set_calibration(self, calibration: str) -> None:
        """Choose the prompts on which the energy of outputs is found; none when empty."""
        if calibration != self.calibration:
            self.calibration = calibration
            self.refresh()

    def refresh(self) -> None:
        """Ask for what is not known of the stack as it now is, and of its files as they are."""
        self._key = self._key_now()
        self._go_on()
        self.changed.emit()

    def _key_now(self) -> str:
        """Return all that answers depend on, as a hex digest."""
        lineup, active = self._desk.lineup, self._desk.active
        if lineup is None or active < 0:
            return ""
        entries = [(e.model_dump_json(), _stamp(e)) for e in self.stack]
        return _digest([lineup.fingerprint, active, self._desk.recipe.seed, entries])

    @property
    def _outputs_key(self) -> str:
        return f"{self._key} {self.calibration}"

    @property
    def _answers_key(self) -> str:
        """The same for what the control answers, which depends on the whole recipe."""
        control = self.control
        recipe = self._desk.recipe
        return _digest([self._key, recipe.model_dump_json()]) if control is not None else ""

    def _wanted(self) -> Iterator[tuple[Kind, str]]:
        key, lineup = self._key, self._desk.lineup
        yield "shares", key
        if self.stack and (self.is_small or ("account", key) in self._wished):
            yield "account", key
        if self.stack and ("control", key) in self._wished:
            yield "control", key
            if self.control is not None and self.measurable():
                yield "answers", self._answers_key
        runs = self.is_tiny or ("outputs", key) in self._wished
        if self.masked and self.calibration and runs:
            yield "outputs", self._outputs_key
            if self.control is not None:
                yield "control outputs", self._outputs_key
        projects = self.is_tiny or ("overlap", key) in self._wished
        if projects and lineup is not None and lineup.has_alignment:
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
                quiet = kind == "shares" or self.is_tiny  # what takes its time can be stopped
                job = self._desk.jobs.submit(name, params, self.tr(_TITLES[kind]), quiet=quiet)
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
        if kind not in ("shares", "overlap"):  # sums will do, where there are very many tensors
            params["by_tensor"] = False
        if kind in ("outputs", "control outputs"):
            params["calibration"] = self.calibration
        if kind == "control outputs":
            assert self.control is not None
            params["entries"] = [MaskEntry(path=self.control["path"]).model_dump(mode="json")]
        if kind == "control":
            folder = cache_dir() / "controls"
            with contextlib.suppress(OSError):  # the job says why nothing can be written there
                folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{key}{SUFFIX}"
            # matched in each tensor, chance would have no choice where masks are of whole ones
            over = "model" if self.whole else "tensor"
            params |= {"output": str(path), "overwrite": True, "over": over}
        return _JOBS[kind], params

    # Answers.

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if self._flight is None or job is not self._flight[0]:
            return
        _, kind, key = self._flight
        self._flight = None
        lineup = self._desk.lineup
        assert lineup is not None  # another one would have ended the question
        made: dict[Kind, Callable[[Any, Mapping[str, Any]], Any]] = {
            "shares": shares_of, "overlap": inside_of,
        }  # fmt: skip
        self._known[kind, key] = made[kind](lineup, result) if kind in made else result
        while len(self._known) > 400:  # a long hour of painting
            self._known.pop(next(iter(self._known)))
        if kind == "control":
            self._desk.background.submit("controls", _keep_newest, _nothing, _raise)
        self.refresh()

    def _job_failed(self, job: Job, error: UserError) -> None:
        if self._flight is not None and job is self._flight[0]:
            self._failed[self._flight[1:]] = error
            self._flight = None
            self.refresh()

    def _cancelled(self, job: Job) -> None:
        """Somebody stopped it: it is not begun again before it is asked for."""
        error = UserError(
            "stopped",
            self.tr("This is not known."),
            self.tr("It was stopped before it was done."),
            self.tr("Ask for it again."),
        )
        self._job_failed(job, error)


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


def _keep_newest() -> None:
    """Leave only the newest controls in the cache."""
    found = list((cache_dir() / "controls").glob(f"*{SUFFIX}"))
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in found[_CONTROLS:]:
        old.unlink(missing_ok=True)


def _nothing(_: None) -> None:
    """Nobody waits for it."""


def _raise(error: Exception) -> None:
    if not isinstance(error, OSError):  # what cannot be tidied up stays
        raise error
