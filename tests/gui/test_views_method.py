from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gui_lineups import inspect, recipe_of
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.merging.settings import Filtered
from trimtab.methods import methods
from trimtab.project import Project, edits
from trimtab_gui.figures import SHIFT
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.method_panel import MethodPanel
from trimtab_gui.views.parameter_row import help_text
from trimtab_gui.widgets import RatioSlider

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


def choose(window: MainWindow, method: str) -> MethodPanel:
    window.desk.edit(edits.set_method(window.desk.recipe, method))
    return window.workbench.method


def drag(slider: RatioSlider, qtbot: QtBot, by: int = 40) -> None:
    track = slider.track
    start = QPoint(round(track.handle_x()), track.height() // 2)
    qtbot.mousePress(track, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 6):
        QTest.mouseMove(track, start + QPoint(by * step // 5, 0))
    qtbot.mouseRelease(track, Qt.MouseButton.LeftButton, pos=start + QPoint(by, 0))


def test_a_method_is_chosen_with_the_keyboard_alone(workbench: MainWindow, qtbot: QtBot) -> None:
    workbench.actions_.run("method")
    chooser = workbench.workbench.method.method
    assert chooser.popup is not None
    qtbot.keyClicks(chooser.popup.field, "dare_ties")
    qtbot.keyClick(chooser.popup.field, Qt.Key.Key_Return)
    assert workbench.desk.recipe.method == "dare_ties"
    assert chooser.text() == "DARE, TIES"
    workbench.actions_.run("undo")
    assert chooser.text() == "Task arithmetic"


def test_every_method_s_form_is_made_from_its_signature(workbench: MainWindow) -> None:
    for method in methods():
        panel = choose(workbench, method.name)
        assert list(panel.rows) == [p.name for p in method.parameters]
        for p in method.parameters:
            row = panel.rows[p.name]
            made = {"number": row.slider, "integer": row.slider,
                    "switch": row.switch, "choice": row.choice}[p.kind]  # fmt: skip
            assert made is not None, (method.name, p.name)
            for text in (p.title, p.sentence, method.formula, method.reference):
                assert text.replace("-", "−") in row.control.toolTip().replace("-", "−")
        assert all(s.isVisibleTo(panel) == method.weighted for s in panel.ratios)
        assert panel.seed.isVisibleTo(panel) == method.random
        assert panel._sentence.text() == method.sentence


def test_the_formula_is_one_click_away(workbench: MainWindow, qtbot: QtBot) -> None:
    panel = choose(workbench, "ties")
    qtbot.mouseClick(panel.info, Qt.MouseButton.LeftButton)
    from PySide6.QtWidgets import QLabel

    assert panel._popup is not None
    shown = " ".join(label.text() for label in panel._popup.findChildren(QLabel))
    assert "Yadav et al. 2023" in shown
    assert "θ_ref" in shown
    panel._popup.close()


def test_a_method_for_another_number_of_models_says_so_in_place(workbench: MainWindow) -> None:
    panel = choose(workbench, "slerp")
    entry = next(e for e in panel.method.entries() if e.key == "slerp")
    assert entry.objection == "takes exactly one model"
    assert panel._problem.text() == (
        "SLERP takes exactly one model besides the reference; there are 2. "
        "Remove models, or choose another method."
    )
    assert not workbench.workbench.output.button.isEnabled()
    workbench.desk.edit(edits.remove_finetuned(workbench.desk.recipe, 1))
    entry = next(e for e in panel.method.entries() if e.key == "slerp")
    assert entry.objection == ""
    assert not panel._problem.isVisibleTo(panel)


def test_one_drag_of_a_parameter_is_one_step(workbench: MainWindow, qtbot: QtBot) -> None:
    panel = choose(workbench, "ties")
    before = workbench.desk.history.count()
    drag(panel.parameters["density"], qtbot)
    density = workbench.desk.recipe.parameters["density"]
    assert isinstance(density, float)
    assert density > 0.2
    assert workbench.desk.history.count() == before + 1


def test_switches_and_choices_are_edits(workbench: MainWindow, qtbot: QtBot) -> None:
    panel = choose(workbench, "ties")
    switch, choice = panel.rows["normalize"].switch, panel.rows["rescale"].choice
    assert switch is not None
    assert choice is not None
    assert switch.isChecked()
    qtbot.keyClick(switch, Qt.Key.Key_Space)
    assert workbench.desk.recipe.parameters["normalize"] is False
    choice.setFocus()
    qtbot.keyClick(choice, Qt.Key.Key_Down)
    assert workbench.desk.recipe.parameters["rescale"] == "l1"
    workbench.actions_.run("undo")
    workbench.actions_.run("undo")
    assert workbench.desk.recipe.parameters == {}
    assert switch.isChecked()


def test_each_model_gets_a_value_of_its_own_and_gives_it_up(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    row = choose(workbench, "dare_ties").rows["density"]
    assert row.slider is not None
    assert not row.own[0].isVisibleTo(row)
    row.fold.click()
    assert row.own[0].isVisibleTo(row)
    before = workbench.desk.history.count()
    drag(row.own[1], qtbot, -40)
    models = workbench.desk.recipe.finetuned
    assert models[0].parameters == {}
    own = models[1].parameters["density"]
    assert isinstance(own, float)
    assert own < 0.5
    assert workbench.desk.history.count() == before + 1
    assert "1 of its own" in row.fold.text()
    drag(row.slider, qtbot)
    assert row.own[0].value() == row.slider.value() > 0.5
    assert row.own[1].value() == own
    row.same.click()
    assert workbench.desk.recipe.finetuned[1].parameters == {}
    assert row.own[1].value() == row.slider.value()


def test_values_by_layer_or_name_are_shown_and_can_be_given_up(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    recipe = recipe_of(lineup_paths)
    first = recipe.finetuned[0].model_copy(
        update={"weight": [0.1, 0.9], "parameters": {"density": [0.2, 0.8]}}
    )
    by_name = [Filtered(filter="mlp", value=0.3), Filtered(value=0.6)]
    recipe = recipe.model_copy(
        update={
            "method": "ties", "parameters": {"density": by_name},
            "finetuned": (first, recipe.finetuned[1]),
        }
    )  # fmt: skip
    window = make_window()
    window.desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    window.desk._stop_inspecting()
    panel = window.workbench.method
    row = panel.rows["density"]
    assert row.varied.isVisibleTo(panel)
    assert not row.control.isVisibleTo(panel)
    assert "mlp" in row.varied.toolTip()
    row.fold.click()
    assert row._own_varied[1].isVisibleTo(panel), "it has what all have"
    assert "mlp" in row._own_varied[1].toolTip()
    assert panel.weights[0].isVisibleTo(panel)
    assert not panel.weights[1].isVisibleTo(panel)
    assert "0.9" in panel.weights[0].toolTip()
    panel.weights[0].link.click()
    assert window.desk.recipe.finetuned[0].weight is None
    row.varied.link.click()
    assert window.desk.recipe.parameters == {}
    assert row.control.isVisibleTo(panel)
    assert row.own[1].isVisibleTo(panel)
    assert row._own_varied[0].isVisibleTo(panel)
    row._own_varied[0].link.click()
    assert window.desk.recipe.finetuned[0].parameters == {"density": 0.2}


def test_the_dice_throw_another_seed(workbench: MainWindow, qtbot: QtBot) -> None:
    seed = choose(workbench, "dare_linear").seed
    assert seed.field.text() == "0"
    qtbot.mouseClick(seed.dice, Qt.MouseButton.LeftButton)
    assert workbench.desk.recipe.seed != 0
    assert seed.field.text() == str(workbench.desk.recipe.seed)
    seed.field.setFocus()
    seed.field.selectAll()
    qtbot.keyClicks(seed.field, "42")
    qtbot.keyClick(seed.field, Qt.Key.Key_Return)
    assert workbench.desk.recipe.seed == 42
    workbench.actions_.run("undo")
    workbench.actions_.run("undo")
    assert workbench.desk.recipe.seed == 0


def test_nothing_wrong_is_shown_where_only_a_merge_can_tell(workbench: MainWindow) -> None:
    bench = workbench.workbench
    bench.heatmap.choose_metric(SHIFT)
    choose(workbench, "ties")
    assert bench.heatmap.state() == "empty"
    assert bench.heatmap.notice()[0] == (
        "TIES elects signs entry by entry: what it moves is known when it is merged."
    )
    assert bench.distance.moved.value() is None
    assert bench.distance.unknown.isVisible()
    assert "shift" not in {c.key for c in bench.profile.view.curves}
    assert {"tau0", "a"} <= {c.key for c in bench.profile.view.curves}
    bench.heatmap.view.hovered.emit(3)
    rows = dict(bench.selection.table.rows())
    assert rows["|merged − aligned|"] == "–"
    assert rows["ratio here"] == "0.60"
    bench.heatmap.choose_metric("relative")
    assert bench.heatmap.state() == "ready"
    choose(workbench, "task_arithmetic")
    assert bench.distance.moved.value() is not None
    assert not bench.distance.unknown.isVisible()


def test_an_arc_is_redrawn_while_the_hand_moves(workbench: MainWindow, qtbot: QtBot) -> None:
    bench = workbench.workbench
    workbench.desk.edit(edits.remove_finetuned(workbench.desk.recipe, 1))
    lineup = _opened(workbench, qtbot)
    workbench.desk.project.set_inspection(inspect(lineup))
    panel = choose(workbench, "slerp")
    before = bench.distance.kept.value()
    assert before == pytest.approx(50, abs=1)
    assert bench.profile.view.ratio is None, "a ratio would have no effect"
    drag(panel.parameters["t"], qtbot)
    now = bench.distance.kept.value()
    assert now is not None
    assert now > before


def _opened(window: MainWindow, qtbot: QtBot):  # type: ignore[no-untyped-def]
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    window.desk._stop_inspecting()
    return window.desk.lineup


def test_a_large_lineup_is_worked_out_beside_the_event_loop(
    workbench: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab_gui import figures

    monkeypatch.setattr(figures, "_MOST_AT_ONCE", 3)
    choose(workbench, "multislerp")
    assert workbench.desk.movement is None
    assert "Working out" in workbench.workbench.distance.unknown.text()
    qtbot.waitUntil(lambda: workbench.desk.movement is not None)
    assert workbench.workbench.distance.moved.value() is not None
    choose(workbench, "task_arithmetic")
    assert workbench.desk.movement is not None, "a linear merge is redrawn at once"


def test_the_tooltip_tells_range_and_default(workbench: MainWindow) -> None:
    method = workbench.desk.catalogue.get("dare_ties")
    assert method is not None
    by_name = {p.name: help_text(p, method) for p in method.parameters}
    assert "0 to 1; default 0.5" in by_name["density"]
    assert "on or off; default off" in by_name["normalize"]
    assert "default By density (paper)" in by_name["rescale"]
