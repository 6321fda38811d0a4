"""Runs the merge from the window: what it needs, whether it may begin, and how it ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, Signal

from trimtab.checkpoints import Lineup
from trimtab.checkpoints.dtypes import BY_CODE, DTYPES, OUTPUT_DTYPES
from trimtab.errors import UserError
from trimtab.merging.place import partial_path
from trimtab.merging.recipe import Recipe
from trimtab_gui import texts
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.notices import Notice
from trimtab_gui.session import UnfinishedMerge

TOPIC = "merge"
AUTO = "auto"
#: an estimate rests on a merge at least this share as large
_COMPARABLE = 0.05
#: ends that may leave a partial folder worth going on with
_RESUMABLE = (
    "worker_stopped", "disk_full", "internal", "out_of_memory", "unfinished_exists",
    "unreadable", "truncated",
)  # fmt: skip


@dataclass(frozen=True)
class OutputSize:
    """What the merged model will be: its main dtype, bytes of all weight files, number of files."""

    dtype: str
    n_bytes: int
    shards: int


def output_size(lineup: Lineup, recipe: Recipe) -> OutputSize:
    """Work out the size of the result from headers alone."""
    checkpoint = lineup.reference.checkpoint
    wanted = OUTPUT_DTYPES.get(recipe.output.dtype)
    bits = np.array([d.bits for d in DTYPES])[checkpoint.index.dtype]
    label = checkpoint.dtype_label
    if wanted is not None:
        mergeable = np.array([d.mergeable for d in DTYPES])[checkpoint.index.dtype]
        bits = np.where(mergeable, BY_CODE[wanted].bits, bits)
        label = BY_CODE[wanted].label
    n_bytes = int((checkpoint.index.numel * bits).sum() // 8)
    n_bytes += sum(len(header.raw) + 8 for header in checkpoint.headers)
    size = recipe.output.shard_size
    shards = len(checkpoint.files) if size == "reference" else max(1, -(-n_bytes // int(size)))
    return OutputSize(label, n_bytes, shards)


def device_key(device: Mapping[str, Any]) -> str:
    """Return the name by which a job asks for a device."""
    return "cpu" if device["kind"] == "cpu" else f"{device['kind']}:{device['index']}"


def free_bytes(path: Path) -> int | None:
    """Return the free space where `path` would be written, None when nobody can say."""
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        return shutil.disk_usage(parent).free
    except OSError:
        return None


class Merging(QObject):
    """The output folder and the merge that writes it.

    `changed` follows the folder and the start and end of a merge; `exists` asks whether what is
    there may be replaced.
    """

    changed = Signal()
    exists = Signal(object)

    def __init__(self, desk: Desk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._output: Path | None = None
        self._job: Job | None = None
        self._running: UnfinishedMerge | None = None
        self._discarding: list[Job] = []
        self._device = str(desk.session.get("device", AUTO))
        memory = desk.session.get("memory")
        self._memory = memory if isinstance(memory, int) else None
        desk.project_changed.connect(self._forget)
        desk.lineup_changed.connect(self.changed)
        jobs = desk.jobs
        jobs.finished.connect(self._finished)
        jobs.failed.connect(self._failed)
        jobs.cancelled.connect(self._cancelled)

    @property
    def running(self) -> bool:
        """Whether a merge is queued or under way."""
        return self._job is not None

    @property
    def output(self) -> Path:
        """The folder that the result gets: the chosen one, or a new one beside the models."""
        return self._output or self._suggestion()

    def set_output(self, path: Path) -> None:
        """Choose the folder."""
        self._output = path.expanduser()
        self._desk.withdrawn.emit(TOPIC)
        self.changed.emit()

    @property
    def device(self) -> str:
        """The name of the device a merge runs on; "auto", also where the chosen one has gone."""
        known = [device_key(device) for device in self._desk.devices]
        return self._device if self._device in known else AUTO

    @property
    def memory(self) -> int | None:
        """The most bytes that a merge may take, None without a limit."""
        return self._memory

    def set_device(self, name: str) -> None:
        """Choose the device."""
        self._device = name
        self._desk.session.set("device", name)
        self.changed.emit()

    def set_memory(self, limit: int | None) -> None:
        """Choose the most bytes that a merge may take."""
        self._memory = limit
        self._desk.session.set("memory", limit)
        self.changed.emit()

    @property
    def job_params(self) -> dict[str, Any]:
        """What a job that plans or merges is told of device and memory."""
        limit = {} if self._memory is None else {"memory": self._memory}
        return {"device": self.device, **limit}

    def seconds_for(self, n_bytes: int) -> tuple[float, float] | None:
        """Return how long reading and writing `n_bytes` may take, and the bytes a second behind it.

        None when no comparable merge by this method has been measured here.
        """
        rates = self._desk.session.get("rates")
        found = rates.get(self._desk.recipe.method) if isinstance(rates, dict) else None
        if not isinstance(found, list) or len(found) != 2 or not found[0]:
            return None
        rate, measured = float(found[0]), float(found[1])
        return (n_bytes / rate, rate) if measured >= _COMPARABLE * n_bytes else None

    def _measured(self, result: dict[str, Any]) -> None:
        """Remember how fast a merge by its method was."""
        moved = int(result.get("bytes_read", 0)) + int(result.get("bytes_written", 0))
        seconds = float(result.get("seconds", 0.0))
        if moved and seconds > 0:
            rates = self._desk.session.get("rates")
            known = dict(rates) if isinstance(rates, dict) else {}
            known[str(result["method"])] = [moved / seconds, moved]
            self._desk.session.set("rates", known)

    def _forget(self) -> None:
        self._output = None
        self.changed.emit()

    def _suggestion(self) -> Path:
        recipe = self._desk.recipe
        reference = recipe.aligned or recipe.base
        if reference is None:
            return Path.home() / "merged"
        # not .stem: what follows a dot in Qwen3-1.7B is no suffix
        name = f"{Path(reference.path).name.removesuffix('.safetensors')}-merged"
        beside = Path(reference.path).parent
        if self._desk.is_demo or not os.access(beside, os.W_OK):
            return (
                Path.home() / "trimtab-demo-merged" if self._desk.is_demo else (Path.home() / name)
            )
        return beside / name

    def obstacle(self) -> str | None:
        """Return why a merge cannot begin now, None when it can."""
        if self.running:
            return self.tr("A merge is running.")
        missing = self.plan_obstacle()
        lineup = self._desk.lineup
        if missing is not None or lineup is None:
            return missing
        needed = output_size(lineup, self._desk.recipe).n_bytes
        free = free_bytes(self.output)
        if free is not None and needed > free:
            return self.tr("It needs {needed}; {free} are free there.").format(
                needed=texts.size(needed), free=texts.size(free)
            )
        return None

    def plan_obstacle(self) -> str | None:
        """Return why a merge cannot even be planned, None when it can."""
        desk = self._desk
        lineup = desk.lineup
        if desk.empty:
            return self.tr("Open models first.")
        if desk.lineup_error is not None:
            return desk.lineup_error.what
        if lineup is None:
            return self.tr("The models are being opened.")
        if lineup.errors:
            return self.tr("{model} cannot be merged: {what}").format(
                model=lineup.errors[0].model, what=lineup.errors[0].what
            )
        if not lineup.finetuned:
            return self.tr("Add a fine-tuned model.")
        if desk.method_error is not None:
            return desk.method_error.what
        return None

    def start(self, *, overwrite: bool = False) -> None:
        """Merge and save; what exists already is replaced only after a yes."""
        if self.obstacle() is not None:
            return
        if self.output.exists() and not overwrite:
            self.exists.emit(self.output)
            return
        self._submit(UnfinishedMerge(self._desk.recipe, self.output, overwrite), resume=False)

    def resume(self, left: UnfinishedMerge) -> None:
        """Go on with a merge that was interrupted; only an earlier yes lets it replace anything."""
        if not self.running:
            self._submit(left, resume=True)

    def discard(self, output: Path) -> None:
        """Throw an interrupted merge away."""
        self._desk.session.merge_ended()
        self._desk.withdrawn.emit(TOPIC)
        self._remove_partial(output)

    def _remove_partial(self, output: Path) -> None:
        params = {"output": str(output)}
        job = self._desk.jobs.submit("discard", params, self.tr("Cleaning up"), quiet=True)
        self._discarding.append(job)

    def interrupt(self) -> None:
        """End a running merge at once, so that its partial folder can be gone on with later.

        A worker that is asked to stop cleans up; one that is killed leaves what it has written.
        """
        if self._job is not None and self._job is self._desk.jobs.current:
            self._desk.jobs.kill_worker()

    def cancel(self) -> None:
        """Stop the merge."""
        if self._job is not None:
            self._desk.jobs.cancel(self._job)

    def offer_unfinished(self) -> None:
        """Offer to go on with a merge that the last window did not see the end of."""
        left = self._desk.session.unfinished
        if left is None or self.running:
            return
        what = self.tr("The merge into {name} was not finished.").format(name=left.output.name)
        why = self.tr("The last window ended before it was.")
        if partial_path(left.output).exists():
            self._offer("warning", what, why, "", left)
            return
        self._desk.session.merge_ended()
        fix = self.tr("Nothing of it was kept: merge again.")
        self._desk.notice.emit(Notice("warning", what, why, fix, topic=TOPIC))

    def _submit(self, merge: UnfinishedMerge, *, resume: bool) -> None:
        params = {
            "recipe": merge.recipe.model_dump(mode="json"),
            "output": str(merge.output),
            "overwrite": merge.overwrite,
            "resume": resume,
            **self.job_params,
        }
        self._desk.withdrawn.emit(TOPIC)
        self._desk.session.merge_started(merge)
        title = self.tr("Merging {name}").format(name=merge.output.name)
        self._job = self._desk.jobs.submit("merge", params, title)
        self._running = merge
        self.changed.emit()
        self._desk.state_changed.emit()

    def _end(self) -> UnfinishedMerge:
        assert self._running is not None
        ended = self._running
        self._job = self._running = None
        self.changed.emit()
        self._desk.state_changed.emit()
        return ended

    def _finished(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        if job is not self._job:
            return
        output = self._end().output
        self._desk.session.merge_ended()
        self._measured(result)
        counts = " · ".join(f"{n:,} {what}" for what, n in result.get("counts", {}).items())
        self._desk.notice.emit(
            Notice(
                "ok",
                self.tr("Saved {name} in {time}").format(
                    name=output.name, time=texts.duration(seconds)
                ),
                details=counts,
                actions=((self.tr("Open folder"), opener(output)),),
                topic=TOPIC,
            )
        )

    def _failed(self, job: Job, error: UserError) -> None:
        if job in self._discarding:
            self._discarding.remove(job)
            self._desk.notice.emit(Notice.of(error, topic=TOPIC))
        if job is not self._job:
            return
        ended = self._end()
        output = ended.output
        if error.code in _RESUMABLE and partial_path(output).exists():
            # its advice names the details, and there are none where the system ended it
            fix = error.fix if error.details else ""
            self._offer("error", error.what, error.why, fix, ended, error.details)
            return
        self._desk.session.merge_ended()
        if error.code == "output_exists":
            self.exists.emit(output)
        elif error.code == "cannot_resume":
            self._desk.notice.emit(
                Notice(
                    "error", error.what, error.why, error.fix, error.details,
                    ((self.tr("Discard what is left"), lambda: self.discard(output)),), TOPIC,
                )
            )  # fmt: skip
        else:
            self._desk.notice.emit(Notice.of(error, topic=TOPIC))

    def _cancelled(self, job: Job) -> None:
        if job is self._job:
            # a worker that was ended by force could not clean up behind itself
            self.discard(self._end().output)

    def _offer(
        self,
        kind: str,
        what: str,
        why: str,
        fix: str,
        left: UnfinishedMerge,
        details: str = "",
    ) -> None:
        output = left.output
        if output.exists():
            kept = self.tr("The earlier {name} is untouched; what was written is kept to go on "
                           "with. {fix}")  # fmt: skip
        else:
            kept = self.tr("Nothing is at {name} yet; what was written is kept to go on "
                           "with. {fix}")  # fmt: skip
        self._desk.notice.emit(
            Notice(
                "warning" if kind == "warning" else "error",
                what,
                why,
                kept.format(name=output.name, fix=fix).strip(),
                details,
                (
                    (self.tr("Go on"), lambda: self.resume(left)),
                    (self.tr("Discard"), lambda: self.discard(output)),
                ),
                TOPIC,
            )
        )


def opener(folder: Path) -> Callable[[], None]:
    """Return a function that shows a folder in the system's own way."""

    def open_it() -> None:
        from PySide6.QtCore import QUrl
        from PySide6.QtGui import QDesktopServices

        QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))

    return open_it
