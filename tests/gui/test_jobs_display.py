from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from trimtab.jobs.protocol import Progress
from trimtab_gui.job_display import JobDisplay, progress_text
from trimtab_gui.jobs import JobController
from trimtab_gui.notices import Notice
from trimtab_gui.widgets import JobBar

FAKE = Path(__file__).with_name("fake_worker.py")
Make = Callable[[str], tuple[JobController, JobBar, JobDisplay]]


@pytest.fixture
def make(qtbot: QtBot) -> Iterator[Make]:
    made: list[tuple[JobController, JobDisplay, QObject]] = []

    def display(mode: str) -> tuple[JobController, JobBar, JobDisplay]:
        owner = QObject()
        jobs, bar = JobController([sys.executable, str(FAKE), mode], owner), JobBar()
        qtbot.addWidget(bar)
        shown = JobDisplay(jobs, bar, owner)
        bar.show()
        made.append((jobs, shown, owner))
        return jobs, bar, shown

    yield display
    for jobs, shown, owner in made:
        shown.stop()
        jobs.shutdown()
        owner.deleteLater()


def test_progress_reads_as_counts_rate_and_time_left() -> None:
    progress = Progress(1, "Merging", 247, 399, 5, 10, 3.9e9, 2.4, 650_000_000)
    text = progress_text(progress)
    assert text == "Merging · 247 / 399 · 3.90 GB/s · 2.4 s left · 650 MB"


def test_a_running_job_is_shown_within_300_ms(make: Make, qtbot: QtBot) -> None:
    jobs, bar, _ = make("waits")
    with qtbot.waitSignal(jobs.started):
        jobs.submit("merge", {}, "Merging x")
    qtbot.waitUntil(lambda: bar.texts()[0] == "Merging x", timeout=300)


def test_a_quiet_job_is_not_shown(make: Make, qtbot: QtBot) -> None:
    jobs, bar, _ = make("waits")
    jobs.submit("devices", {}, "Looking", quiet=True)
    qtbot.wait(250)
    assert bar.texts() == ("", "")


def test_cancelling_from_the_bar_ends_the_job_and_says_so(make: Make, qtbot: QtBot) -> None:
    jobs, bar, shown = make("waits")
    with qtbot.waitSignal(jobs.progress):
        jobs.submit("merge", {}, "Merging x")
    shown.show_now()
    with qtbot.waitSignal(jobs.cancelled):
        bar.cancel_requested.emit()
    assert bar.texts() == ("Merging x", "cancelled")


def test_force_stop_is_offered_with_a_button_that_does_it(make: Make, qtbot: QtBot) -> None:
    jobs, bar, shown = make("silent")
    notices: list[Notice] = []
    withdrawn: list[str] = []
    shown.notice.connect(notices.append)
    shown.withdrawn.connect(withdrawn.append)
    with qtbot.waitSignal(jobs.progress):
        jobs.submit("merge", {}, "Merging x")
    bar.cancel_requested.emit()
    assert bar.texts()[1] == "Cancelling …"
    qtbot.waitUntil(lambda: bool(notices), timeout=4000)
    text, stop = notices[0].actions[0]
    assert text == "Force stop"
    with qtbot.waitSignal(jobs.cancelled):
        stop()
    assert withdrawn == ["force"]


def test_a_failure_stays_readable_in_the_bar(make: Make, qtbot: QtBot) -> None:
    jobs, bar, _ = make("fails")
    with qtbot.waitSignal(jobs.failed):
        jobs.submit("merge", {}, "Merging x")
    assert bar.texts() == ("Merging x", "It failed.")
