"""Puts one prompt to all models of the open recipe, and hears them while they write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal

from PySide6.QtCore import QObject, Signal

from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Verdict
from trimtab.evaluation.suite import KINDS
from trimtab.jobs.protocol import Progress
from trimtab.merging.recipe import Recipe
from trimtab_gui.desk import Desk
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.jobs import Job
from trimtab_gui.jobs.controller import State as JobState

#: nothing can be asked, nothing was asked yet, models answer, they have, they were told to stop
State = Literal["empty", "ready", "answering", "answered", "stopped", "error"]
#: "written" is a whole answer that the judge has not read
Stage = Literal["waiting", "loading", "writing", "written", "judged", "error"]
DECODING = Decoding(max_new_tokens=256, batch_size=1)
_MOST_KEPT = 50
_ENDED: tuple[Stage, ...] = ("judged", "error")


@dataclass(frozen=True)
class Said:
    """What one model says; `index` counts further models of its role, `doing` what it is at.

    `seconds` it wrote, after `loading_seconds`; `cut` where it had to end before it was done.
    """

    name: str
    role: str
    index: int = 0
    text: str = ""
    stage: Stage = "waiting"
    doing: str = ""
    verdict: Verdict | None = None
    seconds: float | None = None
    loading_seconds: float = 0.0
    cut: bool = False
    error: UserError | None = None


class Prompts:
    """What was asked before, to be called back one by one, and the draft to come back to."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._place = 0
        self._draft = ""

    def add(self, text: str) -> None:
        """Keep a prompt as the latest one."""
        self._kept = [*(kept for kept in self._kept if kept != text), text][-_MOST_KEPT:]
        self._place = len(self._kept)

    def older(self, shown: str) -> str | None:
        """Return the one before that which is shown; None at the oldest."""
        if self._place == 0:
            return None
        if self._place == len(self._kept):
            self._draft = shown
        self._place -= 1
        return self._kept[self._place]

    def newer(self) -> str | None:
        """Return the one after that which is shown, at last the draft; None when it is shown."""
        if self._place == len(self._kept):
            return None
        self._place += 1
        return self._draft if self._place == len(self._kept) else self._kept[self._place]


