from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.widgets import Chooser
from trimtab_gui.widgets.chooser import Entry

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

ENTRIES = (
    Entry("linear", "Linear", "Take the mean.", "Averages"),
    Entry("slerp", "SLERP", "Go along the arc.", "Along the arc", "takes exactly one model"),
    Entry("ties", "TIES", "Elect a sign.", "Agreement"),
    Entry("della", "DELLA", "Drop at random and elect a sign.", "Agreement"),
)


@pytest.fixture
def chooser(qtbot: QtBot, qapp: QApplication) -> Chooser:
    theme.apply(qapp, "dark")
    widget = Chooser("Merge method", "Search for a method")
    qtbot.addWidget(widget)
    widget.set_entries(ENTRIES)
    widget.set_current("ties")
    widget.resize(280, 30)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def keys(chooser: Chooser) -> list[str]:
    assert chooser.popup is not None
    return [entry.key for entry in chooser.popup.shown()]


def test_it_shows_what_is_chosen_and_opens_there(chooser: Chooser, qtbot: QtBot) -> None:
    assert chooser.text() == "TIES"
    assert chooser.accessibleName() == "Merge method"
    assert chooser.accessibleDescription() == "TIES"
    qtbot.mouseClick(chooser, Qt.MouseButton.LeftButton)
    popup = chooser.popup
    assert popup is not None
    assert keys(chooser) == [entry.key for entry in ENTRIES]
    assert popup.list.currentItem().text() == "TIES"
    popup.close()


def test_arrows_pass_over_headings_and_enter_chooses(chooser: Chooser, qtbot: QtBot) -> None:
    qtbot.keyClick(chooser, Qt.Key.Key_Down)
    popup = chooser.popup
    assert popup is not None
    qtbot.keyClick(popup.field, Qt.Key.Key_Up)
    assert popup.list.currentItem().text() == "SLERP"
    qtbot.keyClick(popup.field, Qt.Key.Key_Up)
    qtbot.keyClick(popup.field, Qt.Key.Key_Up)
    assert popup.list.currentItem().text() == "Linear"
    qtbot.keyClick(popup.field, Qt.Key.Key_PageDown)
    assert popup.list.currentItem().text() == "DELLA"
    with qtbot.waitSignal(chooser.chosen) as chosen:
        qtbot.keyClick(popup.field, Qt.Key.Key_Return)
    assert chosen.args == ["della"]
    assert not popup.isVisible()
    assert chooser.text() == "TIES", "the owner decides"


def test_typing_on_the_button_searches(chooser: Chooser, qtbot: QtBot) -> None:
    qtbot.keyClicks(chooser, "l")
    popup = chooser.popup
    assert popup is not None
    assert popup.field.text() == "l"
    qtbot.keyClicks(popup.field, "in")
    assert keys(chooser) == ["linear"]
    popup.field.setText("sign")
    assert keys(chooser) == ["ties", "della"]
    popup.field.setText("no such thing")
    assert keys(chooser) == []
    qtbot.keyClick(popup.field, Qt.Key.Key_Return)
    popup.close()


def test_what_has_an_objection_can_still_be_chosen(chooser: Chooser, qtbot: QtBot) -> None:
    popup = chooser.open("slerp")
    item = popup.list.currentItem()
    place = popup.list.visualItemRect(item).center()
    with qtbot.waitSignal(chooser.chosen) as chosen:
        qtbot.mouseClick(popup.list.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert chosen.args == ["slerp"]


def test_a_heading_cannot_be_chosen(chooser: Chooser, qtbot: QtBot) -> None:
    popup = chooser.open()
    heading = popup.list.visualItemRect(popup.list.item(0)).center()
    with qtbot.assertNotEmitted(chooser.chosen):
        qtbot.mouseClick(popup.list.viewport(), Qt.MouseButton.LeftButton, pos=heading)
    popup.close()


def test_the_list_is_drawn_in_both_themes(chooser: Chooser, qapp: QApplication) -> None:
    for mode in ("dark", "light"):
        theme.apply(qapp, mode)  # type: ignore[arg-type]
        popup = chooser.open()
        assert popup.grab().width() == popup.width()
        assert chooser.grab().width() == chooser.width()
        popup.close()
