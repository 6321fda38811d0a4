from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QContextMenuEvent, QDragEnterEvent, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QToolButton, QWidget
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.widgets import (
    Banner,
    DropSlot,
    ElidedLabel,
    FactsTable,
    Gauge,
    JobBar,
    ModelCard,
    Panel,
    label,
    primary_button,
    quiet_button,
)

W = TypeVar("W", bound=QWidget)
# The offscreen platform says so of every window that has a least size.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(autouse=True)
def dark(qapp: QApplication) -> None:
    theme.apply(qapp, "dark")


def shown(qtbot: QtBot, widget: W) -> W:
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def test_a_panel_without_texts_has_no_header(qtbot: QtBot) -> None:
    panel = shown(qtbot, Panel())
    header = panel.header_layout.parentWidget()
    assert not header.isVisible()
    panel.set_aside("L18 · mlp.down")
    assert header.isVisible()


def test_a_panel_is_rounded_and_filled_with_the_panel_colour(qtbot: QtBot) -> None:
    panel = shown(qtbot, Panel("Lineup"))
    panel.resize(200, 100)
    image = panel.grab().toImage()
    assert image.pixelColor(100, 80).name().upper() == theme.current().panel
    assert image.pixelColor(0, 0).name().upper() != theme.current().line


def test_a_model_card_reports_click_enter_and_menu(qtbot: QtBot) -> None:
    card = shown(qtbot, ModelCard("finetuned", "qwen3-8b-gsm8k", "16.4 GB", "8.19 B · bf16"))
    with qtbot.waitSignal(card.clicked):
        qtbot.mouseClick(card, LEFT)
    with qtbot.waitSignal(card.clicked):
        qtbot.keyClick(card, Qt.Key.Key_Return)
    place = QPoint(5, 6)
    event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, place, QPoint(77, 88))
    with qtbot.waitSignal(card.menu_requested) as caught:
        QApplication.sendEvent(card, event)
    assert caught.args == [QPoint(77, 88)]


def test_a_model_card_has_an_edge_of_three_pixels_in_the_colour_of_its_role(qtbot: QtBot) -> None:
    for role in theme.ROLES:
        card = shown(qtbot, ModelCard(role, "name", "1 GB", "facts"))
        card.resize(220, 66)
        image = card.grab().toImage()
        ratio = image.devicePixelRatio()
        row = round(33 * ratio)
        colours = [image.pixelColor(round(x * ratio), row).name() for x in (1, 2, 4)]
        assert colours[0] == colours[1] == theme.role_color(role).name()
        assert colours[2] != colours[0]


def test_a_model_card_says_who_it_is_and_that_it_is_shown(qtbot: QtBot) -> None:
    card = shown(qtbot, ModelCard("aligned", "Qwen3-8B", "16.4 GB", "bf16"))
    assert card.accessibleName() == "Aligned: Qwen3-8B"
    before = card.grab().toImage()
    card.set_active(True)
    assert card.is_active()
    assert "shown" in card.accessibleDescription()
    assert card.grab().toImage() != before


def arc_pixels(gauge: Gauge, colour: str) -> int:
    image = gauge.grab().toImage()
    return sum(
        image.pixelColor(x, y).name() == colour
        for x in range(image.width())
        for y in range(round(92 * image.devicePixelRatio()))
    )


def test_the_arc_of_a_gauge_grows_with_its_value(qtbot: QtBot) -> None:
    gauge = shown(qtbot, Gauge("refusal of harmful", "aligned"))
    colour = theme.role_color("aligned").name()
    counts = []
    for value in (0.0, 25.0, 50.0, 100.0):
        gauge.set_value(value, f"{value:.1f}")
        counts.append(arc_pixels(gauge, colour))
    assert counts[0] == 0
    assert counts == sorted(counts)
    # The dots at both ends do not scale, so the doubling is not exact.
    assert counts[3] == pytest.approx(2 * counts[2], rel=0.1)


def test_a_gauge_without_a_value_says_that_nothing_was_measured(qtbot: QtBot) -> None:
    gauge = shown(qtbot, Gauge("task accuracy", "finetuned"))
    gauge.set_value(None, "–")
    assert arc_pixels(gauge, theme.role_color("finetuned").name()) == 0
    assert "not measured" in gauge.accessibleDescription()
    assert gauge.value() is None


def test_a_facts_table_shows_as_many_rows_as_it_is_given(qtbot: QtBot) -> None:
    table = shown(qtbot, FactsTable())
    table.set_rows([("shape", "4096 × 12288", ""), ("cos(τ, a)", "−0.214", "angle")])
    assert table.rows() == [("shape", "4096 × 12288"), ("cos(τ, a)", "−0.214")]
    table.set_rows([("shape", "1 × 1", "")])
    assert table.rows() == [("shape", "1 × 1")]


def cancel_of(bar: JobBar) -> QToolButton:
    return next(b for b in bar.findChildren(QToolButton) if b.text() == "Cancel")


def test_a_job_is_shown_cancelled_and_ended(qtbot: QtBot) -> None:
    bar = shown(qtbot, JobBar())
    assert not bar.bar.isVisible()
    bar.show_job("Merging safe-math")
    bar.set_progress(0.62, "247 / 399 tensors")
    assert bar.bar.isVisible()
    assert bar.bar.fraction() == 0.62
    with qtbot.waitSignal(bar.cancel_requested):
        qtbot.mouseClick(cancel_of(bar), LEFT)
    assert not cancel_of(bar).isEnabled()
    bar.finish("cancelled after 3 s", "cancelled")
    assert not bar.bar.isVisible()
    assert not cancel_of(bar).isVisible()
    assert bar.texts() == ("Merging safe-math", "cancelled after 3 s")
    bar.show_job("Another")
    assert cancel_of(bar).isEnabled()
    bar.clear()
    assert bar.texts() == ("", "")


