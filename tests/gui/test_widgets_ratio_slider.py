from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QLabel, QLineEdit
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.widgets import RatioSlider

# The offscreen platform says so of every window that has a least size.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT = Qt.MouseButton.LeftButton


class Log:
    """Everything a slider said, in order."""

    def __init__(self, slider: RatioSlider) -> None:
        self.said: list[tuple[str, float | None]] = []
        slider.drag_started.connect(lambda: self.said.append(("start", None)))
        slider.value_moved.connect(lambda v: self.said.append(("move", v)))
        slider.drag_finished.connect(lambda v: self.said.append(("end", v)))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]


@pytest.fixture
def slider(qtbot: QtBot, qapp: QApplication) -> RatioSlider:
    theme.apply(qapp, "dark")
    widget = RatioSlider("λ gsm8k", 0.0, 1.0, 0.8, color_role="finetuned")
    qtbot.addWidget(widget)
    widget.resize(260, 44)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def wheel(widget: QLabel | object, at: QPointF) -> QWheelEvent:
    return QWheelEvent(
        at,
        at,
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )


def test_a_drag_is_one_start_many_moves_and_one_end(qtbot: QtBot, slider: RatioSlider) -> None:
    log = Log(slider)
    track = slider.track
    middle = track.height() // 2
    begin = QPoint(round(track.handle_x()), middle)
    qtbot.mousePress(track, LEFT, pos=begin)
    assert slider.value() == 0.8
    for step in range(1, 11):
        qtbot.mouseMove(track, begin - QPoint(10 * step, 0))
    qtbot.mouseRelease(track, LEFT, pos=begin - QPoint(100, 0))
    kinds = log.kinds()
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("start") == kinds.count("end") == 1
    assert kinds.count("move") >= 8
    assert log.said[-1][1] == slider.value()
    assert 0.3 < slider.value() < 0.5


def test_a_drag_beyond_the_ends_stays_within_the_limits(qtbot: QtBot, slider: RatioSlider) -> None:
    track = slider.track
    begin = QPoint(round(track.handle_x()), track.height() // 2)
    qtbot.mousePress(track, LEFT, pos=begin)
    qtbot.mouseMove(track, QPoint(5000, 5))
    assert slider.value() == 1.0
    qtbot.mouseMove(track, QPoint(-5000, 5))
    assert slider.value() == 0.0
    qtbot.mouseRelease(track, LEFT, pos=QPoint(-5000, 5))


def test_setting_the_value_says_nothing(slider: RatioSlider) -> None:
    log = Log(slider)
    slider.set_value(0.123)
    assert slider.value() == 0.123
    assert slider.text() == "0.12"
    assert log.said == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (Qt.Key.Key_Right, 0.51),
        (Qt.Key.Key_Up, 0.51),
        (Qt.Key.Key_Left, 0.49),
        (Qt.Key.Key_Down, 0.49),
        (Qt.Key.Key_PageUp, 0.6),
        (Qt.Key.Key_PageDown, 0.4),
        (Qt.Key.Key_Home, 0.0),
        (Qt.Key.Key_End, 1.0),
    ],
)
def test_keys_step(qtbot: QtBot, slider: RatioSlider, key: Qt.Key, expected: float) -> None:
    slider.set_value(0.5)
    log = Log(slider)
    qtbot.keyClick(slider.track, key)
    assert slider.value() == pytest.approx(expected)
    assert log.kinds() == ["start", "move", "end"]


def test_the_wheel_turns_only_what_has_the_focus(qtbot: QtBot, slider: RatioSlider) -> None:
    track = slider.track
    track.clearFocus()
    at = QPointF(track.rect().center())
    QApplication.sendEvent(track, wheel(track, at))
    assert slider.value() == 0.8
    slider.activateWindow()
    track.setFocus()
    qtbot.waitUntil(track.hasFocus)
    QApplication.sendEvent(track, wheel(track, at))
    assert slider.value() == pytest.approx(0.81)


def edit_of(slider: RatioSlider) -> QLineEdit:
    edit = slider.findChild(QLineEdit)
    assert edit is not None
    return edit


def test_typing_a_number_sets_it_as_one_gesture(qtbot: QtBot, slider: RatioSlider) -> None:
    slider.activateWindow()
    log = Log(slider)
    qtbot.keyClick(slider.track, Qt.Key.Key_Return)
    edit = edit_of(slider)
    qtbot.waitUntil(edit.isVisible)
    edit.selectAll()
    qtbot.keyClicks(edit, "0.375")
    qtbot.keyClick(edit, Qt.Key.Key_Return)
    assert slider.value() == 0.375
    assert log.said == [("start", None), ("move", 0.375), ("end", 0.375)]
    assert not edit.isVisible()


def test_escape_leaves_the_value_as_it_was(qtbot: QtBot, slider: RatioSlider) -> None:
    slider.activateWindow()
    log = Log(slider)
    slider.begin_edit("0.1")
    qtbot.keyClick(edit_of(slider), Qt.Key.Key_Escape)
    assert slider.value() == 0.8
    assert log.said == []


def test_a_double_click_on_the_number_opens_it(qtbot: QtBot, slider: RatioSlider) -> None:
    number = next(w for w in slider.findChildren(QLabel) if w.text() == "0.80")
    qtbot.mouseDClick(number, LEFT)
    assert edit_of(slider).isVisible()


def test_a_screen_reader_gets_name_and_value(slider: RatioSlider) -> None:
    slider.set_value(0.25)
    assert slider.track.accessibleName() == "λ gsm8k"
    assert slider.track.accessibleDescription() == "0.25"


def test_a_value_beyond_the_limits_is_told_and_kept_until_a_gesture_changes_it(
    qtbot: QtBot, slider: RatioSlider
) -> None:
    moved: list[float] = []
    slider.value_moved.connect(moved.append)
    slider.set_value(2.5)
    assert slider.text() == "2.50"
    slider.begin_edit()
    qtbot.keyClick(slider.focusWidget(), Qt.Key.Key_Return)
    assert slider.value() == 2.5
    assert moved == []
