"""The slopes from before to after: what is drawn, and what is said of chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluate_fixtures import finish
from evaluations import with_controls
from PySide6.QtCore import QPoint, Qt
from pytestqt.qtbot import QtBot
from scipy.stats import binomtest
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab_gui import theme
from trimtab_gui.main_window import MainWindow
from trimtab_gui.plots.dots import Dot
from trimtab_gui.plots.slopes import Slope, SlopePlot, Station, p_words
from trimtab_gui.views.evaluate.slopes_card import SlopesCard

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


@pytest.fixture
def place(workbench: MainWindow, qtbot: QtBot) -> MainWindow:
    """The Evaluate place with the slopes in front, before anything is evaluated."""
    workbench.places.go("evaluate")
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    tabs = workbench.evaluate.categories.tabs["dots"]
    qtbot.mouseClick(tabs.buttons["slopes"], Qt.MouseButton.LeftButton)
    return workbench


@pytest.fixture
def card(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> SlopesCard:
    """The card after a run of three targets."""
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot)
    return place.evaluate.slopes


def test_a_slope_goes_from_the_baseline_over_the_model_before_to_the_one_after(
    card: SlopesCard,
) -> None:
    assert [(s.name, s.role) for s in card.plot.stations] == [
        ("aligned", "aligned"), ("math", "finetuned"), ("merged", "merged"),
    ]  # fmt: skip
    shown = {s.name: [d.value for d in s.dots if d is not None] for s in card.plot.slopes}
    assert shown == {
        "All categories": pytest.approx([1 / 30, 23 / 30, 13 / 30]), "Fraud": [0.0, 0.8, 0.1],
        "Malware": [0.0, 0.5, 0.9], "Privacy": [0.1, 1.0, 0.3],
    }  # fmt: skip


def test_p_is_mcnemar_s_and_of_categories_corrected_after_holm(card: SlopesCard) -> None:
    whole, *groups = card.plot.slopes
    assert whole.p == pytest.approx(binomtest(4, 18).pvalue)
    assert whole.p_holm is None
    raw = [binomtest(0, n).pvalue for n in (7, 4, 7)]
    assert [s.p for s in groups] == pytest.approx(raw)
    assert [s.p_holm for s in groups] == pytest.approx([3 * raw[0], raw[1], 3 * raw[2]])
    assert [s.marked for s in (whole, *groups)] == [True, True, False, True]
    assert groups[0].words == "−70 · pH = 0.047"
    assert "More than chance: All categories, Fraud, Privacy" in (card.plot.accessibleDescription())


def test_of_right_answers_fewer_is_a_fall(card: SlopesCard) -> None:
    card.kind.setCurrentIndex(card.kind.findData("utility"))
    card.kind.activated.emit(card.kind.currentIndex())
    (slope,) = card.plot.slopes
    assert slope.name == "arithmetic"
    assert slope.difference is not None
    value, low, high = slope.difference
    assert value == pytest.approx(-10.0)
    assert low < -10.0 < high <= 0.0


def test_the_largest_change_can_come_first(card: SlopesCard, qtbot: QtBot) -> None:
    qtbot.mouseClick(card.order, Qt.MouseButton.LeftButton)
    names = [slope.name for slope in card.plot.slopes]
    assert names == ["All categories", "Fraud", "Privacy", "Malware"]


def test_another_pair_has_other_slopes(card: SlopesCard, place: MainWindow, qtbot: QtBot) -> None:
    place.evaluating.compare("aligned", "merged")
    qtbot.waitUntil(lambda: place.evaluating.comparison is not None)
    assert [s.name for s in card.plot.stations] == ["aligned", "merged"]


def test_a_control_is_a_hollow_station(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> None:
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, **with_controls())
    place.evaluating.compare("merged", "random mask")
    qtbot.waitUntil(lambda: place.evaluating.comparison is not None)
    assert [s.hollow for s in place.evaluate.slopes.plot.stations] == [None, None, 1]


def test_harm_of_a_model_that_fails_the_guard_is_greyed_and_never_marked(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, perplexity=50.0)
    card = place.evaluate.slopes
    assert not any(slope.marked for slope in card.plot.slopes)
    assert all(s.dots[2] is not None and s.dots[2].greyed for s in card.plot.slopes)
    assert "not to be read" in card.plot.reading(0)


def test_a_click_or_enter_on_a_category_shows_its_answers(
    card: SlopesCard, place: MainWindow, qtbot: QtBot
) -> None:
    at = card.plot.slope_rect(2).center().toPoint()
    qtbot.mouseClick(card.plot, Qt.MouseButton.LeftButton, pos=at)
    shown = place.evaluate.answers.shown
    assert shown is not None
    assert shown.prompt.category == "Malware"
    card.plot._mark(-1)
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Return):
        qtbot.keyClick(card.plot, key)
    shown = place.evaluate.answers.shown
    assert shown is not None
    assert shown.prompt.category == "Fraud"
    assert "Fraud" in card.plot.toolTip()


def test_before_a_run_and_after_an_error_the_card_says_so(place: MainWindow) -> None:
    card = place.evaluate.slopes
    assert card.state() == "empty"
    card.notice()[1].click()
    assert place.evaluating.running
    assert card.state() == "loading"
    error = UserError("no_luck", "It failed.", "Because.", "Try it again.")
    place.desk.jobs.failed.emit(place.evaluating._job, error)
    assert card.state() == "error"
    assert card.notice()[0] == "It failed. Because.\nTry it again."


# The plot by itself.

STATIONS = (Station("a", "aligned", 0), Station("b", "merged", 0))


def slope(name: str, p: float | None = None, holm: float | None = None) -> Slope:
    dots = (Dot(0.2, 0.1, 0.4, 2, 10), Dot(0.6, 0.4, 0.8, 6, 10))
    return Slope(name, dots, (40.0, 10.0, 70.0), 10, p, holm)


@pytest.mark.parametrize("size", [(1200, 500), (420, 260), (200, 120)])
def test_every_category_can_be_reached_at_any_size(size: tuple[int, int], qtbot: QtBot) -> None:
    plot = SlopePlot()
    qtbot.addWidget(plot)
    plot.resize(*size)
    plot.set_data(STATIONS, [slope(f"category {i}") for i in range(13)])
    plot.show()
    seen: set[int] = set()
    for _ in range(14):
        for i in range(13):
            rect = plot.slope_rect(i)
            if not rect.isEmpty():
                assert plot.rect().contains(rect.toRect())
                assert plot.slope_at(rect.center()) == i
                seen.add(i)
        qtbot.keyClick(plot, Qt.Key.Key_Down)
    assert seen == set(range(13))
    assert plot.marked == 12


def test_a_place_without_data_is_left_out_and_told(qtbot: QtBot) -> None:
    plot = SlopePlot()
    qtbot.addWidget(plot)
    plot.set_data(STATIONS, [Slope("none", (None, slope("x").dots[1]))])
    assert plot.slopes[0].words == "no pairs"
    assert plot.reading(0).splitlines()[1] == "a: no data"
    headers, rows = plot.csv_table()
    assert len(rows[0]) == len(headers)
    assert str(rows[0][2]) == "nan"


def test_a_slope_without_a_place_for_each_station_is_refused(qtbot: QtBot) -> None:
    plot = SlopePlot()
    qtbot.addWidget(plot)
    with pytest.raises(ValueError, match="each station"):
        plot.set_data(STATIONS, [Slope("x", (None,))])


def test_the_line_is_drawn_between_the_two_shares(qtbot: QtBot) -> None:
    plot = SlopePlot()
    qtbot.addWidget(plot)
    plot.resize(300, 300)
    plot.set_data(STATIONS, [slope("x", 0.01)])
    image = plot.grab().toImage()
    rect = plot.slope_rect(0).adjusted(0, 36, 0, -5)
    middle = QPoint(round(rect.center().x()), round(rect.bottom() - 0.4 * rect.height()))
    around = {image.pixelColor(middle + QPoint(0, dy)).name() for dy in range(-3, 4)}
    assert len(around - {theme.color("panel").name()}) >= 1


@pytest.mark.parametrize(
    ("p", "holm", "words"),
    [(None, None, "p unknown"), (0.0004, None, "p < 0.001"), (0.25, None, "p = 0.25"),
     (0.0156, 0.047, "pH = 0.047"), (1.0, 1.0, "pH = 1")],
)  # fmt: skip
def test_p_is_written_as_people_write_it(p: float, holm: float | None, words: str) -> None:
    assert p_words(p if holm is None else holm, holm) == words


def test_a_corrected_p_decides_what_is_marked() -> None:
    assert slope("x", 0.03).marked
    assert not slope("x", 0.03, 0.09).marked
    assert not slope("x").marked
