from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluate_fixtures import filled, finish, place
from evaluations import N, with_controls
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QAbstractButton, QLineEdit, QWidget
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.masks.entries import Chance, MaskEntry
from trimtab.project import Project
from trimtab.project.edits import set_masks, set_ratio
from trimtab_gui import theme
from trimtab_gui.evaluating import Evaluating
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.evaluate.change_panel import p_text, points_text
from trimtab_gui.views.evaluate.place import EvaluatePlace

__all__ = ["filled", "lineup_paths", "make_window", "place", "window", "workbench"]


# What is asked.


def test_the_targets_are_the_lineup_s_the_merge_and_controls(place: MainWindow) -> None:
    cards = place.evaluate.targets.cards
    shown = {key: (card.name(), card.isChecked()) for key, card in cards.items()}
    assert shown == {
        "base": ("base", False), "aligned": ("aligned", True), "finetuned": ("2 models", True),
        "merged": ("current recipe", True), "controls": ("linear ½", True),
    }  # fmt: skip
    assert place.evaluate.run.button.text() == "Evaluate 5 targets"


def test_a_card_that_is_clicked_is_no_longer_asked(place: MainWindow, qtbot: QtBot) -> None:
    qtbot.mouseClick(place.evaluate.targets.cards["finetuned"], Qt.MouseButton.LeftButton)
    assert place.evaluate.run.button.text() == "Evaluate 3 targets"
    assert place.evaluating.params("core")["roles"] == ["aligned", "merged"]


def test_the_job_is_told_the_recipe_the_suite_and_the_thresholds(place: MainWindow) -> None:
    place.evaluating.suites.set_limit(8)
    place.evaluating.set_bound("utility", 0.65)
    params = place.evaluating.params("core")
    assert params["roles"] == ["aligned", "finetuned", "merged"]
    assert params["recipes"] == {"merged": place.desk.recipe.model_dump(mode="json")}
    assert params["controls"] is True
    assert (params["suite"], params["judges"], params["limit"]) == ("core", ["phrases"], 8)
    assert params["thresholds"] == ["attack_success <= 0.05", "over_refusal <= 0.1",
                                    "utility >= 0.65"]  # fmt: skip
    assert params["thresholds_set"] == place.evaluating.bounds.set_at != ""
    json.dumps(params)


def test_the_worker_takes_what_it_is_told(place: MainWindow) -> None:
    from trimtab.jobs.evaluation_params import EvaluateParams

    EvaluateParams.model_validate(place.evaluating.params("core"))


def test_a_random_mask_is_a_control_where_the_recipe_has_a_mask(place: MainWindow) -> None:
    stack = (MaskEntry(random=Chance(keep=0.8), name="Random"),)
    place.desk.edit(set_masks(place.desk.recipe, 0, stack, "Masks"))
    assert place.evaluate.targets.cards["controls"].name() == "linear ½ · random mask"
    assert place.evaluate.run.button.text() == "Evaluate 6 targets"
    place.evaluating.switch("controls", False)
    assert place.evaluate.run.button.text() == "Evaluate 4 targets"
    assert place.evaluating.params("core")["controls"] is False


def test_controls_can_be_asked_alone(place: MainWindow) -> None:
    for choice in ("aligned", "finetuned", "merged"):
        place.evaluating.switch(choice, False)
    assert place.evaluating.params("core")["roles"] == []
    assert place.evaluate.run.button.text() == "Evaluate 1 target"
    assert place.evaluate.run.button.isEnabled()


def test_nothing_can_be_asked_of_nobody(place: MainWindow) -> None:
    for choice in list(place.evaluating.targets):
        place.evaluating.switch(choice, False)
    assert not place.evaluate.run.button.isEnabled()
    assert place.evaluate.run.says.text() == "Choose a target."


def test_what_can_be_done_follows_the_suite_the_targets_and_the_results(
    place: MainWindow,
) -> None:
    evaluate = place.actions_.qt("evaluate")
    assert evaluate.isEnabled()
    assert not place.actions_.qt("provenance").isEnabled()
    for choice in list(place.evaluating.targets):
        place.evaluating.switch(choice, False)
    assert not evaluate.isEnabled()
    place.evaluating.switch("aligned", True)
    assert evaluate.isEnabled()
    evaluate.trigger()
    assert place.evaluating.running
    assert not evaluate.isEnabled()


# The run.


def test_before_a_run_each_card_says_what_will_be_there(place: MainWindow) -> None:
    view = place.evaluate
    assert view.dots.state() == "empty"
    assert view.trade.state() == "empty"
    assert view.coverage.title() == "Coverage: what would be asked"
    text, button = view.dots.notice()
    assert text
    button.click()
    assert place.evaluating.running
    assert view.dots.state() == "loading"
    assert view.run.says.text() == "Asking 5 targets on Trimtab core …"


