from __future__ import annotations

import csv
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtWidgets import QApplication, QFileDialog, QLabel
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.plots import HeatmapView, PlotCard, export, scale

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def card(qtbot: QtBot, qapp: QApplication) -> PlotCard:
    theme.apply(qapp, "dark")
    view = HeatmapView()
    ids = np.arange(24, dtype=np.int32).reshape(4, 6)
    view.set_grid(["q", "k", "v", "o"], [str(i) for i in range(6)], ids)
    values = np.random.default_rng(0).normal(size=24) / 3
    values[7] = np.nan
    view.set_values(values, signed=True, label="cosine")
    widget = PlotCard("Layers × modules", "cosine", view)
    widget.set_legend([("aligned", "aligned"), ("accent", "ratio")])
    qtbot.addWidget(widget)
    widget.resize(640, 380)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def body(card: PlotCard) -> HeatmapView:
    found = card.body()
    assert isinstance(found, HeatmapView)
    return found


def test_csv_reads_back_to_the_same_numbers(card: PlotCard, tmp_path: Path) -> None:
    card.save(tmp_path / "plot.csv")
    with (tmp_path / "plot.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["module", "layer", "cosine"]
    read = np.array([float(row[2]) for row in rows[1:]])
    np.testing.assert_array_equal(read, body(card).values)
    assert math.isnan(read[7])


def test_svg_keeps_text_as_text_and_cells_as_shapes(card: PlotCard, tmp_path: Path) -> None:
    card.save(tmp_path / "plot.svg")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = {"".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")}
    assert {"Layers × modules", "q", "layer", "aligned"} <= texts
    shapes = sum(1 for _ in root.iter(f"{SVG}rect")) + sum(1 for _ in root.iter(f"{SVG}path"))
    assert shapes >= 24


def test_png_has_twice_the_size_on_screen(card: PlotCard, tmp_path: Path) -> None:
    card.save(tmp_path / "plot.png")
    image = QImage(str(tmp_path / "plot.png"))
    assert image.width() == 2 * export.size(body(card)).width()
    assert len({image.pixelColor(x, 400).name() for x in range(0, image.width(), 3)}) > 5


def test_copy_puts_a_picture_on_the_clipboard(card: PlotCard) -> None:
    card.copy_image()
    assert QGuiApplication.clipboard().image().width() > 600


def test_the_menu_offers_what_every_plot_offers(card: PlotCard) -> None:
    texts = [action.text() for action in card.menu.actions()]
    assert [t.split(" (")[0].removesuffix(" …") for t in texts] == [
        "Copy image",
        "Save PNG",
        "Save SVG",
        "Save CSV of the full data",
    ]


def test_saving_from_the_menu_adds_the_suffix(
    card: PlotCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = str(tmp_path / "mine")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (chosen, ""))
    card.menu.actions()[3].trigger()
    assert (tmp_path / "mine.csv").is_file()


def test_a_file_that_cannot_be_written_is_reported(
    card: PlotCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    chosen = str(tmp_path / "nowhere" / "x.csv")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (chosen, ""))
    with qtbot.waitSignal(card.save_failed) as caught:
        card.menu.actions()[3].trigger()
    assert "nowhere" in str(caught.args)


def test_an_unknown_kind_of_file_is_an_error(card: PlotCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bmp"):
        card.save(tmp_path / "plot.bmp")


def test_an_empty_card_says_what_will_be_here_and_offers_a_button(
    qtbot: QtBot, qapp: QApplication
) -> None:
    card = PlotCard("Spectrum")
    qtbot.addWidget(card)
    card.show()
    asked: list[int] = []
    card.set_state("empty", "The spectrum will be here.", ("Compute", lambda: asked.append(1)))
    message, button = card.notice()
    assert message == "The spectrum will be here."
    assert button.isVisible()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert asked == [1]
    card.set_state("loading", "Reading …")
    assert not button.isVisible()
    assert card.state() == "loading"
    card.set_state("error", "The file is gone.", ("Locate", lambda: asked.append(2)))
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert asked == [1, 2]


def test_a_ready_card_shows_its_plot_and_comes_back(card: PlotCard) -> None:
    assert body(card).isVisible()
    card.set_state("loading", "Reading …")
    assert not body(card).isVisible()
    card.set_state("ready")
    assert body(card).isVisible()
    with pytest.raises(ValueError, match="odd"):
        card.set_state("odd")


def test_the_formula_is_told_with_its_reference(card: PlotCard) -> None:
    card.set_formula("Cosine", "Angle to a.", "⟨τ, a⟩ / (|τ| |a|)", "−1 to 1", "Eq. 3")
    popup = card.show_formula()
    texts = [line.text() for line in popup.findChildren(QLabel)]
    assert texts == ["Cosine", "Angle to a.", "⟨τ, a⟩ / (|τ| |a|)", "−1 to 1", "Eq. 3"]
    popup.close()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.7, ["0.0", "0.2", "0.4", "0.6"]),
        (-1.0, 1.0, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        (0.0, 30.0, ["0", "10", "20", "30"]),
        (0.0, 2e-4, ["0", "5.0e−05", "1.0e−04", "1.5e−04", "2.0e−04"]),
    ],
)
def test_ticks_are_few_round_and_equally_precise(
    low: float, high: float, expected: list[str]
) -> None:
    assert scale.tick_texts(scale.ticks(low, high, 4)) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.018312, "0.0183"),
        (-0.2137, "−0.214"),
        (1234.5, "1,234"),
        (0.0, "0"),
        (1.5e-7, "1.50e−07"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_digits_and_a_real_minus(value: float, text: str) -> None:
    assert scale.number(value) == text
