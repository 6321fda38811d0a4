from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pytestqt.qtbot import QtBot

from trimtab.errors import UserError
from trimtab_gui.jobs import JobController
from trimtab_gui.jobs.controller import State

FAKE = Path(__file__).with_name("fake_worker.py")
Make = Callable[[str], JobController]


@pytest.fixture
def make(qapp: object) -> Iterator[Make]:
    made: list[JobController] = []

    def controller(mode: str) -> JobController:
        made.append(JobController([sys.executable, str(FAKE), mode]))
        return made[-1]

    yield controller
    for one in made:
        one.shutdown()
        one.deleteLater()


def test_a_job_gives_its_progress_and_then_its_result(make: Make, qtbot: QtBot) -> None:
    jobs = make("good")
    seen: list[int] = []
    jobs.progress.connect(lambda job, progress: seen.append(progress.done))
    with qtbot.waitSignal(jobs.finished) as done:
        job = jobs.submit("merge", {"a": 1}, "Merging")
    assert done.args is not None
    assert done.args[0] is job
    assert done.args[1] == {"echo": {"a": 1}}
    assert seen == [0, 1, 2, 3]
    assert jobs.current is None
    assert job.state is State.ENDED


def test_no_worker_runs_before_there_is_something_to_do(make: Make, qtbot: QtBot) -> None:
    jobs = make("good")
    assert jobs.worker_pid == 0
    with qtbot.waitSignal(jobs.finished):
        jobs.submit("merge", {}, "Merging")
    assert jobs.worker_pid != 0


def test_jobs_run_one_after_the_other_in_their_order(make: Make, qtbot: QtBot) -> None:
    jobs = make("good")
    order: list[str] = []
    jobs.started.connect(lambda job: order.append(f"start {job.title}"))
    jobs.finished.connect(lambda job, result, seconds: order.append(f"end {job.title}"))
    jobs.submit("inspect", {}, "one")
    jobs.submit("inspect", {}, "two")
    qtbot.waitUntil(lambda: len(order) == 4)
    assert order == ["start one", "end one", "start two", "end two"]


def test_a_command_leaves_before_the_window_draws_again(make: Make, qtbot: QtBot) -> None:
    jobs = make("good")
    with qtbot.waitSignal(jobs.finished):
        jobs.submit("inspect", {}, "one")
    with qtbot.waitSignal(jobs.finished):
        jobs.submit("inspect", {}, "two")
        jobs._next()
        assert jobs._worker is not None
        assert jobs._worker._process.bytesToWrite() == 0


def test_an_error_of_the_job_comes_with_its_own_texts(make: Make, qtbot: QtBot) -> None:
    jobs = make("fails")
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("merge", {}, "Merging")
    assert failed.args is not None
    error = failed.args[1]
    assert isinstance(error, UserError)
    assert (error.code, error.what, error.fix) == ("no_luck", "It failed.", "Again.")


def test_a_waiting_job_is_cancelled_at_once(make: Make, qtbot: QtBot) -> None:
    jobs = make("waits")
    with qtbot.waitSignal(jobs.progress):
        jobs.submit("merge", {}, "first")
    second = jobs.submit("merge", {}, "second")
    with qtbot.waitSignal(jobs.cancelled) as cancelled:
        jobs.cancel(second)
    assert cancelled.args == [second]


def test_cancel_is_acknowledged_before_the_worker_answers(make: Make, qtbot: QtBot) -> None:
    jobs = make("silent")
    with qtbot.waitSignal(jobs.progress):
        job = jobs.submit("merge", {}, "Merging")
    begun = time.monotonic()
    with qtbot.waitSignal(jobs.cancelling):
        jobs.cancel(job)
    assert time.monotonic() - begun < 0.25
    assert job.state is State.CANCELLING


def test_a_worker_that_listens_stops_without_force(make: Make, qtbot: QtBot) -> None:
    jobs = make("waits")
    with qtbot.waitSignal(jobs.progress):
        job = jobs.submit("merge", {}, "Merging")
    with qtbot.waitSignal(jobs.cancelled):
        jobs.cancel(job)
    pid = jobs.worker_pid
    assert psutil.pid_exists(pid)