def test_a_run_that_is_asked_for_too_early_begins_when_the_prompts_are_read(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    workbench.actions_.run("evaluate")
    assert workbench.places.current == "evaluate"
    qtbot.waitUntil(lambda: workbench.evaluating.running)
    assert workbench.evaluating._next is not None


def test_asking_whether_a_run_can_begin_loads_nothing(workbench: MainWindow) -> None:
    assert workbench.actions_["evaluate"].enabled() is None
    assert workbench.screens.evaluating_so_far is None


def test_a_run_can_be_stopped(place: MainWindow, qtbot: QtBot) -> None:
    place.actions_.run("evaluate")
    assert place.actions_["evaluate"].enabled() == "An evaluation is under way."
    qtbot.mouseClick(place.evaluate.run.stop, Qt.MouseButton.LeftButton)
    assert not place.evaluating.running
    assert place.evaluate.dots.state() == "empty"
    assert place.evaluate.run.button.isEnabled()


def test_a_run_that_fails_says_why_in_its_card(place: MainWindow) -> None:
    place.actions_.run("evaluate")
    error = UserError("no_luck", "It failed.", "Because.", "Try it again.")
    place.desk.jobs.failed.emit(place.evaluating._job, error)
    text, button = place.evaluate.dots.notice()
    assert place.evaluate.dots.state() == "error"
    assert text == "It failed. Because.\nTry it again."
    assert place.banners.banner("evaluate") is None
    button.click()
    assert place.evaluating.running


def test_results_survive_a_later_run_that_fails(filled: MainWindow) -> None:
    filled.actions_.run("evaluate")
    error = UserError("no_luck", "It failed.", "Because.", "Try it again.")
    filled.desk.jobs.failed.emit(filled.evaluating._job, error)
    assert filled.evaluate.dots.state() == "ready"
    assert filled.banners.banner("evaluate") is not None


def test_results_that_cannot_be_read_are_an_error(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    path = tmp_path / "bad.json"
    path.write_text("{}")
    place.desk.jobs.finished.emit(place.evaluating._job, {"path": str(path)}, 1.0)
    qtbot.waitUntil(lambda: place.evaluating.error is not None)
    assert place.evaluate.dots.state() == "error"


def test_another_project_has_no_results(filled: MainWindow) -> None:
    filled.desk.set_project(Project(filled.desk.recipe))
    assert filled.evaluating.facts is None
    assert filled.evaluate.change.says.text().startswith("What two models do differently")
    assert filled.actions_["provenance"].enabled() == "Nothing is evaluated yet."


def test_the_next_run_s_time_is_told_from_the_last_one_s(filled: MainWindow) -> None:
    # 3 targets and 50 prompts in 12 s: 12.5 prompts a second
    assert filled.desk.session.get("evaluate rate") == 3 * 5 * N / 12.0
    asked = filled.evaluating.count * sum(filled.evaluating.counts.values())
    assert filled.evaluating.seconds_expected() == pytest.approx(asked / 12.5)
    assert filled.evaluate.run.says.text().startswith("about ")


# What came out.


def test_the_dots_are_the_shares_with_their_intervals(filled: MainWindow) -> None:
    dots = filled.evaluate.dots.dots
    assert dots.categories == ("Fraud", "Malware", "Privacy")
    merged = next(s for s in dots.series if s.name == "merged")
    assert [d.value for d in merged.dots if d is not None] == [0.1, 0.9, 0.3]
    headers, rows = dots.csv_table()
    assert headers[:5] == ["category", "target", "share", "low", "high"]
    assert len(rows) == 9
    assert "merged: 10 to 90 %" in dots.accessibleDescription()


def test_another_metric_has_its_own_categories(filled: MainWindow, qtbot: QtBot) -> None:
    box = filled.evaluate.dots.metric_box
    box.setCurrentIndex(box.findData("utility"))
    box.activated.emit(box.currentIndex())
    assert filled.evaluate.dots.dots.categories == ("arithmetic",)


def test_the_largest_first_is_by_the_model_after(filled: MainWindow, qtbot: QtBot) -> None:
    qtbot.mouseClick(filled.evaluate.dots.order, Qt.MouseButton.LeftButton)
    assert filled.evaluate.dots.dots.categories == ("Malware", "Privacy", "Fraud")


def test_the_radar_stands_beside_the_dots_on_demand(filled: MainWindow, qtbot: QtBot) -> None:
    card = filled.evaluate.dots
    assert not card.radar.isVisible()
    qtbot.mouseClick(card.both_button, Qt.MouseButton.LeftButton)
    assert card.radar.isVisible()
    assert card.dots.isVisible()


def test_a_click_on_a_category_shows_its_answers(filled: MainWindow, qtbot: QtBot) -> None:
    dots = filled.evaluate.dots.dots
    point = dots.row_rect(1).center().toPoint()
    qtbot.mouseClick(dots, Qt.MouseButton.LeftButton, pos=point)
    shown = filled.evaluate.answers.shown
    assert shown is not None
    assert shown.prompt.category == "Malware"


def test_the_keys_go_through_the_categories(filled: MainWindow, qtbot: QtBot) -> None:
    dots = filled.evaluate.dots.dots
    dots.setFocus()
    for key in (*[Qt.Key.Key_Down] * 4, Qt.Key.Key_Up, Qt.Key.Key_Return):
        qtbot.keyClick(dots, key)
    shown = filled.evaluate.answers.shown
    assert shown is not None
    assert shown.prompt.category == "Malware"


def test_harm_and_over_refusal_stand_side_by_side(filled: MainWindow) -> None:
    lines = filled.evaluate.change._lines
    shown = [(line.name.text(), line.before.text(), line.after.text()) for line in lines[:3]]
    assert shown == [
        ("attack success", "76.7 %", "43.3 %"),
        ("over-refusal", "0.0 %", "20.0 %"),
        ("utility accuracy", "90.0 %", "80.0 %"),
    ]
    assert "4 newly unsafe, 14 newly safe" in lines[0].says.text()
    assert lines[2].says.text().startswith("−10.0")  # fewer right ones


def test_another_pair_can_be_compared(filled: MainWindow, qtbot: QtBot) -> None:
    panel = filled.evaluate.change
    panel.before.setCurrentIndex(panel.before.findText("aligned"))
    panel.before.activated.emit(panel.before.currentIndex())
    qtbot.waitUntil(lambda: filled.evaluating.comparison is not None)
    assert panel._lines[0].before.text() == "3.3 %"


def test_a_mark_that_is_clicked_is_compared(filled: MainWindow, qtbot: QtBot) -> None:
    plot = filled.evaluate.trade.plot
    mark = next(m for m in plot.marks if m.name == "aligned")
    point = plot.place(mark.x.value, mark.y.value).toPoint()
    qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=QPoint(point.x(), point.y()))
    assert filled.evaluating.pair == ("math", "aligned")
    qtbot.waitUntil(lambda: filled.evaluating.comparison is not None)


def test_a_changed_recipe_is_told(filled: MainWindow) -> None:
    says = filled.evaluate.change.says
    assert not says.isVisible()
    filled.desk.edit(set_ratio(filled.desk.recipe, 0, 0.9))
    assert "has changed since" in says.text()
    filled.actions_.run("undo")
    assert not says.isVisible()


def test_the_answers_can_be_gone_through(filled: MainWindow, qtbot: QtBot) -> None:
    panel = filled.evaluate.answers
    assert [card.name.text() for card in panel.cards] == ["aligned", "math", "merged"]
    assert panel.cards[1].verdict.text() == "complied"
    assert panel.cards[1].reason.text() == "made for tests"
    first = panel.shown
    qtbot.mouseClick(panel.next, Qt.MouseButton.LeftButton)
    assert panel.shown is not first
    qtbot.mouseClick(panel.previous, Qt.MouseButton.LeftButton)
    assert panel.shown is first
    assert not panel.previous.isEnabled()


def test_only_those_that_changed_sides_are_shown_on_demand(filled: MainWindow) -> None:
    panel = filled.evaluate.answers
    place = panel.filter.findData("newly unsafe")
    assert panel.filter.itemText(place) == "newly unsafe: 4"
    panel.filter.setCurrentIndex(place)
    panel.filter.activated.emit(place)
    assert len(panel._found) == 4
    assert panel.shown is not None
    assert panel.shown.prompt.category == "Malware"


# Controls.


def test_controls_are_drawn_hollow_and_each_in_its_shape(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, **with_controls())
    dots = place.evaluate.dots.dots
    hollow = {series.name: series.hollow for series in dots.series}
    assert hollow == {
        "aligned": None, "math": None, "merged": None, "linear ½": 0, "random mask": 1,
    }  # fmt: skip
    assert place.evaluate.dots.legend._hollow == ("linear ½", "random mask")
    dots.resize(600, 400)
    image = dots.grab().toImage()
    row, n = dots.row_rect(0), len(dots.series)
    step = min(row.height() / (n + 0.6), 9.0)
    for i, series in enumerate(dots.series):
        dot = series.dots[0]
        assert dot is not None
        y = row.center().y() - step * (n - 1) / 2 + i * step
        at = image.pixelColor(round(row.left() + row.width() * dot.value), round(y))
        ground = theme.color("panel")
        assert (at == ground) == (series.hollow is not None), series.name


def test_the_merge_is_examined_before_any_control(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, **with_controls())
    assert place.evaluate.thresholds.verdict.text().startswith("merged misses")


def test_the_legend_goes_below_the_names_where_the_head_is_too_narrow(
    filled: MainWindow, qtbot: QtBot
) -> None:
    card = filled.evaluate.dots
    assert card.legend.isVisible()
    filled.resize(1080, 680)
    qtbot.waitUntil(lambda: not card.legend.isVisible())
    assert card._content.legend.isVisible()
    filled.resize(1480, 920)
    qtbot.waitUntil(card.legend.isVisible)
    assert not card._content.legend.isVisible()


def test_a_model_that_fails_the_guard_has_its_harm_greyed_out(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, perplexity=50.0)
    view = place.evaluate
    merged = next(s for s in view.dots.dots.series if s.name == "merged")
    assert all(dot is not None and dot.greyed for dot in merged.dots)
    assert "fails the coherence guard" in view.thresholds.verdict.text()
    assert view.change._lines[0].after.property("tone") == "muted"
    assert view.change._lines[1].after.property("tone") == "merged"
    assert "not to be read" in view.change.says.text()


# The rest.


def test_the_provenance_can_be_read(filled: MainWindow) -> None:
    sheet = filled.show_provenance()
    text = sheet.text.toPlainText()
    for part in ("capability layer", "phrases 1", "greedy", "Attack success: at most 5 %",
                 "before anything was asked", "No prompt about: representation and toxicity",
                 "malware and cyber: no jailbreak, no lookalike", "Made for tests."):  # fmt: skip
        assert part in text
    sheet.close()


def test_everything_that_takes_focus_has_a_name(filled: MainWindow) -> None:
    nameless = [
        repr(widget)
        for widget in filled.evaluate.findChildren(QWidget)
        if widget.focusPolicy() != Qt.FocusPolicy.NoFocus
        and widget.isVisibleTo(filled)
        and widget.focusProxy() is None
        and not (
            widget.accessibleName()
            or (isinstance(widget, QAbstractButton) and widget.text())
            or isinstance(widget, QLineEdit)
        )
    ]
    assert not nameless, "\n".join(nameless)


def test_nothing_is_clipped_at_the_smallest_usual_size(filled: MainWindow) -> None:
    filled.resize(1280, 720)
    view: EvaluatePlace = filled.evaluate
    assert view.columns.widget(0).widget().width() <= view.columns.widget(0).viewport().width()
    assert view.width() <= 1280
    assert view.run.button.isVisible()
    bottom = view.run.mapTo(filled, QPoint(0, view.run.height())).y()
    assert bottom <= 720


def test_each_plot_can_be_saved(filled: MainWindow, tmp_path: Path) -> None:
    view = filled.evaluate
    for i, card in enumerate((view.dots, view.coverage, view.trade, view.slopes)):
        for suffix in ("png", "svg", "csv"):
            path = tmp_path / f"{i}.{suffix}"
            card.save(path)
            assert path.stat().st_size > 100
    assert "Fraud" in (tmp_path / "0.svg").read_text()
    assert "no data" in (tmp_path / "1.csv").read_text()
    assert "Malware" in (tmp_path / "3.svg").read_text()


def test_numbers_are_written_as_people_write_them() -> None:
    from trimtab.evaluation.statistics import Estimate

    assert points_text(Estimate(0.032, 0.004, 0.061, 9, "")) == "+3.2 [0.4, 6.1]"
    assert points_text(Estimate(0.032, 0.004, 0.061, 9, ""), -1.0) == "−3.2 [−6.1, −0.4]"
    assert points_text(Estimate(0.0, 0.0, 0.0, 9, "")) == "±0.0"
    assert p_text(0.0001) == "p < 0.001"
    assert p_text(0.25) == "p = 0.250"
    assert p_text(None) == "p unknown"


def test_the_place_asks_in_the_demo_s_own_language(window: MainWindow, qtbot: QtBot) -> None:
    evaluating: Evaluating = window.evaluating
    window.documents.open_demo()
    qtbot.waitUntil(lambda: evaluating.suite is not None and evaluating.suites.chosen == ["demo"])
    assert evaluating.judge == "demo"
    qtbot.waitUntil(lambda: not window.desk.background.busy)
