"""The live preview in the window, with a worker that answers when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gui_lineups import IdleJobs, inspect, recipe_of, write_lineup
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from trimtab.errors import UserError
from trimtab.evaluation.probes import MEASURES
from trimtab.jobs.protocol import Progress
from trimtab.merging.recipe import Recipe
from trimtab.project import Project
from trimtab.project.edits import set_method, set_ratio
from trimtab_gui import preview as module
from trimtab_gui import theme
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.preview import LivePreview
from trimtab_gui.session import Session
from trimtab_gui.views.preview_panel import PreviewPanel


class ScriptedJobs(IdleJobs):
    """Runs nothing by itself; a test takes jobs and says how they end."""

    def __init__(self) -> None:
        super().__init__()
        self.cancel_asked: list[Job] = []

    def previews(self) -> list[Job]:
        return [job for job in self.pending if job.name == "preview"]

    def take(self) -> Job:
        """Begin the one preview that waits."""
        (job,) = self.previews()
        self._queue.remove(job)
        self._current = job
        return job

    def cancel(self, job: Job) -> None:
        if job is self._current:
            self.cancel_asked.append(job)
        else:
            super().cancel(job)

    def end_others(self) -> None:
        for job in self.pending:
            if job.name != "preview":
                self._queue.remove(job)
                self.cancelled.emit(job)

    def answer(self, job: Job, refusal: float, task: float, **more: Any) -> None:
        self._current = None
        self.finished.emit(job, result_of(refusal, task) | more, 0.05)

    def tell(self, job: Job, stage: str, done: int = 0, total: int = 2) -> None:
        self.progress.emit(job, Progress(job.id, stage, done, total))

    def fail(self, job: Job, error: UserError) -> None:
        self._current = None
        self.failed.emit(job, error)


def numbers(refusal: float, task: float) -> dict[str, Any]:
    found: dict[str, Any] = {m.id: {"value": 0.5, "n": 128, "hits": None} for m in MEASURES}
    found["refusal_share"] = {"value": refusal, "n": 64, "hits": round(64 * refusal)}
    found["task_accuracy"] = {"value": task, "n": 64, "hits": round(64 * task)}
    found["perplexity"] = {"value": None, "n": 0, "hits": None}
    return found


def result_of(refusal: float, task: float) -> dict[str, Any]:
    said = {"suite": "own", "digest": "", "seed": 0, "harmful": 64, "task": 64, "text": 0}
    return {
        "merged": numbers(refusal, task),
        "reference": numbers(1.0, 0.125),
        "finetuned": numbers(0.25, 0.75),
        "loaded": False,
        "streamed": False,
        "probes": {**said, "template": "model", "openings": ["sorry"]},
    }


@pytest.fixture
def jobs() -> ScriptedJobs:
    return ScriptedJobs()


@pytest.fixture
def window(qapp: QApplication, tmp_path: Path, jobs: ScriptedJobs) -> Iterator[MainWindow]:
    theme.apply(qapp, "dark")
    made = MainWindow(Desk(Session(tmp_path / "config"), jobs))
    made.resize(1480, 920)
    yield made
    made.shut_down()
    made.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


Open = Callable[..., MainWindow]


@pytest.fixture
def open_lineup(window: MainWindow, tmp_path: Path, qtbot: QtBot, jobs: ScriptedJobs) -> Open:
    """Open a lineup, with a tokenizer or without, and let it be inspected."""

    def do(*, tokenizer: bool = True) -> MainWindow:
        paths = write_lineup(tmp_path / "models")
        if tokenizer:
            (paths["aligned"] / "tokenizer.json").write_text("{}")
        window.desk.set_project(Project(recipe_of(paths)))
        qtbot.waitUntil(lambda: window.desk.lineup is not None)
        assert window.desk.lineup is not None
        jobs.end_others()
        window.desk._stop_inspecting()
        window.desk.project.set_inspection(inspect(window.desk.lineup))
        window.show()
        qtbot.waitExposed(window)
        qtbot.waitUntil(lambda: not window.desk.background.busy)
        jobs.end_others()
        return window

    return do


def live(window: MainWindow) -> LivePreview:
    return window.workbench.pages.live


def panel(window: MainWindow) -> PreviewPanel:
    return window.workbench.preview


def asked(job: Job) -> Recipe:
    return Recipe.model_validate(job.params["recipe"])


def move(window: MainWindow, ratio: float) -> None:
    window.desk.edit(set_ratio(window.desk.recipe, 0, ratio))


def texts_of(shown: PreviewPanel) -> tuple[str, str, str, str]:
    return shown.refusal._text, shown.refusal._note, shown.task._text, shown.task._note


def test_an_opened_lineup_is_measured_and_shown_beside_the_fine_tuned(
    open_lineup: Open, jobs: ScriptedJobs
) -> None:
    window = open_lineup()
    shown = panel(window)
    assert shown.isVisible()
    assert live(window).state == "loading"
    assert shown._aside.text() == "loading the models …"
    assert texts_of(shown) == ("–", "", "–", "")
    job = jobs.take()
    assert job.quiet, "it is no news for the job bar"
    assert job.params["against"] == 0
    assert asked(job) == window.desk.recipe
    jobs.answer(job, 0.953125, 0.734375)
    assert live(window).state == "ready"
    assert texts_of(shown) == (
        "95.3", "+70.3 vs fine-tuned", "73.4", "−1.6 vs fine-tuned",
    )  # fmt: skip
    assert shown._aside.text().startswith("64 + 64 probes · ")
    assert shown._aside.text().endswith(" ms")


def test_the_tooltip_says_what_is_measured_with_formula_and_interval(
    open_lineup: Open, jobs: ScriptedJobs
) -> None:
    window = open_lineup()
    jobs.answer(jobs.take(), 0.9375, 0.5)
    tip = panel(window).refusal.toolTip()
    assert "60 of 64, 93.8 % [85, 98]" in tip
    assert "(1/n) Σᵢ [argmaxᵥ p(v | xᵢ) ∈ R]" in tip
    assert "Refusal margin: 0.5 (n = 128) · fine-tuned 0.5" in tip
    assert "chosen by seed 0. R: sorry." in tip
    assert "Perplexity: no data" in panel(window).task.toolTip()


def test_of_many_moves_the_last_is_asked_when_the_answer_is_in(
    open_lineup: Open, jobs: ScriptedJobs
) -> None:
    window = open_lineup()
    first = jobs.take()
    for ratio in (0.5, 0.4, 0.3):
        move(window, ratio)
        assert jobs.previews() == [], "one request at a time"
    assert jobs.cancel_asked == [], "a quick request is let finish: gauges move with the hand"
    jobs.answer(first, 0.5, 0.5)
    second = jobs.take()
    assert asked(second).finetuned[0].ratio == 0.3
    jobs.answer(second, 0.625, 0.5)
    assert panel(window).refusal.value() == 62.5
    assert jobs.previews() == []
    answer = live(window).answer
    assert answer is not None
    assert answer.recipe == window.desk.recipe


def test_the_next_request_is_sent_before_the_last_answer_is_drawn(
    open_lineup: Open, jobs: ScriptedJobs, qtbot: QtBot
) -> None:
    window = open_lineup()
    first = jobs.take()
    move(window, 0.5)
    drawn: list[float | None] = []
    live(window).changed.connect(lambda: drawn.append(panel(window).refusal.value()))
    jobs.answer(first, 0.5, 0.5)
    assert len(jobs.previews()) == 1
    assert drawn == []
    qtbot.waitUntil(lambda: drawn == [50])


def test_a_slow_request_is_given_up_for_a_newer_one(
    open_lineup: Open, jobs: ScriptedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_lineup()
    job = jobs.take()
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    move(window, 0.5)
    assert jobs.cancel_asked == [], "what is being loaded is needed for the next one too"
    jobs.tell(job, "Measuring")
    move(window, 0.4)
    assert jobs.cancel_asked == [job]
    jobs._current = None
    jobs.cancelled.emit(job)
    assert asked(jobs.take()).finetuned[0].ratio == 0.4


@pytest.mark.parametrize("stage", ["Merging", "Measuring", "Streaming"])
def test_what_serves_one_request_alone_is_given_up(
    stage: str, open_lineup: Open, jobs: ScriptedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_lineup()
    job = jobs.take()
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    for shared in ("Loading", "Streaming the reference", "Streaming the fine-tuned model"):
        jobs.tell(job, shared)
        move(window, 0.5)
        assert jobs.cancel_asked == [], "later requests need it too"
    jobs.tell(job, stage)
    move(window, 0.4)
    assert jobs.cancel_asked == [job]


def test_streamed_models_say_so_with_how_far_they_are_and_how_long_it_takes(
    open_lineup: Open, jobs: ScriptedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_lineup()
    shown, job = panel(window), jobs.take()
    jobs.tell(job, "Streaming the reference", 5, 20)
    assert shown._aside.text() == "streaming block by block, 25 %"
    jobs.tell(job, "Streaming", 15, 20)
    assert shown._aside.text() == "streaming block by block, 75 %"
    jobs.answer(job, 0.5, 0.5, streamed=True, loaded=True, milliseconds={"total": 12_000.0})
    assert shown._aside.text() == "64 + 64 probes · streamed in 12 s"
    assert "one block after the other, the last time in 12 s." in shown.task.toolTip()
    move(window, 0.5)
    jobs.tell(jobs.take(), "Streaming", 1, 20)
    assert shown._aside.text() == "streaming block by block, 5 %"
    assert shown.refusal.value() == 50, "the last answer stays"


def test_a_merge_does_not_wait_for_what_is_streamed(open_lineup: Open, jobs: ScriptedJobs) -> None:
    window = open_lineup()
    job = jobs.take()
    jobs.tell(job, "Streaming the reference")
    merge = jobs.submit("merge", {}, "Merging")
    assert jobs.cancel_asked == [job]
    jobs._current = None
    jobs.cancelled.emit(job)
    jobs._queue.remove(merge)
    jobs.finished.emit(merge, {}, 1.0)
    jobs.answer(jobs.take(), 0.5, 0.5)
    assert live(window).state == "ready"


def test_other_jobs_come_first(open_lineup: Open, jobs: ScriptedJobs) -> None:
    window = open_lineup()
    jobs.answer(jobs.take(), 0.5, 0.5)
    move(window, 0.5)
    job = jobs.take()
    jobs.tell(job, "Measuring")
    merge = jobs.submit("merge", {}, "Merging")
    assert jobs.cancel_asked == [job]
    jobs._current = None
    jobs.cancelled.emit(job)
    assert jobs.previews() == []
    move(window, 0.4)
    assert jobs.previews() == []
    jobs._queue.remove(merge)
    jobs.finished.emit(merge, {}, 1.0)
    assert asked(jobs.take()).finetuned[0].ratio == 0.4


def test_an_error_stands_in_its_place_until_the_recipe_changes(
    open_lineup: Open, jobs: ScriptedJobs
) -> None:
    window = open_lineup()
    jobs.fail(jobs.take(), UserError("x", "It cannot be run.", "Because.", "Choose another."))
    shown = panel(window)
    assert shown.message.toolTip() == "Because."
    assert live(window).state == "error"
    assert shown.message.isVisible()
    assert shown.message.text() == "It cannot be run. Choose another."
    assert jobs.previews() == [], "it is not tried again by itself"
    move(window, 0.5)
    jobs.answer(jobs.take(), 0.5, 0.5)
    assert not shown.message.isVisible()
    assert shown.refusal.value() == 50


def test_a_method_that_cannot_be_used_is_not_asked_about(
    open_lineup: Open, jobs: ScriptedJobs
) -> None:
    window = open_lineup()
    jobs.answer(jobs.take(), 0.5, 0.5)
    window.desk.edit(set_method(window.desk.recipe, "slerp"))
    assert jobs.previews() == []
    assert live(window).state == "error"
    assert "SLERP" in panel(window).message.text()


def test_without_a_tokenizer_the_distance_is_in_front_and_the_reason_behind(
    open_lineup: Open, jobs: ScriptedJobs, qtbot: QtBot
) -> None:
    window = open_lineup(tokenizer=False)
    bench = window.workbench
    assert jobs.previews() == []
    assert bench.distance.isVisible()
    assert not bench.preview.isVisible()
    bench.pages.back.click()
    assert bench.preview.isVisible()
    assert not bench.distance.isVisible()
    assert bench.preview.message.text() == "Cannot be measured: aligned has no tokenizer."
    move(window, 0.5)
    assert bench.preview.isVisible(), "what was chosen stays"
    bench.preview.switch.click()
    assert bench.distance.isVisible()


def test_a_new_lineup_forgets_the_old_ones_numbers(
    open_lineup: Open, jobs: ScriptedJobs, tmp_path: Path, qtbot: QtBot
) -> None:
    window = open_lineup()
    jobs.answer(jobs.take(), 0.5, 0.5)
    move(window, 0.5)
    job = jobs.take()
    window.desk.set_project(Project(recipe_of(write_lineup(tmp_path / "others"))))
    assert jobs.cancel_asked == [job]
    assert live(window).answer is None
    jobs.answer(job, 0.25, 0.25)
    assert live(window).answer is None, "an answer about other models"
    qtbot.waitUntil(lambda: window.desk.lineup is not None)


def test_an_empty_window_asks_for_nothing(window: MainWindow, jobs: ScriptedJobs) -> None:
    assert live(window).state == "empty"
    assert panel(window).message.text() == "What the merge will answer appears here."
    assert jobs.previews() == []
