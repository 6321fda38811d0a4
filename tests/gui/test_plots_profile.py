from __future__ import annotations

import itertools

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.plots import Curve, HeatmapView, ProfileView
from trimtab_gui.plots.curves import dashes, thinned

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT = Qt.MouseButton.LeftButton
LAYERS = 12
COLUMNS = ["in", *(str(i) for i in range(LAYERS)), "out"]
COUNT = len(COLUMNS)


class Said:
    """What a profile reported, in order."""

    def __init__(self, view: ProfileView) -> None:
        self.order: list[str] = []
        self.values: dict[int, float] = {}
        self.resets: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.columns: list[int] = []
        view.ratio_drag_started.connect(lambda: self.order.append("start"))
        view.ratio_moved.connect(self._moved)
        view.ratio_drag_finished.connect(lambda: self.order.append("end"))
        view.ratio_reset.connect(self.resets.append)
        view.selection_changed.connect(lambda low, high: self.spans.append((low, high)))
        view.hovered_column.connect(self.columns.append)

    def _moved(self, changes: dict[int, float]) -> None:
        self.order.append("move")
        self.values.update(changes)


@pytest.fixture
def view(qtbot: QtBot, qapp: QApplication) -> ProfileView:
    theme.apply(qapp, "dark")
    widget = ProfileView()
    qtbot.addWidget(widget)
    widget.resize(760, 320)
    widget.set_columns(COLUMNS)
    values = np.linspace(1.0, 30.0, COUNT)
    values[0] = np.nan
    widget.set_curves(
        [
            Curve("tau", "|τ|", "finetuned", values),
            Curve("merged", "|m|", "merged", values / 2, fill=True),
        ]
    )
    ratio = np.full(COUNT, 0.8)
    ratio[[0, -1]] = np.nan
    widget.set_ratio(ratio, np.zeros(COUNT, dtype=np.bool_))
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def at(view: ProfileView, column: int, ratio: float) -> QPoint:
    return QPoint(round(view.x_px(column + 0.5)), round(view.ratio_px(ratio)))


def drag(qtbot: QtBot, view: ProfileView, *points: QPoint) -> None:
    """Press at the first point, move in small steps through the others, release."""
    port = view.viewport()
    qtbot.mousePress(port, LEFT, pos=points[0])
    for begin, end in itertools.pairwise(points):
        for step in range(1, 7):
            qtbot.mouseMove(port, begin + (end - begin) * (step / 6))
    qtbot.mouseRelease(port, LEFT, pos=points[-1])


def ratios(view: ProfileView) -> list[float]:
    assert view.ratio is not None
    return [round(float(v), 2) for v in view.ratio.values[1:-1]]


