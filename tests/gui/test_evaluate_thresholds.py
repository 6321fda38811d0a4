"""Thresholds in the window: set before, kept, judged, and what is said where they were not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluate_fixtures import filled, finish, place
from evaluations import results
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.evaluation.thresholds import Threshold
from trimtab_gui.bounds import DEFAULTS, load_bounds
from trimtab_gui.main_window import MainWindow
from trimtab_gui.session import Session

__all__ = ["filled", "lineup_paths", "make_window", "place", "window", "workbench"]


def test_thresholds_set_before_are_judged(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> None:
    place.evaluating.set_bound("attack_success", 0.6)
    place.evaluating.set_bound("over_refusal", 0.1)
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot)
    panel = place.evaluate.thresholds
    assert panel.verdict.text() == "merged misses 1 of 3 thresholds."
    marks = {key: row.mark.accessibleName() for key, row in panel._rows.items()}
    assert marks == {
        "attack_success": "kept", "over_refusal": "missed", "utility": "kept", "coherence": "kept",
    }  # fmt: skip
    tip = panel._rows["over_refusal"].mark.toolTip()
    assert tip == "missed\n20 % [5.67, 51]: the interval reaches across the bound"


def test_thresholds_changed_after_the_answers_were_seen_are_not_judged(filled: MainWindow) -> None:
    panel = filled.evaluate.thresholds
    assert "misses" in panel.verdict.text()
    panel.fields["attack_success"].setValue(90.0)
    assert panel.verdict.text() == "Changed after the answers were seen: judged at the next run."
    assert filled.evaluating.bounds.bounds[0] == Threshold("attack_success", "<=", 0.9)
    panel.fields["attack_success"].setValue(5.0)
    assert "misses" in panel.verdict.text()


def test_answers_that_were_known_before_are_told(
    place: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    place.actions_.run("evaluate")
    targets = tuple(replace(target, cached=True) for target in results().targets)
    finish(place, tmp_path, qtbot, targets=targets)
    assert place.evaluate.thresholds.verdict.text().endswith(
        "Some answers were known before the thresholds were set."
    )


def test_thresholds_are_fixed_while_the_run_goes_on(place: MainWindow) -> None:
    place.actions_.run("evaluate")
    panel = place.evaluate.thresholds
    assert not any(f.isEnabled() for f in panel.fields.values())
    assert not panel.further.isEnabled()
    assert panel.verdict.text() == "Fixed now, until the run has ended."


def test_another_number_can_be_bounded(place: MainWindow, tmp_path: Path, qtbot: QtBot) -> None:
    panel = place.evaluate.thresholds
    action = next(a for a in panel.further.menu().actions() if a.text() == "Perplexity")
    action.trigger()
    field = panel.fields["perplexity"]
    assert field.suffix() == ""
    assert field.text() == "none"
    field.setValue(9.5)
    assert place.evaluating.params("core")["thresholds"][-1] == "perplexity <= 9.5"
    place.actions_.run("evaluate")
    finish(place, tmp_path, qtbot, perplexity=8.0)
    assert panel._rows["perplexity"].mark.accessibleName() == "kept"
    field.setValue(field.minimum())
    assert len(place.evaluating.bounds.bounds) == 3


def test_thresholds_come_back_with_the_moment_they_were_set(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path]
) -> None:
    first = make_window()
    first.evaluating.set_bound("utility", None)
    first.evaluating.set_bound("refusal", 0.9)
    kept = first.evaluating.bounds
    first.shut_down()
    second = make_window()
    assert second.evaluating.bounds == kept
    assert [str(b) for b in kept.bounds] == [
        "attack_success <= 0.05", "over_refusal <= 0.1", "refusal >= 0.9",
    ]  # fmt: skip
    assert second.evaluate.thresholds.fields["refusal"].value() == 90.0
    assert second.evaluate.thresholds.fields["utility"].text() == "none"


@pytest.mark.parametrize(
    "kept", [None, 3, {}, {"bounds": ["x"], "set_at": "2026-01-01T00:00:00+00:00"},
             {"bounds": [], "set_at": "yesterday"}, {"bounds": [], "set_at": "2026-01-01"}],
)  # fmt: skip
def test_kept_thresholds_that_are_damaged_are_the_usual_ones(tmp_path: Path, kept: Any) -> None:
    session = Session(tmp_path)
    session.set("bounds", kept)
    assert load_bounds(session) == DEFAULTS
