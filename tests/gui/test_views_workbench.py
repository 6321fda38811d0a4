from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.inspection.metrics import available
from trimtab.merging.recipe import ModelRef, Recipe
from trimtab.project import Project
from trimtab_gui.figures import SHIFT
from trimtab_gui.main_window import MainWindow
from trimtab_gui.selection import Selection
from trimtab_gui.views.workbench import Workbench

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


def curve(bench: Workbench, key: str) -> np.ndarray:
    return next(c.values for c in bench.profile.view.curves if c.key == key).copy()


def drag_slider(bench: Workbench, qtbot: QtBot) -> None:
    track = bench.method.ratios[0].track
    start = QPoint(round(track.handle_x()), track.height() // 2)
    qtbot.mousePress(track, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 6):
        QTest.mouseMove(track, start + QPoint(8 * step, 0))
    qtbot.mouseRelease(track, Qt.MouseButton.LeftButton, pos=start + QPoint(40, 0))


def test_a_slider_moves_curve_gauges_and_heatmap_without_any_job(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    bench = workbench.workbench
    bench.heatmap.choose_metric(SHIFT)
    before = (curve(bench, "shift"), bench.distance.kept.value(), bench.heatmap.view.values.copy())
    pending = workbench.desk.jobs.pending
    drag_slider(bench, qtbot)
    assert workbench.desk.recipe.finetuned[0].ratio > 0.6
    assert not np.allclose(curve(bench, "shift"), before[0])
    assert bench.distance.kept.value() != before[1]
    assert not np.allclose(bench.heatmap.view.values, before[2])
    assert workbench.desk.jobs.pending == pending
    assert workbench.desk.history.count() == 1


def test_the_gauge_shows_the_ratio_where_one_model_moves_alone(workbench: MainWindow) -> None:
    bench, desk = workbench.workbench, workbench.desk
    from trimtab.project.edits import set_ratio

    desk.edit(set_ratio(desk.recipe, 1, 0.0))
    desk.edit(set_ratio(desk.recipe, 0, 0.25))
    assert bench.distance.kept.value() == pytest.approx(25.0)
    desk.edit(set_ratio(desk.recipe, 0, 0.0))
    assert bench.distance.moved.value() == 0.0


def test_a_model_at_ratio_zero_has_no_curve_until_it_takes_part(workbench: MainWindow) -> None:
    from trimtab.project.edits import set_ratio

    view, desk = workbench.workbench.profile.view, workbench.desk
    desk.edit(set_ratio(desk.recipe, 1, 0.0))
    assert "tau1" not in {c.key for c in view.curves}
    desk.edit(set_ratio(desk.recipe, 1, 0.1))
    assert "tau1" in {c.key for c in view.curves}
    desk.edit(set_ratio(desk.recipe, 1, 0.0))
    desk.set_active(1)
    assert "tau1" in {c.key for c in view.curves}


def test_undo_puts_curve_and_slider_back(workbench: MainWindow, qtbot: QtBot) -> None:
    bench = workbench.workbench
    before = curve(bench, "shift")
    drag_slider(bench, qtbot)
    workbench.actions_.run("undo")
    np.testing.assert_array_equal(curve(bench, "shift"), before)
    assert bench.method.ratios[0].value() == 0.6


def test_the_ratio_curve_is_dragged_in_the_profile(workbench: MainWindow, qtbot: QtBot) -> None:
    view = workbench.workbench.profile.view
    column = view.columns.index("2")
    start = view.handle_px(column).toPoint()
    port = view.viewport()
    qtbot.mousePress(port, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 8):
        QTest.mouseMove(port, start + QPoint(0, 6 * step))
    qtbot.mouseRelease(port, Qt.MouseButton.LeftButton, pos=start + QPoint(0, 42))
    layers = workbench.desk.recipe.finetuned[0].layers
    assert list(layers) == [2]
    assert layers[2] < 0.6
    assert workbench.desk.history.count() == 1
    assert workbench.workbench.method._reset.isVisible()
    workbench.workbench.method._reset.click()
    assert workbench.desk.recipe.finetuned[0].layers == {}


def test_a_region_brushed_in_the_profile_is_seen_in_the_heatmap(workbench: MainWindow) -> None:
    bench = workbench.workbench
    bench.profile.view.selection_changed.emit(2, 4)
    span = bench.heatmap.view.selection
    assert span is not None
    assert (span.column_low, span.column_high) == (2, 4)
    bench.profile.view.selection_changed.emit(-1, -1)
    assert bench.heatmap.view.selection is None


def test_a_region_brushed_in_the_heatmap_is_seen_in_the_profile(workbench: MainWindow) -> None:
    bench = workbench.workbench
    ids = np.unique(workbench.desk.figures.grid.cells[1:3, 2:4])  # type: ignore[union-attr]
    bench.heatmap.view.selection_changed.emit(ids, (1, 2), (2, 3))
    assert bench.profile.view.selection == (2, 3)
    assert workbench.desk.selection.current.groups == tuple(ids)
    rows = dict(bench.selection.table.rows())
    assert "4 cells" in bench.selection._aside.text()
    assert rows["parameters"] == "256"


def test_pointing_at_a_cell_reads_its_numbers_without_selecting(workbench: MainWindow) -> None:
    bench, figures = workbench.workbench, workbench.desk.figures
    assert figures is not None
    group = figures.grid.labels.index("L2 · down")
    bench.heatmap.view.hovered.emit(group)
    rows = dict(bench.selection.table.rows())
    assert rows["shape"] == "8 × 8"
    assert rows["dtype"] == "fp32"
    assert rows["ratio here"] == "0.60"
    assert {"|τ|", "|τ| / |θ|", "|a|", "cos(τ, a)", "rollback", "sign conflict", "exact zeros",
            "|merged − aligned|"} <= set(rows)  # fmt: skip
    assert not workbench.desk.selection.current


def test_esc_clears_the_selection(workbench: MainWindow, qtbot: QtBot) -> None:
    workbench.desk.selection.select(Selection((1,), (0, 0), (1, 1)))
    workbench.setFocus()
    qtbot.keyClick(workbench, Qt.Key.Key_Escape)
    assert not workbench.desk.selection.current


def test_every_metric_can_be_shown_and_tells_its_formula(workbench: MainWindow) -> None:
    card, figures = workbench.workbench.heatmap, workbench.desk.figures
    assert figures is not None
    for metric in available(figures.groups):
        card.choose_metric(metric.id)
        np.testing.assert_array_equal(
            card.view.values, metric.compute(figures.groups, 0)[: card.view.values.size]
        )
        assert metric.formula in card._formula


def test_the_vector_chooser_and_the_cards_follow_each_other(workbench: MainWindow) -> None:
    bench = workbench.workbench
    bench.lineup.cards[3].click()
    assert workbench.desk.active == 1
    assert bench.heatmap.vector_box.currentIndex() == 1
    assert bench.lineup.cards[3].is_active()
    bench.heatmap.vector_box.setCurrentIndex(0)
    assert workbench.desk.active == 0
    assert bench.lineup.cards[2].is_active()


def test_the_verdict_says_that_all_tensors_match(workbench: MainWindow) -> None:
    assert workbench.workbench.lineup.verdict.text() == "✓ all 51 tensors match"


def test_mismatches_are_listed_with_what_will_be_done(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    from safetensors.numpy import load_file, save_file

    file = lineup_paths["math"] / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.3.mlp.down_proj.weight"]
    save_file(tensors, file)
    window.documents.open_paths([lineup_paths["aligned"], lineup_paths["math"]])
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    panel = window.workbench.lineup
    assert panel.verdict.text().startswith("!")
    popup = panel.show_findings()
    assert popup is not None
    popup.close()


def test_a_card_s_menu_gives_the_model_another_part(workbench: MainWindow, qtbot: QtBot) -> None:
    menu = workbench.workbench.lineup.menu_for("finetuned", 0)
    texts = [a.text() for a in menu.actions() if a.text()]
    assert texts == ["Make it the base model", "Make it the aligned model",
                     "Show in the file manager", "Remove"]  # fmt: skip
    menu.actions()[1].trigger()
    recipe = workbench.desk.recipe
    assert recipe.aligned is not None
    assert Path(recipe.aligned.path).name == "math"
    assert [Path(m.path).name for m in recipe.finetuned] == ["aligned", "code"]
    qtbot.waitUntil(lambda: workbench.desk.lineup is not None)


def test_the_merge_button_is_off_with_its_reason(
    window: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    window.documents.open_paths([lineup_paths["aligned"]])
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    window.show()
    output = window.workbench.output
    assert not output.button.isEnabled()
    assert output.button.toolTip() == "Add a fine-tuned model."
    assert output._reason.isVisible()


@pytest.mark.parametrize(
    ("model", "expected"),
    [("Qwen3-1.7B", "Qwen3-1.7B-merged"), ("tuned-0.5.safetensors", "tuned-0.5-merged")],
)
def test_the_output_is_called_after_the_reference(
    window: MainWindow, tmp_path: Path, model: str, expected: str
) -> None:
    recipe = Recipe(aligned=ModelRef(path=str(tmp_path / model)))
    window.desk.set_project(Project(recipe))
    assert window.merging.output == tmp_path / expected


def test_overwriting_asks_in_place_and_only_then_merges(
    workbench: MainWindow, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    workbench.merging.set_output(taken)
    output = workbench.workbench.output
    output.button.click()
    assert workbench.desk.jobs.pending == ()
    assert output.question.isVisible()
    output.question.buttons()[0].click()
    job = workbench.desk.jobs.pending[-1]
    assert (job.name, job.params["overwrite"]) == ("merge", True)


def test_the_module_sliders_scale_the_active_model(workbench: MainWindow) -> None:
    method = workbench.workbench.method
    assert set(method.modules) >= {"q", "k", "v", "o", "gate", "up", "down"}
    slider = method.modules["down"]
    slider.drag_started.emit()
    slider.value_moved.emit(50.0)
    slider.drag_finished.emit(50.0)
    assert workbench.desk.recipe.finetuned[0].modules == {"down": 0.5}


def test_the_theme_changes_live(workbench: MainWindow) -> None:
    dark = workbench.grab().toImage().pixelColor(5, 400).lightness()
    workbench.actions_.run("theme")
    light = workbench.grab().toImage().pixelColor(5, 400).lightness()
    workbench.actions_.run("theme")
    assert dark < 60 < 200 < light


def test_both_plots_show_the_same_columns(workbench: MainWindow, qtbot: QtBot) -> None:
    bench = workbench.workbench
    heatmap, profile = bench.heatmap.view, bench.profile.view
    view = heatmap.view_range()
    view.setWidth(5.0)
    heatmap.set_view(view)
    assert profile.view_range().width() == 5.0
    middle = heatmap.viewport().mapToGlobal(QPointF(heatmap.x_px(2), 0))
    assert profile.viewport().mapToGlobal(QPointF(profile.x_px(2), 0)).x() == middle.x()


def test_quick_key_presses_are_one_step_and_slow_ones_are_several(
    workbench: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab_gui.views import gestures

    slider = workbench.workbench.method.ratios[0]
    before = workbench.desk.recipe
    for _ in range(3):
        qtbot.keyClick(slider.track, Qt.Key.Key_Right)
    assert workbench.desk.history.count() == 1
    workbench.desk.history.undo()
    assert workbench.desk.recipe == before
    monkeypatch.setattr(gestures, "RUN_ON_S", 0.0)
    for _ in range(2):
        qtbot.keyClick(slider.track, Qt.Key.Key_Right)
    assert workbench.desk.history.count() == 2


def test_two_quick_drags_are_two_steps(workbench: MainWindow, qtbot: QtBot) -> None:
    drag_slider(workbench.workbench, qtbot)
    drag_slider(workbench.workbench, qtbot)
    assert workbench.desk.history.count() == 2