def test_dragging_a_handle_sets_and_pins_its_column(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    drag(qtbot, view, at(view, 4, 0.8), at(view, 4, 0.3))
    assert said.order[0] == "start"
    assert said.order[-1] == "end"
    assert said.order.count("start") == said.order.count("end") == 1
    assert set(said.values) == {4}
    assert said.values[4] == pytest.approx(0.3, abs=0.01)
    assert view.ratio is not None
    assert np.flatnonzero(view.ratio.pinned).tolist() == [4]


def test_sweeping_sets_every_column_that_was_crossed(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    port = view.viewport()
    begin, end = at(view, 2, 0.8), at(view, 9, 0.1)
    qtbot.mousePress(port, LEFT, pos=begin)
    # One jump over seven columns, as a fast hand makes it.
    qtbot.mouseMove(port, begin + QPoint(0, 4))
    qtbot.mouseMove(port, end)
    qtbot.mouseRelease(port, LEFT, pos=end)
    assert sorted(said.values) == [2, 3, 4, 5, 6, 7, 8, 9]
    swept = [said.values[j] for j in range(2, 10)]
    assert swept == sorted(swept, reverse=True)
    assert swept[-1] == pytest.approx(0.1, abs=0.01)


def test_a_handle_within_the_selected_range_takes_the_range_along(
    qtbot: QtBot, view: ProfileView
) -> None:
    start = np.full(COUNT, 0.8)
    start[5] = 0.6
    start[[0, -1]] = np.nan
    view.set_ratio(start, np.zeros(COUNT, dtype=np.bool_))
    view.set_selection(3, 6)
    said = Said(view)
    drag(qtbot, view, at(view, 4, 0.8), at(view, 4, 0.5))
    assert sorted(said.values) == [3, 4, 5, 6]
    offset = said.values[4] - 0.8
    assert offset == pytest.approx(-0.3, abs=0.01)
    assert said.values[5] == pytest.approx(0.6 + offset, abs=0.011)
    assert said.values[3] == said.values[4]


def test_ratios_stay_within_their_limits(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    drag(qtbot, view, at(view, 4, 0.8), QPoint(at(view, 4, 0.8).x(), -4000))
    assert said.values[4] == 1.5
    drag(qtbot, view, at(view, 6, 0.8), QPoint(at(view, 6, 0.8).x(), 4000))
    assert said.values[6] == 0.0


def test_columns_without_a_ratio_get_none(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    drag(qtbot, view, at(view, 1, 0.8), at(view, 0, 0.2))
    assert 0 not in said.values


def test_a_click_on_a_handle_is_no_gesture(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    qtbot.mouseClick(view.viewport(), LEFT, pos=at(view, 4, 0.8))
    assert said.order == []
    assert view.chosen_column == 4


def test_a_double_click_unpins(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    qtbot.mouseDClick(view.viewport(), LEFT, pos=at(view, 4, 0.8))
    assert said.resets == [4]


def test_a_disabled_ratio_cannot_be_dragged(qtbot: QtBot, view: ProfileView) -> None:
    values = np.full(COUNT, 0.8)
    view.set_ratio(values, np.zeros(COUNT, dtype=np.bool_), enabled=False)
    said = Said(view)
    drag(qtbot, view, at(view, 4, 0.8), at(view, 4, 0.3))
    assert said.order == []
    assert said.values == {}


def test_keys_choose_move_and_unpin_a_handle(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    qtbot.keyClick(view, Qt.Key.Key_Right)
    qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.chosen_column == 2
    qtbot.keyClick(view, Qt.Key.Key_Up)
    assert said.values == {2: 0.81}
    qtbot.keyClick(view, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert said.values == {2: 0.71}
    assert said.order == ["start", "move", "end"] * 2
    qtbot.keyClick(view, Qt.Key.Key_Delete)
    assert said.resets == [2]
    qtbot.keyClick(view, Qt.Key.Key_Left)
    assert view.chosen_column == 1


def test_pinned_handles_are_filled_and_others_hollow(view: ProfileView) -> None:
    values = np.full(COUNT, 0.8)
    pinned = np.zeros(COUNT, dtype=np.bool_)
    pinned[5] = True
    view.set_curves([])
    view.set_ratio(values, pinned)
    image = view.viewport().grab().toImage()

    def middle(column: int) -> str:
        point = at(view, column, 0.8)
        return image.pixelColor(point).name()

    assert middle(5) == theme.current().accent.lower()
    assert middle(7) == theme.current().panel.lower()


def test_dragging_over_the_plot_selects_a_range(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    drag(qtbot, view, at(view, 3, 1.3), at(view, 7, 1.2))
    assert said.spans[-1] == (3, 7)
    assert said.order == []


def test_the_range_is_moved_by_its_middle_and_resized_by_its_edges(
    qtbot: QtBot, view: ProfileView
) -> None:
    view.set_selection(3, 5)
    said = Said(view)
    drag(qtbot, view, at(view, 4, 1.3), at(view, 6, 1.3))
    assert said.spans[-1] == (5, 7)
    edge = QPoint(round(view.x_px(8)), at(view, 0, 1.3).y())
    drag(qtbot, view, edge, at(view, 10, 1.3))
    assert said.spans[-1] == (5, 10)
    drag(qtbot, view, at(view, 6, 1.3), QPoint(-3000, 40))
    assert said.spans[-1] == (0, 5)


def test_escape_and_a_click_beside_it_clear_the_range(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    view.set_selection(3, 5)
    assert said.spans == []
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    view.set_selection(3, 5)
    qtbot.mouseClick(view.viewport(), LEFT, pos=at(view, 9, 1.3))
    assert said.spans == [(-1, -1), (-1, -1)]


def test_hovering_reads_the_column(qtbot: QtBot, view: ProfileView) -> None:
    said = Said(view)
    qtbot.mouseMove(view.viewport(), at(view, 4, 1.2))
    qtbot.mouseMove(view.viewport(), at(view, 4, 1.1))
    qtbot.mouseMove(view.viewport(), at(view, 5, 1.1))
    assert said.columns == [4, 5]
    assert view.readout().startswith("layer 4")
    assert "ratio 0.80" in view.readout()
    assert said.spans == []


def test_a_profile_below_a_heatmap_of_the_same_width_has_the_same_columns(
    qtbot: QtBot, view: ProfileView
) -> None:
    heat = HeatmapView()
    qtbot.addWidget(heat)
    heat.resize(view.width(), 300)
    ids = np.arange(COUNT, dtype=np.int32)[None, :]
    heat.set_grid(["q"], COLUMNS, ids)
    heat.show()
    for column in (0, 5, COUNT):
        assert heat.x_px(column) == view.x_px(column)


def test_lengths_must_fit(view: ProfileView) -> None:
    with pytest.raises(ValueError, match="each column"):
        view.set_curves([Curve("x", "x", "base", np.zeros(3))])
    with pytest.raises(ValueError, match="each column"):
        view.set_ratio(np.zeros(3), np.zeros(3, dtype=np.bool_))


def test_csv_has_a_row_for_each_column(view: ProfileView) -> None:
    headers, rows = view.csv_table()
    assert headers == ["layer", "|τ|", "|m|", "ratio", "pinned"]
    assert [row[0] for row in rows] == COLUMNS
    assert rows[3][1] == float(view.curves[0].values[3])


def test_a_new_theme_recolours_the_curves(view: ProfileView, qapp: QApplication) -> None:
    def names() -> set[str]:
        image = view.viewport().grab().toImage()
        return {
            image.pixelColor(x, y).name().upper()
            for x in range(60, image.width() - 60)
            for y in range(8, image.height() - 44, 2)
        }

    assert theme.DARK.finetuned in names()
    theme.apply(qapp, "light")
    assert theme.LIGHT.panel in names()
    assert theme.DARK.finetuned not in names()


def test_thinning_keeps_every_peak_and_gap() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=10_000)
    values[4321] = 99.0
    values[5000:5003] = np.nan
    kept = thinned(values, 200)
    assert kept.size <= 2 * 200 + 10
    assert 4321 in kept
    assert np.isnan(values[kept]).any()
    assert np.nanmin(values[kept]) == np.nanmin(values)


def test_dashes_go_around_corners_and_cover_their_share() -> None:
    run = [QPointF(0, 0), QPointF(5, 0), QPointF(5, 50), QPointF(115, 50)]
    cut = dashes(run, 7.0, 4.0)
    assert sum(line.length() for line in cut) == pytest.approx(165 * 7 / 11)
    assert (cut[0].p1(), cut[0].p2()) == (QPointF(0, 0), QPointF(5, 0))
    assert (cut[1].p1(), cut[1].p2()) == (QPointF(5, 0), QPointF(5, 2))
