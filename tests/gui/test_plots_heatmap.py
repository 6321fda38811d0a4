from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from trimtab_gui import theme
from trimtab_gui.plots import HeatmapView, scale
from trimtab_gui.plots.grid import CellGrid, Span, value_range

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

LEFT, MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton
ROWS, LAYERS = 4, 6
# Column 0 is one tall cell "in", the last one "out"; between them one cell a layer and module.
IDS = np.full((ROWS, LAYERS + 2), -1, dtype=np.int32)
IDS[:, 0], IDS[:, -1] = 0, 1
IDS[:, 1:-1] = 2 + np.arange(ROWS * LAYERS).reshape(ROWS, LAYERS)
IDS[3, 3] = -1
COUNT = 2 + ROWS * LAYERS
COLUMNS = ["in", *(str(i) for i in range(LAYERS)), "out"]


class Said:
    """What a heatmap reported."""

    def __init__(self, view: HeatmapView) -> None:
        self.selections: list[tuple[list[int], Any, Any]] = []
        self.hovered: list[int] = []
        self.cursors: list[int] = []
        view.selection_changed.connect(
            lambda ids, rows, cols: self.selections.append((ids.tolist(), rows, cols))
        )
        view.hovered.connect(self.hovered.append)
        view.cursor_changed.connect(self.cursors.append)


@pytest.fixture
def view(qtbot: QtBot, qapp: QApplication) -> HeatmapView:
    theme.apply(qapp, "dark")
    widget = HeatmapView()
    qtbot.addWidget(widget)
    widget.resize(620, 320)
    widget.set_grid(["q", "k", "v", "o"], COLUMNS, IDS)
    values = np.linspace(0.0, 1.0, COUNT)
    values[5] = np.nan
    widget.set_values(values, signed=False, label="energy")
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def centre(view: HeatmapView, row: int, column: int) -> QPoint:
    return view.span_rect(Span(row, row, column, column)).center().toPoint()


def drag(qtbot: QtBot, target: QWidget, button: Qt.MouseButton, begin: QPoint, end: QPoint) -> None:
    """Press, eight moves, release."""
    qtbot.mousePress(target, button, pos=begin)
    for step in range(1, 9):
        qtbot.mouseMove(target, begin + (end - begin) * (step / 8))
    qtbot.mouseRelease(target, button, pos=end)


