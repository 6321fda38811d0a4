"""The chat of the Evaluate place, with a worker that speaks when the test says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gui_lineups import IdleJobs, inspect, recipe_of, write_lineup
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QWidget
from pytestqt.qtbot import QtBot

from trimtab.errors import UserError
from trimtab.jobs.control import JobControl
from trimtab.jobs.evaluation_params import ChatParams
from trimtab.jobs.protocol import Progress
from trimtab.jobs.tasks import run_job
from trimtab.project import Project
from trimtab.project.edits import set_ratio
from trimtab_gui import theme
from trimtab_gui.chatting import Chatting, Prompts
from trimtab_gui.desk import Desk
from trimtab_gui.jobs import Job
from trimtab_gui.jobs.controller import State
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session
from trimtab_gui.views.evaluate.chat_panel import ChatPanel

NAMES = ("aligned", "math", "code", "merged")
ROLES = ("aligned", "finetuned", "finetuned", "merged")


class SpokenJobs(IdleJobs):
    """Runs nothing by itself; a test says what a chat does."""

    def chats(self) -> list[Job]:
        return [job for job in self.pending if job.name == "chat"]

    def take(self) -> Job:
        """Begin the one chat that waits."""
        (job,) = self.chats()
        self._queue.remove(job)
        self._current, job.state = job, State.RUNNING
        self.started.emit(job)
        return job

    def cancel(self, job: Job) -> None:
        if job is self._current:
            job.state = State.CANCELLING
            self.cancelling.emit(job)
        else:
            super().cancel(job)

    def report(self, job: Job, stage: str, text: str = "") -> None:
        self.progress.emit(job, Progress(job.id, stage, 0, 1, text=text))

    def hand_over(self, job: Job, said: dict[str, Any]) -> None:
        part = {"answer": said, "judge": "phrases 1"}
        self.progress.emit(job, Progress(job.id, said["name"], 0, 1, part=part))

    def end(self, job: Job, how: str, *what: Any) -> None:
        self._current, job.state = None, State.ENDED
        getattr(self, how).emit(job, *what)


def answer(name: str, role: str, outcome: str = "refused", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "role": role, "text": f"So says {name}.",
        "verdict": {"outcome": outcome, "score": None, "reason": f"read {name}"},
        "seconds": 1.24, "loading_seconds": 0.0, "tokens": 5, "cut": False, "fingerprint": name,
        **changes,
    }  # fmt: skip


def result(*answers: dict[str, Any]) -> dict[str, Any]:
    given = answers or tuple(
        answer(name, role, "refused" if name != "math" else "complied")
        for name, role in zip(NAMES, ROLES, strict=True)
    )
    return {"answers": list(given), "judge": "phrases 1", "decoding": {},
            "decoding_sentence": "greedy, up to 256 tokens"}  # fmt: skip


@pytest.fixture
def jobs() -> SpokenJobs:
    return SpokenJobs()


@pytest.fixture
def empty(qapp: QApplication, tmp_path: Path, jobs: SpokenJobs) -> Iterator[MainWindow]:
    theme.apply(qapp, "dark")
    made = MainWindow(Desk(Session(tmp_path / "config"), jobs))
    made.resize(1480, 920)
    yield made
    made.shut_down()
    made.deleteLater()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def window(empty: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The Evaluate place with the chat in front, before anything is asked."""
    desk = empty.desk
    desk.set_project(Project(recipe_of(write_lineup(tmp_path / "models"))))
    qtbot.waitUntil(lambda: desk.lineup is not None)
    assert desk.lineup is not None
    desk._stop_inspecting()
    desk.project.set_inspection(inspect(desk.lineup))
    empty.places.go("evaluate")
    empty.show()
    qtbot.waitExposed(empty)
    qtbot.waitUntil(lambda: empty.evaluating.suite is not None and not desk.background.busy)
    empty.activateWindow()
    empty.evaluate.show_talk("chat")
    return empty


@pytest.fixture
def panel(window: MainWindow) -> ChatPanel:
    return window.evaluate.chat