def test_an_endless_bar_stops_moving_when_it_is_hidden(qtbot: QtBot) -> None:
    bar = shown(qtbot, JobBar())
    bar.show_job("Opening")
    first = bar.bar.grab().toImage()
    if not theme.reduced_motion():
        qtbot.waitUntil(lambda: bar.bar.grab().toImage() != first)
    bar.clear()
    assert bar.bar.fraction() == 0.0


def test_a_banner_offers_its_actions_and_keeps_details_folded(qtbot: QtBot) -> None:
    host = shown(qtbot, QWidget())
    banner = Banner(host)
    done: list[str] = []
    banner.set_message(
        "error",
        "The tokenizers differ",
        why="3 added tokens",
        details="trace",
        actions=[("Use the aligned one", lambda: done.append("aligned"))],
    )
    assert banner.isVisible()
    assert (banner.kind(), banner.text()) == ("error", "The tokenizers differ")
    qtbot.mouseClick(banner.buttons()[0], LEFT)
    assert done == ["aligned"]
    assert not banner.findChild(QWidget, "details").isVisible()  # type: ignore[union-attr]
    with qtbot.waitSignal(banner.dismissed):
        qtbot.keyClick(banner, Qt.Key.Key_Escape)
    assert not banner.isVisible()
    banner.set_message("ok", "Saved")
    assert banner.isVisible()
    assert banner.buttons() == []


def test_a_banner_of_one_line_keeps_its_buttons_on_that_line(qtbot: QtBot) -> None:
    host = shown(qtbot, QWidget())
    host.resize(900, 200)
    banner = Banner(host)
    banner.resize(800, 60)
    banner.set_message("ok", "Saved", actions=[("Open folder", lambda: None)])
    QTest.qWait(1)
    button = banner.buttons()[0]
    assert button.isVisible()
    low = banner.sizeHint().height()
    banner.set_message("error", "Failed", why="No room", actions=[("Go on", lambda: None)])
    QTest.qWait(1)
    assert banner.buttons()[0].isVisible()
    assert banner.sizeHint().height() > low


@pytest.mark.parametrize("kind", ["info", "ok", "warning", "error"])
def test_kinds_of_banner_differ_by_more_than_colour(qtbot: QtBot, kind: str) -> None:
    from trimtab_gui.widgets import banner

    names = banner.ICONS
    assert len(set(names.values())) == 4
    widget = Banner()
    qtbot.addWidget(widget)
    widget.set_message(kind, "What happened")
    assert widget.kind() == kind


def drag(slot: DropSlot, urls: list[QUrl]) -> QDropEvent:
    data = QMimeData()
    data.setUrls(urls)
    place, action = QPointF(10, 10), Qt.DropAction.CopyAction
    buttons, keys = LEFT, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(place.toPoint(), action, data, buttons, keys)
    QApplication.sendEvent(slot, enter)
    lit = slot.is_lit()
    drop = QDropEvent(place, action, data, buttons, keys)
    QApplication.sendEvent(slot, drop)
    drop.setAccepted(lit)
    # Kept alive by the event only while this function runs, so the answer is read here.
    return drop


def test_a_slot_takes_local_paths_and_lights_up_meanwhile(qtbot: QtBot, tmp_path: Path) -> None:
    slot = shown(qtbot, DropSlot("base", "Base", "before alignment", "cube-outline"))
    with qtbot.waitSignal(slot.dropped) as caught:
        drop = drag(slot, [QUrl.fromLocalFile(str(tmp_path))])
    assert drop.isAccepted()
    assert caught.args == [[tmp_path]]
    assert not slot.is_lit()


def test_a_slot_is_clicked_by_mouse_and_by_enter(qtbot: QtBot) -> None:
    slot = shown(qtbot, DropSlot("aligned", "Aligned", "the safe one", "shield-outline"))
    with qtbot.waitSignal(slot.clicked):
        qtbot.mouseClick(slot, LEFT)
    with qtbot.waitSignal(slot.clicked):
        qtbot.keyClick(slot, Qt.Key.Key_Enter)


def test_a_lit_slot_looks_different(qtbot: QtBot) -> None:
    slot = shown(qtbot, DropSlot("finetuned", "Fine-tuned", "one or more", "tune-variant"))
    before = slot.grab().toImage()
    slot.set_lit(True)
    assert slot.grab().toImage() != before


def test_an_elided_label_keeps_the_whole_text_as_its_tooltip(qtbot: QtBot) -> None:
    text = ElidedLabel("a very long name of a checkpoint that will not fit")
    qtbot.addWidget(text)
    text.resize(80, 20)
    text.show()
    assert text.toolTip() == text.text()
    text.resize(800, 20)
    assert text.toolTip() == ""


def test_icon_buttons_have_a_name_and_the_primary_one_stands_out(qtbot: QtBot) -> None:
    quiet, primary = quiet_button("undo", "Undo"), primary_button("Merge", "source-merge")
    for button in (quiet, primary):
        qtbot.addWidget(button)
        button.show()
    assert quiet.accessibleName() == "Undo"
    colour = primary.grab().toImage().pixelColor(6, primary.height() // 2).name().upper()
    assert colour == theme.current().accent


def test_labels_take_the_colour_of_their_tone(qtbot: QtBot) -> None:
    text = label("aligned", "caption", "aligned")
    qtbot.addWidget(text)
    text.show()
    colour = text.palette().color(text.foregroundRole())
    assert colour == theme.text_color("aligned")