def wheel(view: HeatmapView, at: QPointF, delta: int) -> None:
    port = view.viewport()
    event = QWheelEvent(
        at,
        QPointF(port.mapToGlobal(at.toPoint())),
        QPoint(),
        QPoint(0, delta),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(port, event)


def colour_at(view: HeatmapView, point: QPoint) -> str:
    image = view.viewport().grab().toImage()
    ratio = image.devicePixelRatio()
    return image.pixelColor(round(point.x() * ratio), round(point.y() * ratio)).name()


# Arithmetic.


def test_a_tall_cell_spans_its_rows_and_has_no_lines_inside() -> None:
    grid = CellGrid(IDS)
    assert grid.span(0) == Span(0, ROWS - 1, 0, 0)
    assert grid.span(2) == Span(0, 0, 1, 1)
    assert grid.span(99) is None
    for at, low in zip(grid.horizontal.at, grid.horizontal.low, strict=True):
        assert at in range(1, ROWS)
        assert low >= 1
    assert set(grid.horizontal.high.tolist()) == {LAYERS + 1}


def test_borders_between_cells_are_joined_to_straight_lines() -> None:
    grid = CellGrid(np.arange(12, dtype=np.int32).reshape(3, 4))
    assert grid.vertical.at.tolist() == [1, 2, 3]
    assert grid.vertical.low.tolist() == [0, 0, 0]
    assert grid.vertical.high.tolist() == [3, 3, 3]
    assert grid.horizontal.at.tolist() == [1, 2]


def test_cells_without_a_value_are_found_in_stretches_of_a_row() -> None:
    grid = CellGrid(IDS)
    values = np.zeros(COUNT)
    values[[0, 2, 3]] = np.nan, np.inf, -np.inf
    found = grid.without_value(values)
    stretches = list(zip(found.at.tolist(), found.low.tolist(), found.high.tolist(), strict=True))
    assert stretches == [(0, 0, 3), (1, 0, 1), (2, 0, 1), (3, 0, 1)]


def test_ids_in_a_rectangle_come_once_and_without_gaps() -> None:
    grid = CellGrid(IDS)
    assert grid.inside(Span(2, 3, 0, 3)).tolist() == [0, 14, 15, 16, 20, 21]


@pytest.mark.parametrize(
    ("values", "signed", "expected"),
    [
        ([0.2, 0.7, np.nan], False, (0.0, 0.7)),
        ([-0.2, 0.7], False, (-0.2, 0.7)),
        ([-0.2, 0.7], True, (-0.7, 0.7)),
        ([-0.9, 0.7], True, (-0.9, 0.9)),
        ([0.5, np.inf], False, (0.0, 0.5)),
        ([np.nan], False, (0.0, 1.0)),
        ([0.0, 0.0], False, (0.0, 1.0)),
    ],
)
def test_the_range_is_from_zero_or_symmetric(
    values: list[float], signed: bool, expected: tuple[float, float]
) -> None:
    assert value_range(np.array(values), signed) == expected


# Colours.


def test_colours_are_those_of_the_map(view: HeatmapView) -> None:
    pixels = view.pixels()
    table = scale.lookup_table("viridis")
    assert pixels[0, 0].tolist() == table[0].tolist()
    last = int(IDS[3, LAYERS])
    assert pixels[3, LAYERS].tolist() == table[round(255 * last / (COUNT - 1))].tolist()
    assert pixels[3, 3, 3] == 0


def test_zero_has_the_middle_colour_of_a_signed_map(view: HeatmapView) -> None:
    values = np.full(COUNT, 0.0)
    values[2], values[3] = -0.1, 0.4
    view.set_values(values, signed=True, label="cosine")
    table = scale.lookup_table("crameri:vik")
    assert view.pixels()[1, 1].tolist() in (table[127].tolist(), table[128].tolist())
    assert view.pixels()[0, 2].tolist() == table[255].tolist()


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_has_no_colour_of_the_map(view: HeatmapView) -> None:
    values = np.linspace(0.0, 1.0, COUNT)
    values[2:5] = np.nan, np.inf, -np.inf
    view.set_values(values, signed=False, label="energy")
    empty = theme.color("card")
    for column in (1, 2, 3):
        assert view.pixels()[0, column].tolist()[:3] == list(empty.getRgb())[:3]


def test_another_colour_map_is_taken_on_demand_and_given_back(view: HeatmapView) -> None:
    view.set_colormap("cividis")
    assert view.pixels()[0, 0].tolist() == scale.lookup_table("cividis")[0].tolist()
    view.set_colormap(None)
    assert view.pixels()[0, 0].tolist() == scale.lookup_table("viridis")[0].tolist()


def test_what_is_on_screen_has_the_colour_of_the_cell(view: HeatmapView) -> None:
    red, green, blue, _ = view.pixels()[2, 4].tolist()
    expected = f"#{red:02x}{green:02x}{blue:02x}"
    place = centre(view, 2, 4)
    assert colour_at(view, place) == expected


def test_no_value_is_hatched_and_not_the_lowest_colour(view: HeatmapView) -> None:
    row, column = (int(i[0]) for i in np.nonzero(IDS == 5))
    place = centre(view, row, column)
    image = view.viewport().grab().toImage()
    colours = {image.pixelColor(place.x() + dx, place.y()).name() for dx in range(-8, 9)}
    assert len(colours) >= 2
    assert theme.current().card.lower() in colours


def test_a_new_theme_recolours_the_plot_at_once(view: HeatmapView, qapp: QApplication) -> None:
    corner = QPoint(2, 2)
    assert colour_at(view, corner).upper() == theme.DARK.panel
    theme.apply(qapp, "light")
    assert colour_at(view, corner).upper() == theme.LIGHT.panel


def test_values_must_cover_every_id(view: HeatmapView) -> None:
    with pytest.raises(ValueError, match="one number"):
        view.set_values(np.zeros(3), signed=False, label="x")
    with pytest.raises(ValueError, match="rows, columns"):
        view.set_grid(["a"], ["b"], IDS)


# Gestures.


def test_hovering_reads_each_cell_once_and_selects_nothing(qtbot: QtBot, view: HeatmapView) -> None:
    said = Said(view)
    place = centre(view, 1, 2)
    qtbot.mouseMove(view.viewport(), place)
    qtbot.mouseMove(view.viewport(), place + QPoint(1, 1))
    qtbot.mouseMove(view.viewport(), centre(view, 1, 3))
    qtbot.mouseMove(view.viewport(), QPoint(3, 3))
    assert said.hovered == [int(IDS[1, 2]), int(IDS[1, 3]), -1]
    assert said.selections == []


def test_the_readout_names_cell_and_value(qtbot: QtBot, view: HeatmapView) -> None:
    qtbot.mouseMove(view.viewport(), centre(view, 1, 2))
    value = view.values[IDS[1, 2]]
    assert view.readout() == f"1 · k   {scale.number(float(value))}"
    view.set_readout(lambda cell: f"tensor {cell}")
    assert view.readout() == f"tensor {IDS[1, 2]}"


def test_a_click_selects_one_cell_and_puts_the_cursor_there(
    qtbot: QtBot, view: HeatmapView
) -> None:
    said = Said(view)
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 2, 3))
    cell = int(IDS[2, 3])
    assert said.selections == [([cell], (2, 2), (3, 3))]
    assert said.cursors == [cell]
    assert view.cursor_cell == cell