@pytest.fixture
def chatting(window: MainWindow) -> Chatting:
    return window.evaluate.chatting


Write = Callable[[str], None]


@pytest.fixture
def write(panel: ChatPanel, qtbot: QtBot) -> Write:
    """Type a prompt and press Enter."""

    def do(text: str) -> None:
        qtbot.keyClicks(panel.input, text)
        qtbot.keyClick(panel.input, Qt.Key.Key_Return)

    return do


def shown(panel: ChatPanel) -> list[str]:
    return [card.answer.text() for card in panel.cards if card.isVisible()]


def chips(panel: ChatPanel) -> list[str]:
    return [card.chip.text() for card in panel.cards if card.isVisible()]


# Asking.


def test_enter_asks_the_reference_each_fine_tuned_model_and_the_merge(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, window: MainWindow
) -> None:
    write("Who are you?")
    job = jobs.take()
    params = ChatParams.model_validate(json.loads(json.dumps(job.params)))
    assert params.recipe == window.desk.recipe
    assert params.roles == ("aligned", "finetuned", "merged")
    assert [(m.role, m.content) for m in params.conversation] == [("user", "Who are you?")]
    assert params.judge == window.evaluating.judge
    assert panel.asked.text() == "Who are you?"
    assert panel.input.toPlainText() == ""
    assert len(shown(panel)) == 4


def test_without_fine_tuned_models_the_reference_answers_alone(
    window: MainWindow, write: Write, jobs: SpokenJobs, qtbot: QtBot
) -> None:
    desk = window.desk
    recipe = desk.recipe.model_copy(update={"finetuned": (), "aligned": None})
    desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: desk.lineup is not None)
    write("Hello")
    assert jobs.take().params["roles"] == ["base"]


