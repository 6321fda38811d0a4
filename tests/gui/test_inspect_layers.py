"""Safety layers, overlap and the rule: what is drawn over the layers, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inspect_data import exact_spectra, layers_result
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.inspection.spectral_metrics import expected_overlap, overlap
from trimtab_gui import theme
from trimtab_gui.layers_found import LayersFound
from trimtab_gui.main_window import MainWindow
from trimtab_gui.selection import Selection
from trimtab_gui.views.inspect.overlap import angle
from trimtab_gui.views.inspect.safety_layers import SafetyLayersCard

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def card(workbench: MainWindow) -> SafetyLayersCard:
    """The card, shown by a click on its name."""
    cards = workbench.workbench.over_layers
    cards.tabs["profile"].buttons["layers"].click()
    assert cards.current == "layers"
    return cards.layers


@pytest.fixture
def filled(
    workbench: MainWindow, card: SafetyLayersCard, tmp_path: Path, qtbot: QtBot
) -> SafetyLayersCard:
    workbench.workbench.looking.layers.load(layers_result(tmp_path / "layers.json"))
    qtbot.waitUntil(lambda: card.state() == "ready")
    return card


def test_cost_and_data_are_told_before_it_is_measured(
    workbench: MainWindow, card: SafetyLayersCard, qtbot: QtBot
) -> None:
    assert card.state() == "empty"
    text, button = card.notice()
    assert "up to 100 queries of each kind from the suite core" in text
    assert "to read" in text
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert card.state() == "loading"
    job = workbench.desk.jobs.pending[-1]
    assert job.name == "safety_layers"
    assert (job.params["suite"], job.params["limit"]) == ("core", 100)
    assert "locate" not in job.params


def test_gaps_of_all_models_have_their_bands_on_the_heatmaps_axis(
    filled: SafetyLayersCard,
) -> None:
    view = filled.view
    assert [c.label for c in view.curves] == ["base", "aligned", "math", "code"]
    assert [c.color_role for c in view.curves] == ["base", "aligned", "finetuned", "finetuned"]
    aligned = view.curves[1]
    column = view.columns.index("2")
    assert aligned.low is not None
    assert aligned.high is not None
    assert (aligned.low[column], aligned.values[column], aligned.high[column]) == (40, 42, 45)
    assert np.isnan(aligned.values[view.columns.index("in")])
    headers, rows = view.csv_table()
    assert headers[4:7] == ["aligned", "aligned low", "aligned high"]
    assert rows[column][4:7] == [42.0, 40.0, 45.0]


def test_each_mode_is_named_and_tells_its_own_formula(filled: SafetyLayersCard) -> None:
    filled.choose("gap", "authors' code")
    assert filled.drawn.currentText() == "Angle gap (authors' code)"
    assert "arccos" in filled._formula
    assert filled.view.curves[1].low is None
    filled.choose("lost")
    assert [c.label for c in filled.view.curves] == ["math", "code"]
    filled.choose("cosines", "math")
    assert [float(c.values[1]) for c in filled.view.curves] == [0.95, 0.9, 0.7]
    low, high = filled.view.limits()
    assert low > 0.6  # cosines near one are not drawn from zero
    assert high < 1.1


def test_the_range_found_is_selected_and_dragging_it_selects_elsewhere(
    workbench: MainWindow, filled: SafetyLayersCard, qtbot: QtBot
) -> None:
    assert filled.layers() == (1, 3)
    assert workbench.desk.selection.current.columns == filled.view.selection
    view, viewport = filled.view, filled.view.viewport()
    edge = round(view.x_px(view.selection[1] + 1))
    there = round(view.x_px(view.columns.index("4") + 0.5))
    middle = round(view.plot_rect().center().y())
    qtbot.mousePress(viewport, Qt.MouseButton.LeftButton, pos=QPoint(edge, middle))
    for x in (edge + 4, (edge + there) // 2, there):
        qtbot.mouseMove(viewport, QPoint(x, middle))
    qtbot.mouseRelease(viewport, Qt.MouseButton.LeftButton, pos=QPoint(there, middle))
    assert filled.layers() == (1, 4)
    assert workbench.workbench.heatmap.view.selection is not None
    assert workbench.workbench.heatmap.view.selection.column_high == view.columns.index("4")
    figures = workbench.desk.figures
    assert figures is not None
    layers = figures.grid.layers[list(workbench.desk.selection.current.groups)]
    assert set(layers.tolist()) == {1, 2, 3, 4}
    assert not filled.take_button.isHidden()
    qtbot.mouseClick(filled.take_button, Qt.MouseButton.LeftButton)
    assert filled.layers() == (1, 3)


def test_keys_move_and_widen_the_range(filled: SafetyLayersCard, qtbot: QtBot) -> None:
    qtbot.keyClick(filled.view, Qt.Key.Key_Right)
    assert filled.layers() == (2, 4)
    qtbot.keyClick(filled.view, Qt.Key.Key_Left, Qt.KeyboardModifier.ShiftModifier)
    assert filled.layers() == (2, 3)


def test_the_range_becomes_a_mask_that_can_be_undone(
    workbench: MainWindow, filled: SafetyLayersCard, qtbot: QtBot
) -> None:
    qtbot.mouseClick(filled.mask_button, Qt.MouseButton.LeftButton)
    (entry,) = workbench.desk.recipe.finetuned[0].masks
    assert entry.rule is not None
    assert entry.rule.layers == (1, 3)
    assert entry.op == "minus"  # what the rule names is left out
    assert workbench.desk.history.undoText() == "Mask out layers 1–3"
    workbench.desk.history.undo()
    assert not workbench.desk.recipe.finetuned[0].masks


def test_the_range_becomes_a_ratio_curve_that_can_be_undone(
    workbench: MainWindow, filled: SafetyLayersCard, qtbot: QtBot
) -> None:
    qtbot.mouseClick(filled.curve_button, Qt.MouseButton.LeftButton)
    assert workbench.desk.recipe.finetuned[0].layers == {1: 0.0, 2: 0.0, 3: 0.0}
    workbench.desk.history.undo()
    assert not workbench.desk.recipe.finetuned[0].layers


def test_without_a_range_there_is_nothing_to_make(
    workbench: MainWindow, filled: SafetyLayersCard
) -> None:
    workbench.desk.selection.clear()
    assert not filled.mask_button.isEnabled()
    assert not filled.curve_button.isEnabled()


def test_a_selection_of_ones_own_is_not_replaced_by_the_range_found(
    workbench: MainWindow, card: SafetyLayersCard, tmp_path: Path, qtbot: QtBot
) -> None:
    chosen = Selection((1,), (0, 0), (1, 1))
    workbench.desk.selection.select(chosen)
    workbench.workbench.looking.layers.load(layers_result(tmp_path / "layers.json"))
    qtbot.waitUntil(lambda: card.state() == "ready")
    assert workbench.desk.selection.current == chosen


def test_shares_and_how_the_range_was_found_are_said(filled: SafetyLayersCard) -> None:
    assert filled.said.text() == (
        "L1–3: where the gap begins · 62.0 % of τ² in 50.0 % of the weights"
    )


def test_locating_asks_for_the_reference_and_its_result_is_said(
    workbench: MainWindow, filled: SafetyLayersCard, tmp_path: Path, qtbot: QtBot
) -> None:
    qtbot.mouseClick(filled.locate_button, Qt.MouseButton.LeftButton)
    assert workbench.desk.jobs.pending[-1].params["locate"] == "aligned"
    assert filled.said.text() == "Measuring anew …"
    located = {"model": "aligned", "located": [2, 4], "alpha": 0.7, "queries": 12}
    path = layers_result(tmp_path / "located.json", located=located)
    job = workbench.desk.jobs.pending[-1]
    workbench.desk.jobs._queue.remove(job)
    workbench.desk.jobs.finished.emit(job, {"path": str(path)}, 1.0)
    qtbot.waitUntil(lambda: "located by scaling, weights × 0.7" in filled.said.text())
    assert filled.locate_button.isHidden()
    qtbot.mouseClick(filled.take_button, Qt.MouseButton.LeftButton)
    assert filled.layers() == (2, 4)


def test_no_gap_is_said_and_nothing_selected(
    workbench: MainWindow, card: SafetyLayersCard, tmp_path: Path, qtbot: QtBot
) -> None:
    path = layers_result(tmp_path / "flat.json", initial=None)
    workbench.workbench.looking.layers.load(path)
    qtbot.waitUntil(lambda: card.state() == "ready")
    assert card.said.text() == "aligned shows no gap of more than a degree."
    assert not workbench.desk.selection.current


def test_what_failed_is_said_and_can_be_tried_again(
    workbench: MainWindow, card: SafetyLayersCard, tmp_path: Path, qtbot: QtBot
) -> None:
    (tmp_path / "bad.json").write_text('{"models": 3}')
    workbench.workbench.looking.layers.load(tmp_path / "bad.json")
    qtbot.waitUntil(lambda: card.state() == "error")
    text, button = card.notice()
    assert "cannot be read" in text
    assert button.text() == "Try again"
    with pytest.raises(UserError) as caught:
        LayersFound.load(tmp_path / "none.json")
    assert caught.value.code == "damaged"


def test_overlap_is_drawn_beside_chance(workbench: MainWindow, qtbot: QtBot) -> None:
    finding, cards = workbench.workbench.looking.spectra, workbench.workbench.over_layers
    cards.tabs["profile"].buttons["overlap"].click()
    text, button = cards.overlap.notice()
    assert "matrices" in text
    assert button.text() == "Compute the spectra"
    assert workbench.desk.lineup is not None
    exact_spectra(workbench.desk.lineup)
    finding.look()
    qtbot.waitUntil(lambda: cards.overlap.state() == "ready")
    known = finding.known
    assert known is not None
    chance, tau = cards.overlap.view.curves
    np.testing.assert_array_equal(tau.values, overlap(known.columns, 0))
    np.testing.assert_array_equal(chance.values, expected_overlap(known.columns, 0))
    assert chance.low is not None
    assert chance.high is not None
    inside = ~np.isnan(chance.low)
    assert (chance.low[inside] <= chance.high[inside]).all()
    cards.overlap.measure.setCurrentIndex(1)
    np.testing.assert_array_equal(
        cards.overlap.view.curves[1].values, angle(overlap(known.columns, 0))
    )
    workbench.desk.set_active(1)
    assert cards.overlap.view.curves[1].label == "code"


def test_an_overlap_of_one_is_an_angle_of_zero() -> None:
    np.testing.assert_allclose(angle(np.array([1.0, 0.5, 0.0])), [0.0, 45.0, 90.0], atol=1e-6)


def test_merge_shows_the_profile_where_the_curve_is_dragged(
    workbench: MainWindow, card: SafetyLayersCard
) -> None:
    workbench.places.go("merge")
    assert workbench.workbench.over_layers.current == "profile"


def test_the_names_of_the_views_are_reached_and_chosen_by_keys(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    cards = workbench.workbench.over_layers
    button = cards.tabs["profile"].buttons["overlap"]
    button.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(button, Qt.Key.Key_Return)
    assert cards.current == "overlap"
    assert cards.tabs["overlap"].buttons["overlap"].isChecked()


def test_all_views_over_the_layers_zoom_together(workbench: MainWindow) -> None:
    bench = workbench.workbench
    bench.heatmap.view.set_view(bench.heatmap.view.view_range().adjusted(1, 0, -2, 0))
    for view in (bench.over_layers.layers.view, bench.over_layers.overlap.view):
        assert view.view_range().left() == bench.heatmap.view.view_range().left()


def test_the_legend_follows_the_theme(filled: SafetyLayersCard, qapp: QApplication) -> None:
    before = filled.legend.colours()
    theme.apply(qapp, "light")
    assert filled.legend.colours() != before


def test_views_and_rule_are_actions_too(workbench: MainWindow) -> None:
    cards = workbench.workbench.over_layers
    for key in ("overlap", "layers", "profile"):
        workbench.actions_.run(f"show-{key}")
        assert cards.current == key
    workbench.actions_.run("select-rule")
    popup = workbench.workbench.selection.rule
    assert popup is not None
    assert popup.isVisible()
    popup.close()


# The rule.


def test_a_rule_selects_layers_and_modules(workbench: MainWindow, qtbot: QtBot) -> None:
    panel, figures = workbench.workbench.selection, workbench.desk.figures
    assert figures is not None
    qtbot.mouseClick(panel.rule_button, Qt.MouseButton.LeftButton)
    popup = panel.rule
    assert popup is not None
    assert not popup.select.isEnabled()
    qtbot.keyClicks(popup.first, "2")
    qtbot.keyClicks(popup.last, "3")
    popup.modules["k"].click()
    popup.modules["down"].click()
    assert popup.count.text().startswith("4 cells")
    qtbot.keyClick(popup.last, Qt.Key.Key_Return)
    chosen = {figures.grid.labels[g] for g in workbench.desk.selection.current.groups}
    assert chosen == {"L2 · k", "L3 · k", "L2 · down", "L3 · down"}
    parts = workbench.workbench.heatmap.view.selected_parts()
    assert len(parts) == 2  # the rows between are not selected, and not drawn so
    assert workbench.workbench.profile.view.selection == (3, 4)
    assert popup.isHidden()


def test_a_rule_by_name_takes_stars(workbench: MainWindow, qtbot: QtBot) -> None:
    popup = workbench.workbench.selection.open_rule()
    qtbot.keyClicks(popup.pattern, "*.mlp.up_proj.*")
    assert len(popup.groups()) == 6
    popup.pattern.setText("nothing like it")
    assert not popup.groups()
    assert popup.count.text() == "Nothing fits."
    qtbot.keyClick(popup.pattern, Qt.Key.Key_Return)
    assert not workbench.desk.selection.current
    popup.close()


def test_a_brush_takes_the_place_of_a_rules_cells(workbench: MainWindow, qtbot: QtBot) -> None:
    popup = workbench.workbench.selection.open_rule()
    popup.modules["q"].click()
    popup.modules["v"].click()
    popup.apply()
    view = workbench.workbench.heatmap.view
    rect = view.plot_rect()
    start, end = rect.center().toPoint(), rect.center().toPoint() + QPoint(90, 60)
    qtbot.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(view.viewport(), end)
    qtbot.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=end)
    assert view.selected_parts() == [view.selection]