def test_a_click_on_a_tall_cell_selects_all_of_it(qtbot: QtBot, view: HeatmapView) -> None:
    said = Said(view)
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 2, 0))
    assert said.selections == [([0], (0, ROWS - 1), (0, 0))]


def test_a_drag_brushes_a_rectangle_and_tells_while_it_grows(
    qtbot: QtBot, view: HeatmapView
) -> None:
    said = Said(view)
    drag(qtbot, view.viewport(), LEFT, centre(view, 0, 2), centre(view, 2, 4))
    ids, rows, cols = said.selections[-1]
    assert (rows, cols) == ((0, 2), (2, 4))
    assert ids == sorted(IDS[0:3, 2:5].ravel().tolist())
    assert len(said.selections) > 2
    assert said.cursors == []


def test_moving_within_a_cell_while_brushing_tells_nothing_new(
    qtbot: QtBot, view: HeatmapView
) -> None:
    said = Said(view)
    begin = centre(view, 1, 2)
    qtbot.mousePress(view.viewport(), LEFT, pos=begin)
    for step in range(8, 16):
        qtbot.mouseMove(view.viewport(), begin + QPoint(step, 0))
    qtbot.mouseRelease(view.viewport(), LEFT, pos=begin + QPoint(16, 0))
    assert said.selections == [([int(IDS[1, 2])], (1, 1), (2, 2))]


def test_a_drag_out_of_the_plot_ends_at_its_border(qtbot: QtBot, view: HeatmapView) -> None:
    said = Said(view)
    drag(qtbot, view.viewport(), LEFT, centre(view, 1, 5), QPoint(5000, 5000))
    assert said.selections[-1][1:] == ((1, ROWS - 1), (5, LAYERS + 1))


def test_the_brush_is_drawn_dashed_in_the_colour_of_safety(view: HeatmapView) -> None:
    view.set_selection(None, (0, 2), (2, 4))
    rect = view.span_rect(Span(0, 2, 2, 4))
    image = view.viewport().grab().toImage()
    x = round(rect.left())
    column = [image.pixelColor(x, y).name() for y in range(round(rect.top()), round(rect.bottom()))]
    assert theme.current().aligned.lower() in column
    assert len(set(column)) > 1


def test_set_selection_and_set_cursor_say_nothing(view: HeatmapView) -> None:
    said = Said(view)
    view.set_selection(np.array([2, 3, 9], dtype=np.int32))
    view.set_cursor(4)
    assert view.selection == Span(0, 1, 1, 2)
    assert said.selections == []
    assert said.cursors == []


def test_escape_clears_and_says_so(qtbot: QtBot, view: HeatmapView) -> None:
    qtbot.mouseClick(view.viewport(), LEFT, pos=centre(view, 2, 3))
    said = Said(view)
    with qtbot.waitSignal(view.cleared):
        qtbot.keyClick(view, Qt.Key.Key_Escape)
    assert said.selections == [([], (-1, -1), (-1, -1))]
    assert view.selection is None
    assert view.cursor_cell == -1


def test_arrow_keys_move_the_cursor_over_gaps_and_into_tall_cells(
    qtbot: QtBot, view: HeatmapView
) -> None:
    view.set_cursor(int(IDS[3, 2]))
    said = Said(view)
    qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.cursor_cell == int(IDS[3, 4])
    qtbot.keyClick(view, Qt.Key.Key_Up)
    assert view.cursor_cell == int(IDS[2, 4])
    for _ in range(9):
        qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.cursor_cell == 1
    assert said.selections == []
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert said.selections[-1][0] == [1]


# Zoom.


def test_the_wheel_zooms_at_the_pointer(view: HeatmapView) -> None:
    point = QPointF(centre(view, 2, 5))
    before = view.view_range()
    wheel(view, point, 240)
    after = view.view_range()
    assert after.width() < before.width()
    assert view.cell_at(point) == int(IDS[2, 5])


def test_the_data_cannot_be_panned_out_of_sight(qtbot: QtBot, view: HeatmapView) -> None:
    wheel(view, QPointF(centre(view, 2, 4)), 600)
    for end in (QPoint(4000, 4000), QPoint(-4000, -4000)):
        drag(qtbot, view.viewport(), MIDDLE, centre(view, 2, 4), end)
        shown = view.view_range()
        assert view.home().contains(shown)
        assert shown.width() >= min(4, LAYERS + 2)