class Chatting(QObject):
    """One question at a time, each for itself: of several the latest is answered.

    `changed` follows every change of what is said and of whether something can be asked.
    """

    changed = Signal()

    def __init__(self, desk: Desk, evaluating: Evaluating, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk, self._evaluating = desk, evaluating
        self._job: Job | None = None
        self._asked: Recipe | None = None
        self._speaker = -1
        self._examples = 0
        self._stopped = False
        self.prompts = Prompts()
        self.prompt = ""
        self.said: tuple[Said, ...] = ()
        self.judge = ""
        self.decoding = DECODING.sentence
        self.error: UserError | None = None
        desk.project_changed.connect(self.forget)
        desk.methods_changed.connect(self.changed)
        evaluating.changed.connect(self.changed)  # which follows the recipe and the lineup as well
        jobs = desk.jobs
        for signal in (jobs.started, jobs.cancelling):
            signal.connect(self._moved)
        jobs.progress.connect(self._progress)
        jobs.finished.connect(self._finished)
        jobs.failed.connect(self._failed)
        jobs.cancelled.connect(self._cancelled)

    # Where it stands.

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        if self._job is not None:
            return "answering"
        if self.error is not None:
            return "error"
        if self.said:
            return "stopped" if self._stopped else "answered"
        return "ready" if self.obstacle() is None else "empty"

    @property
    def stopping(self) -> bool:
        """Whether the models were told to stop and have not yet."""
        return self._job is not None and self._job.state is JobState.CANCELLING

    @property
    def waits_for(self) -> str:
        """The title of the job that has to end first, empty where none has."""
        current = self._desk.jobs.current
        waits = self._job is not None and self._job.state is JobState.QUEUED
        return current.title if waits and current is not None else ""

    def obstacle(self) -> str | None:
        """Say why nothing can be asked now; None when it can."""
        desk = self._desk
        if desk.lineup is None:
            return self.tr("Open models first.")
        if desk.lineup.errors:
            return self.tr("The models cannot be merged: see the lineup.")
        if desk.recipe.finetuned and desk.method_error is not None:
            return desk.method_error.what
        return None

    def is_earlier(self, said: Said) -> bool:
        """Whether the model that said it would now be another."""
        asked, now = self._asked, self._desk.recipe
        if asked is None or asked == now:
            return False
        if said.role == "merged":
            return asked.model_copy(update={"output": now.output}) != now
        return _paths(asked, said.role) != _paths(now, said.role)

    def example(self) -> str | None:
        """Return a prompt of the chosen suite, another kind and another one each time."""
        suite = self._evaluating.suite
        if suite is None:
            return None
        # a system text would not be asked along
        rows = [
            [prompt.asked for prompt in suite.by_kind(kind) if not prompt.system]
            for kind in KINDS
            if kind != "text"
        ]
        found = [text for together in zip_longest(*rows) for text in together if text]
        if not found:
            return None
        self._examples += 1
        return found[(self._examples - 1) % len(found)]

    # Asking.

    def ask(self, text: str) -> bool:
        """Put a prompt to the reference, the fine-tuned models and the merge as it stands.

        What is under way is given up for it. Returns whether it is asked.
        """
        text = text.strip()
        if not text or self.obstacle() is not None:
            return False
        self.prompts.add(text)
        self._give_up()
        recipe = self._desk.recipe
        roles = ["aligned" if recipe.aligned is not None else "base"]
        roles += ["finetuned", "merged"] if recipe.finetuned else []
        self._asked, self.prompt = recipe, text
        self.error, self._stopped, self._speaker = None, False, -1
        self.said = self._expected(roles)
        params = {
            "recipe": recipe.model_dump(mode="json"),
            "conversation": [{"role": "user", "content": text}],
            "roles": roles,
            "max_new_tokens": DECODING.max_new_tokens,
            "judge": self._evaluating.judge,
        }
        self._job = self._desk.jobs.submit("chat", params, self.tr("Answering"))
        self.changed.emit()
        return True

    def again(self) -> None:
        """Ask the same once more, of the models as they now are."""
        self.ask(self.prompt)

    def stop(self) -> None:
        """Let nobody answer any further; what was said stays."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def forget(self) -> None:
        """Another project: nothing said so far is about it."""
        self._give_up()
        self._asked = self.error = None
        self.prompt, self.said = "", ()
        self.changed.emit()

    def _give_up(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            self._desk.jobs.cancel(job)

    def _expected(self, roles: list[str]) -> tuple[Said, ...]:
        lineup = self._desk.lineup
        assert lineup is not None
        said = [
            Said(member.name, role)
            for role in roles
            for member in lineup.members
            if member.role == role
        ]
        said += [Said("merged", "merged")] if "merged" in roles else []
        return _counted(said)

    # Hearing.

    def _moved(self, job: Job) -> None:
        if self._job is not None:  # it may wait for the one that has started
            self.changed.emit()

    def _progress(self, job: Job, progress: Progress) -> None:
        if job is not self._job:
            return
        if progress.part is not None:
            self._take(progress.part)
            return
        at = self._speaker
        names = [said.name for said in self.said]
        for place in range(max(at, 0), len(names)):
            if progress.stage == names[place]:
                if self.said[place].stage not in _ENDED:
                    self._hear(place, "writing", progress.text)
                return
            if progress.stage == f"Loading {names[place]}":
                self._hear(place, "loading", "", self.tr("loading …"))
                return
        # a step of its loading, such as merging: of the next one where this one has spoken
        spoken = at < 0 or self.said[at].stage in ("writing", *_ENDED)
        place = min(at + 1 if spoken else at, len(names) - 1)
        if place > at or self.said[place].stage == "loading":
            self._hear(place, "loading", "", f"{progress.stage.lower()} …")

    def _hear(self, place: int, stage: Stage, text: str, doing: str = "") -> None:
        said = list(self.said)
        for i in range(place):
            if said[i].stage == "writing":
                said[i] = replace(said[i], stage="written")
        said[place] = replace(said[place], stage=stage, text=text, doing=doing)
        if tuple(said) != self.said:
            self._speaker, self.said = place, tuple(said)
            self.changed.emit()

    def _take(self, part: Mapping[str, Any]) -> None:
        """Show an answer whole as soon as it is, and what the judge took it for."""
        told = _said(part["answer"])
        said = list(self.said)
        for place, one in enumerate(said):
            if (one.name, one.role) == (told.name, told.role) and one.stage not in _ENDED:
                said[place] = replace(told, index=one.index)
                self._speaker, self.said, self.judge = place, tuple(said), part["judge"]
                self.changed.emit()
                return

    def _finished(self, job: Job, result: dict[str, Any]) -> None:
        if job is self._job:
            self.said = _counted([_said(answer) for answer in result["answers"]])
            self.judge, self.decoding = result["judge"], result["decoding_sentence"]
            self._end()

    def _failed(self, job: Job, error: UserError) -> None:
        if job is self._job:
            self.error, self.said = error, ()
            self._end()

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            self._stopped = True
            self._end()

    def _end(self) -> None:
        self._job = None
        self.changed.emit()


def _said(answer: Mapping[str, Any]) -> Said:
    name, role = answer["name"], answer["role"]
    if "error" in answer:
        return Said(name, role, stage="error", error=UserError.from_dict(answer["error"]))
    return Said(
        name, role, text=answer["text"], stage="judged", verdict=Verdict(**answer["verdict"]),
        seconds=answer["seconds"], loading_seconds=answer["loading_seconds"], cut=answer["cut"],
    )  # fmt: skip


def _counted(said: list[Said]) -> tuple[Said, ...]:
    roles = [one.role for one in said]
    return tuple(replace(one, index=roles[:i].count(one.role)) for i, one in enumerate(said))


def _paths(recipe: Recipe, role: str) -> list[tuple[str | None, ...]]:
    single = recipe.aligned if role == "aligned" else recipe.base
    models = recipe.finetuned if role == "finetuned" else [single] if single is not None else []
    return [(m.path, m.revision, m.lora, m.lora_revision) for m in models]