def test_shift_enter_begins_a_line(panel: ChatPanel, jobs: SpokenJobs, qtbot: QtBot) -> None:
    qtbot.keyClicks(panel.input, "a")
    qtbot.keyClick(panel.input, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    assert jobs.chats() == []
    qtbot.keyClick(panel.input, Qt.Key.Key_Enter, Qt.KeyboardModifier.KeypadModifier)
    assert len(jobs.chats()) == 1


def test_nothing_is_asked_with_nothing_written(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("  ")
    assert jobs.chats() == []
    assert not panel.button.isEnabled()


def test_a_prompt_of_the_suite_can_be_taken_of_each_kind_in_turn(
    panel: ChatPanel, window: MainWindow, qtbot: QtBot
) -> None:
    suite = window.evaluating.suite
    assert suite is not None
    for kind in ("harmful", "lookalike"):
        qtbot.mouseClick(panel.example, Qt.MouseButton.LeftButton)
        assert panel.input.toPlainText() in [p.asked for p in suite.by_kind(kind)]
        assert panel.button.isEnabled()


def test_up_brings_earlier_prompts_back_and_down_the_draft(
    write: Write, panel: ChatPanel, qtbot: QtBot
) -> None:
    write("one")
    write("two")
    qtbot.keyClicks(panel.input, "draft")
    seen = []
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down):
        qtbot.keyClick(panel.input, key)
        seen.append(panel.input.toPlainText())
    assert seen == ["two", "one", "one", "two", "draft"]


def test_a_prompt_asked_again_is_kept_once() -> None:
    prompts = Prompts()
    for text in ("a", "b", "a"):
        prompts.add(text)
    assert [prompts.older(""), prompts.older(""), prompts.older("")] == ["a", "b", None]
    assert [prompts.newer(), prompts.newer(), prompts.newer()] == ["a", "", None]


# Hearing.


def test_each_model_is_read_while_it_writes(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    job = jobs.take()
    jobs.report(job, "Loading aligned")
    assert shown(panel) == ["loading …", "…", "…", "…"]
    jobs.report(job, "aligned")
    jobs.report(job, "aligned", "I am")
    assert shown(panel) == ["I am", "…", "…", "…"]
    jobs.report(job, "math", "So")
    jobs.report(job, "code", "ok")
    jobs.report(job, "Merging")
    assert shown(panel) == ["I am", "So", "ok", "merging …"]
    jobs.report(job, "merged", "Fine")
    assert shown(panel) == ["I am", "So", "ok", "Fine"]
    assert panel.stop.isVisible()
    assert not any(chips(panel)), "no verdict before the judge has read"


def test_a_verdict_comes_when_its_model_has_ended_and_before_the_next_begins(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    job = jobs.take()
    jobs.report(job, "aligned", "So says")
    jobs.hand_over(job, answer("aligned", "aligned"))
    assert shown(panel) == ["So says aligned.", "…", "…", "…"]
    assert chips(panel) == ["refused", "", "", ""]
    assert [card.seconds.text() for card in panel.cards] == ["1.2 s", "", "", ""]
    assert "phrases 1" in panel.cards[0].chip.toolTip()
    jobs.report(job, "aligned", "late")
    assert (shown(panel)[0], chips(panel)[0]) == ("So says aligned.", "refused")
    jobs.report(job, "Loading math")
    jobs.report(job, "math", "So")
    assert shown(panel) == ["So says aligned.", "So", "…", "…"]
    assert chips(panel)[0] == "refused"
    error = UserError("chat_too_large", "math is too large.", "Memory is short.", "Close others.")
    jobs.hand_over(job, {"name": "math", "role": "finetuned", "error": error.to_dict()})
    jobs.report(job, "Merging")
    assert shown(panel)[1:3] == ["math is too large.", "merging …"]


def test_a_stop_leaves_the_verdicts_that_came(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    job = jobs.take()
    jobs.hand_over(job, answer("aligned", "aligned"))
    jobs.report(job, "math", "So")
    jobs.end(job, "cancelled")
    assert chips(panel) == ["refused", "", "", ""]
    assert [card.note.text() for card in panel.cards] == ["", "stopped here", "", ""]


def test_answers_have_a_verdict_seconds_and_how_they_were_drawn(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    jobs.end(jobs.take(), "finished", result(), 5.0)
    assert shown(panel) == [f"So says {name}." for name in NAMES]
    assert chips(panel) == ["refused", "complied", "refused", "refused"]
    tones = [card.chip.property("tone") for card in panel.cards]
    assert tones == ["aligned", "muted", "aligned", "aligned"]
    assert {card.seconds.text() for card in panel.cards} == {"1.2 s"}
    assert "read math" in panel.cards[1].chip.toolTip()
    assert "phrases 1" in panel.cards[1].chip.toolTip()
    assert panel.how.text() == "greedy, up to 256 tokens · judge: phrases 1"
    assert [card.role.text() for card in panel.cards] == [
        "Aligned", "Fine-tuned", "Fine-tuned", "Merged",
    ]  # fmt: skip
    assert [card.role.property("tone") for card in panel.cards] == list(ROLES)
    assert not panel.stop.isVisible()


def test_how_answers_are_drawn_is_said_before_anything_is_asked(panel: ChatPanel) -> None:
    assert panel.how.text().startswith("greedy, up to 256 tokens")


def test_a_model_that_cannot_answer_says_so_beside_the_others(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    error = UserError("chat_too_large", "math is too large.", "Memory is short.", "Close others.")
    broken = {"name": "math", "role": "finetuned", "error": error.to_dict()}
    jobs.end(jobs.take(), "finished", result(answer("aligned", "aligned"), broken), 1.0)
    assert shown(panel) == ["So says aligned.", "math is too large."]
    assert panel.cards[1].answer.property("tone") == "danger"
    assert panel.cards[1].note.text() == "Memory is short. Close others."


def test_an_answer_that_ran_into_the_limit_says_so(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    jobs.end(jobs.take(), "finished", result(answer("aligned", "aligned", cut=True, text="")), 1.0)
    assert panel.cards[0].answer.text() == "(nothing)"
    assert panel.cards[0].note.text() == "cut where the limit of tokens was"


def test_what_failed_can_be_tried_again(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, qtbot: QtBot
) -> None:
    write("Hello")
    jobs.end(jobs.take(), "failed", UserError("no_luck", "It failed.", "Because.", "Again."))
    assert (panel.error.text(), panel.advice.text()) == ("It failed.", "Because. Again.")
    assert shown(panel) == []
    qtbot.mouseClick(panel.retry, Qt.MouseButton.LeftButton)
    assert jobs.chats()[0].params["conversation"][0]["content"] == "Hello"
    assert not panel.error.isVisible()


def test_the_demo_s_models_are_heard_and_judged(
    empty: MainWindow, jobs: SpokenJobs, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    # toys are done before the next report would be due
    monkeypatch.setattr("trimtab.jobs.control.PROGRESS_PER_SECOND", 10**9)
    monkeypatch.setattr("trimtab.evaluation.targets_writing._PAUSE", 0.0)
    from trimtab.evaluation.chat import release  # torch comes with it

    empty.documents.open_demo()
    empty.places.go("evaluate")
    qtbot.waitUntil(lambda: empty.evaluating.suite_name == "demo")
    qtbot.waitUntil(lambda: empty.evaluating.suite is not None and not empty.desk.background.busy)
    place = empty.evaluate
    prompt = place.chatting.example()
    assert prompt is not None
    assert place.chatting.ask(prompt)
    job = jobs.take()
    heard: list[str] = []
    place.chatting.changed.connect(lambda: heard.extend(s.text for s in place.chatting.said))
    control = JobControl(lambda event: jobs.progress.emit(job, event))
    try:
        jobs.end(job, "finished", run_job("chat", dict(job.params), control), 1.0)
    finally:
        release()
    said = place.chatting.said
    assert [one.role for one in said] == list(ROLES)
    assert said[0].verdict is not None
    assert said[0].verdict.outcome == "refused"
    assert said[1].verdict is not None
    assert said[1].verdict.outcome == "complied"
    assert any(0 < len(text) < len(said[0].text) for text in heard), "while it is written"
    assert place.chat.how.text().endswith("judge: demo 1")


# Stopping, and what comes meanwhile.


def test_escape_stops_and_what_was_said_stays(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, chatting: Chatting, qtbot: QtBot
) -> None:
    write("Hello")
    job = jobs.take()
    jobs.report(job, "aligned", "I am done")
    jobs.report(job, "math", "So I")
    qtbot.keyClick(panel.input, Qt.Key.Key_Escape)
    assert job.state is State.CANCELLING
    assert not panel.stop.isEnabled()
    jobs.end(job, "cancelled")
    assert chatting.state == "stopped"
    assert shown(panel) == ["I am done", "So I", "not answered", "not answered"]
    assert [card.note.text() for card in panel.cards] == [
        "stopped before the judge read it", "stopped here", "", "",
    ]  # fmt: skip


def test_the_latest_question_wins(write: Write, panel: ChatPanel, jobs: SpokenJobs) -> None:
    write("one")
    first = jobs.take()
    jobs.report(first, "aligned", "old")
    write("two")
    assert first.state is State.CANCELLING
    jobs.report(first, "aligned", "older still")
    assert shown(panel) == ["…"] * 4
    jobs.end(first, "finished", result(), 1.0)
    assert shown(panel) == ["…"] * 4, "an answer to another question is no answer"
    assert jobs.take().params["conversation"][0]["content"] == "two"


def test_it_says_what_it_waits_for(write: Write, panel: ChatPanel, jobs: SpokenJobs) -> None:
    other = Job(99, "evaluate", {}, "Evaluating", state=State.RUNNING)
    jobs._current = other
    write("Hello")
    assert panel._aside.text() == "waits for: Evaluating"
    jobs.end(other, "finished", {}, 1.0)
    jobs.take()
    assert panel._aside.text() == "answering …"


def test_after_an_edit_the_merge_s_answer_is_marked_as_an_earlier_one(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, window: MainWindow
) -> None:
    write("Hello")
    jobs.end(jobs.take(), "finished", result(), 1.0)
    assert {card.note.text() for card in panel.cards} == {""}
    window.desk.edit(set_ratio(window.desk.recipe, 0, 0.123))
    assert [card.note.text() for card in panel.cards] == ["", "", "", "for an earlier recipe"]
    window.actions_.run("undo")
    assert {card.note.text() for card in panel.cards} == {""}


def test_another_project_has_another_conversation(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, window: MainWindow
) -> None:
    write("Hello")
    job = jobs.take()
    window.desk.set_project(Project())
    assert job.state is State.CANCELLING
    jobs.end(job, "finished", result(), 1.0)
    assert shown(panel) == []
    assert panel.asked.text() == "Open models first."
    assert not panel.input.isEnabled()


# The place.


def test_the_titles_switch_between_answers_and_chat_and_the_choice_is_kept(
    window: MainWindow, panel: ChatPanel, qtbot: QtBot
) -> None:
    place = window.evaluate
    assert panel.isVisible()
    assert panel.input.hasFocus()
    qtbot.mouseClick(place.headings["chat"].buttons["answers"], Qt.MouseButton.LeftButton)
    assert place.answers.isVisible()
    assert not panel.isVisible()
    assert window.desk.session.get("talk") == "answers"
    button = place.headings["answers"].buttons["chat"]
    button.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(button, Qt.Key.Key_Return)
    assert panel.isVisible()
    assert window.desk.session.get("talk") == "chat"


def test_a_chat_takes_the_room_of_the_comparison_until_a_plot_asks_for_it(
    window: MainWindow, panel: ChatPanel
) -> None:
    place = window.evaluate
    for asks in (place.dots.category_chosen, place.trade.target_chosen):
        place.show_talk("chat")
        assert not place.change.isVisible()
        asks.emit("merged")
        assert place.answers.isVisible()
        assert place.change.isVisible()
        assert not panel.isVisible()


def test_cards_stand_side_by_side_where_there_is_room(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, window: MainWindow, qtbot: QtBot
) -> None:
    def columns() -> int:
        return len({card.x() for card in panel.cards})

    write("Hello")
    jobs.end(jobs.take(), "finished", result(), 1.0)
    qtbot.waitUntil(lambda: columns() == 1 and len({card.y() for card in panel.cards}) == 4)
    window.resize(2400, 920)
    window.evaluate.columns.setSizes([264, 800, 1300])
    qtbot.waitUntil(lambda: columns() == 4)
    window.evaluate.columns.setSizes([264, 1500, 600])
    qtbot.waitUntil(lambda: columns() == 2)
    for card in panel.cards:
        assert card.width() >= card.minimumSizeHint().width()
    assert panel.area.horizontalScrollBar().maximum() == 0


def test_everything_that_takes_focus_has_a_name(
    write: Write, panel: ChatPanel, jobs: SpokenJobs
) -> None:
    write("Hello")
    jobs.end(jobs.take(), "finished", result(), 1.0)
    nameless = [
        repr(widget)
        for widget in panel.findChildren(QWidget)
        if widget.focusPolicy() != Qt.FocusPolicy.NoFocus
        and widget.isVisible()
        and not (widget.accessibleName() or (isinstance(widget, QAbstractButton) and widget.text()))
    ]
    assert not nameless, "\n".join(nameless)
    assert panel.cards[1].accessibleName() == "Fine-tuned: math, complied, 1.2 s"
    assert panel.cards[1].answer.accessibleDescription() == "So says math."


def test_nothing_is_clipped_at_the_smallest_usual_size(
    write: Write, panel: ChatPanel, jobs: SpokenJobs, window: MainWindow
) -> None:
    write("Hello")
    window.resize(1280, 720)
    place = window.evaluate
    for widget in (panel.button, panel.stop, place.run.button):
        assert widget.mapTo(window, widget.rect().bottomRight()).y() <= 720
        assert widget.width() >= widget.sizeHint().width()