def test_force_stop_is_offered_to_a_silent_worker_and_ends_it(make: Make, qtbot: QtBot) -> None:
    jobs = make("silent")
    with qtbot.waitSignal(jobs.progress):
        job = jobs.submit("merge", {}, "Merging")
    pid = jobs.worker_pid
    begun = time.monotonic()
    with qtbot.waitSignal(jobs.force_stop_offered, timeout=4000):
        jobs.cancel(job)
    assert 1.8 < time.monotonic() - begun < 3.5
    with qtbot.waitSignal(jobs.cancelled):
        jobs.force_stop()
    assert not psutil.pid_exists(pid)


def test_a_worker_that_never_says_hello_can_be_stopped_by_force(make: Make, qtbot: QtBot) -> None:
    jobs = make("deaf")
    with qtbot.waitSignal(jobs.started):
        job = jobs.submit("merge", {}, "Merging")
    jobs.cancel(job)
    with qtbot.waitSignal(jobs.cancelled):
        jobs.force_stop()


def test_the_death_of_the_worker_fails_the_job_and_starts_a_new_one(
    make: Make, qtbot: QtBot
) -> None:
    jobs = make("good")
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("merge", {"die": True}, "Merging")
    assert failed.args is not None
    error = failed.args[1]
    assert error.code == "worker_stopped"
    assert "last words" in error.details
    qtbot.waitUntil(lambda: jobs.worker_pid != 0)
    with qtbot.waitSignal(jobs.finished):
        jobs.submit("merge", {}, "Merging again")


def test_jobs_behind_one_that_killed_the_worker_still_run(make: Make, qtbot: QtBot) -> None:
    jobs = make("good")
    with qtbot.waitSignals([jobs.failed, jobs.finished]):
        jobs.submit("merge", {"die": True}, "bad")
        jobs.submit("merge", {}, "good")


def test_a_worker_that_cannot_start_is_not_started_over_and_over(make: Make, qtbot: QtBot) -> None:
    jobs = make("stillborn")
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("devices", {}, "Looking")
    assert failed.args is not None
    assert "no such library" in failed.args[1].details
    qtbot.wait(300)
    assert jobs.worker_pid == 0


def test_a_command_that_does_not_exist_is_an_error_of_the_job(qtbot: QtBot) -> None:
    jobs = JobController(["/nowhere/python"])
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("devices", {}, "Looking")
    assert failed.args is not None
    assert "could not be started" in failed.args[1].why
    jobs.shutdown()


def test_broken_json_ends_the_job_instead_of_leaving_it_hanging(make: Make, qtbot: QtBot) -> None:
    jobs = make("garbled")
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("merge", {}, "Merging")
    assert failed.args is not None
    assert failed.args[1].code == "worker_stopped"
    assert "not a message" in failed.args[1].why


def test_a_worker_of_another_protocol_is_refused(make: Make, qtbot: QtBot) -> None:
    jobs = make("foreign")
    with qtbot.waitSignal(jobs.failed) as failed:
        jobs.submit("merge", {}, "Merging")
    assert failed.args is not None
    assert "99" in failed.args[1].why
    assert jobs.worker_pid == 0  # another one would be no better


def test_what_the_worker_prints_goes_to_the_log_and_nowhere_else(make: Make, qtbot: QtBot) -> None:
    jobs = make("talkative")
    with qtbot.waitSignal(jobs.finished):
        jobs.submit("merge", {}, "Merging")
    qtbot.waitUntil(lambda: "a library prints" in jobs.log)
    assert "a warning" in jobs.log


@pytest.mark.parametrize("mode", ["good", "silent", "deaf"])
def test_shutdown_leaves_no_process(make: Make, qtbot: QtBot, mode: str) -> None:
    jobs = make(mode)
    jobs.prewarm()
    qtbot.waitUntil(lambda: jobs.worker_pid != 0)
    pid = jobs.worker_pid
    jobs.submit("merge", {}, "Merging")
    qtbot.wait(100)
    jobs.shutdown()
    assert not psutil.pid_exists(pid)