def test_shift_drag_pans_and_selects_nothing(qtbot: QtBot, view: HeatmapView) -> None:
    wheel(view, QPointF(centre(view, 2, 4)), 600)
    said = Said(view)
    before = view.view_range()
    port, shift = view.viewport(), Qt.KeyboardModifier.ShiftModifier
    begin = view.plot_rect().center().toPoint()
    qtbot.mousePress(port, LEFT, shift, begin)
    for step in range(1, 6):
        qtbot.mouseMove(port, begin + QPoint(20 * step, 0))
    qtbot.mouseRelease(port, LEFT, shift, begin + QPoint(100, 0))
    assert view.view_range().left() < before.left()
    assert said.selections == []


def test_home_fits_and_backspace_goes_back(qtbot: QtBot, view: HeatmapView) -> None:
    whole = view.view_range()
    wheel(view, QPointF(centre(view, 2, 4)), 600)
    near = view.view_range()
    qtbot.keyClick(view, Qt.Key.Key_Home)
    assert view.view_range() == whole
    qtbot.keyClick(view, Qt.Key.Key_Backspace)
    assert view.view_range() == near
    qtbot.keyClick(view, Qt.Key.Key_Backspace)
    assert view.view_range() == whole


def test_a_followed_range_is_not_reported_back(qtbot: QtBot, view: HeatmapView) -> None:
    with qtbot.assertNotEmitted(view.view_changed):
        view.set_x_range(1.0, 6.0)
    assert (view.view_range().left(), view.view_range().right()) == (1.0, 6.0)


# Levels.


def test_a_level_handle_narrows_the_colours(qtbot: QtBot, view: HeatmapView) -> None:
    plot = view.plot_rect()
    bar = view.bar.rect(plot)
    top = QPoint(round(bar.center().x()), round(plot.top()))
    with qtbot.waitSignal(view.levels_changed):
        drag(qtbot, view.viewport(), LEFT, top, QPoint(top.x(), round(plot.center().y())))
    assert view.bar.levels == pytest.approx((0.0, 0.5), abs=0.01)
    table = scale.lookup_table("viridis")
    assert view.pixels()[3, LAYERS].tolist() == table[255].tolist()
    qtbot.mouseDClick(view.viewport(), LEFT, pos=bar.center().toPoint())
    assert view.bar.levels == view.bar.full


def test_levels_of_signed_values_stay_centred_on_zero(qtbot: QtBot, view: HeatmapView) -> None:
    view.set_values(np.linspace(-1, 1, COUNT), signed=True, label="cosine")
    plot = view.plot_rect()
    bar = view.bar.rect(plot)
    top = QPoint(round(bar.center().x()), round(plot.top()))
    quarter = QPoint(top.x(), round(plot.top() + plot.height() / 4))
    drag(qtbot, view.viewport(), LEFT, top, quarter)
    low, high = view.bar.levels
    assert low == -high
    assert high == pytest.approx(0.5, abs=0.02)


def test_the_scale_holds_still_while_values_change_within_limits(view: HeatmapView) -> None:
    values = np.linspace(0, 1, COUNT)
    view.set_values(values, signed=False, label="shift", limits=(0.0, 2.0))
    view.bar.levels = (0.5, 2.0)
    view.set_values(values / 2, signed=False, label="shift", limits=(0.0, 2.0))
    assert view.bar.full == (0.0, 2.0)
    assert view.bar.levels == (0.5, 2.0)
    view.set_values(values, signed=False, label="another", limits=(0.0, 2.0))
    assert view.bar.levels == (0.0, 2.0)


# Words.


def test_csv_gives_every_cell_once(view: HeatmapView) -> None:
    headers, rows = view.csv_table()
    assert headers == ["module", "layer", "energy"]
    assert len(rows) == COUNT - 1
    assert rows[0][:2] == ["", "in"]
    assert ["k", "2"] in [row[:2] for row in rows]


def test_the_plot_has_a_name_and_a_summary(view: HeatmapView) -> None:
    view.set_summary("Energy is highest in layers 3 to 5.")
    assert view.accessibleName() == "energy"
    assert view.accessibleDescription() == "Energy is highest in layers 3 to 5."


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_contour_parts_what_is_covered_from_what_is_not(places: list[tuple[int, int]]) -> None:
    grid = CellGrid(np.arange(30, dtype=np.int32).reshape(5, 6))
    upright, level = grid.contour([Span(row, row, column, column) for row, column in places])
    covered = set(places)
    walls = {
        (row, at)
        for at, low, high in zip(upright.at, upright.low, upright.high, strict=True)
        for row in range(low, high)
    }
    floors = {
        (at, column)
        for at, low, high in zip(level.at, level.low, level.high, strict=True)
        for column in range(low, high)
    }
    for row in range(5):
        for column in range(7):
            apart = ((row, column - 1) in covered) != ((row, column) in covered)
            assert ((row, column) in walls) == apart
    for row in range(6):
        for column in range(6):
            apart = ((row - 1, column) in covered) != ((row, column) in covered)
            assert ((row, column) in floors) == apart
