"""Scores of weights as a metric of the heatmap: asked for, drawn beside chance, kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspect_data import scores_result
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab_gui import scores_found
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.views.heatmap_card import HeatmapCard
from trimtab_gui.views.mask.prompt_set import PromptSet

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def card(workbench: MainWindow, monkeypatch: pytest.MonkeyPatch) -> HeatmapCard:
    """The heatmap over models that are too large to be scored without a question."""
    monkeypatch.setattr(scores_found, "LIGHT", 0)
    return workbench.workbench.heatmap


def choose_prompts(card: HeatmapCard, path: Path, qtbot: QtBot, count: int = 40) -> Path:
    lines = [json.dumps({"prompt": f"ask {k}", "answer": "no"}) for k in range(count)]
    path.write_text("\n".join(lines))
    card.strip.prompts.choose(path)
    qtbot.waitUntil(lambda: card.strip.prompts.path == str(path))
    return path


def pending(window: MainWindow) -> Job:
    return next(job for job in reversed(window.desk.jobs.pending) if job.name == "attribute")


def finish(window: MainWindow, path: Path, **changes: Any) -> None:
    job = pending(window)
    window.desk.jobs._queue.remove(job)
    result = {"path": str(path), "cached": False, "scores": "/s.safetensors", "norms": None}
    window.desk.jobs.finished.emit(job, {**result, **changes}, 1.0)


def remarks(card: HeatmapCard) -> dict[str, str]:
    return {e.key: e.objection for e in card.metric_box.entries() if "." in e.key}


def test_until_prompts_are_chosen_the_list_and_the_card_say_what_is_needed(
    card: HeatmapCard,
) -> None:
    found = remarks(card)
    assert len(found) == 12  # four scores, each summed up in three ways
    assert set(found.values()) == {"needs prompts"}
    assert card.strip.isHidden()
    card.choose_metric("snip.enrichment")
    assert not card.strip.isHidden()
    assert card.state() == "empty"
    assert "prompts with their answers" in card.notice()[0]
    assert not card.strip.start_button.isEnabled()
    card.choose_metric("relative")
    assert card.strip.isHidden()
    assert card.state() == "ready"


def test_modes_are_named_in_the_title_and_tell_their_own_formula(card: HeatmapCard) -> None:
    card.choose_metric("wanda.share")
    titles = {}
    for k in range(card.strip.mode.count()):
        card.strip.mode.setCurrentIndex(k)
        titles[card.metric_box.text()] = card._formula[2]
    assert len(set(titles.values())) == 3
    for mode in ("paper", "authors' code", "ours"):
        assert f"Wanda, share of the top 1 % ({mode})" in titles
    card.choose_metric("snip.share")
    assert card.metric_box.text() == "SNIP, share of the top 1 % (authors' code)"
    assert not card.strip.mode.isEnabled()
    card.choose_metric("wanda.share")  # gradients have one mode, and it did not replace the other
    assert card.strip.mode.currentData() == "ours"


def test_the_job_is_asked_for_what_is_chosen(
    workbench: MainWindow, card: HeatmapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    card.choose_metric("delta-wanda.mean")
    path = choose_prompts(card, tmp_path / "mine.jsonl", qtbot)
    assert remarks(card)["delta-wanda.mean"] == "not computed yet"
    card.strip.mode.setCurrentIndex(card.strip.mode.findData("paper"))
    card.strip.share.setCurrentIndex(card.strip.share.findData(0.05))
    workbench.desk.set_active(1)
    text, button = card.notice()
    assert "of weights" in text
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    job = pending(workbench)
    wanted = {
        "model": "code", "score": "delta-wanda", "mode": "paper", "calibration": str(path),
        "share": 0.05, "limit": 128,
    }  # fmt: skip
    assert {key: job.params[key] for key in wanted} == wanted
    assert card.state() == "loading"
    assert not card.strip.stop_button.isHidden()
    qtbot.mouseClick(card.strip.stop_button, Qt.MouseButton.LeftButton)
    assert card.state() == "empty"
    assert not workbench.workbench.looking.scores.running


def test_light_models_are_scored_without_a_question(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    card = workbench.workbench.heatmap
    choose_prompts(card, tmp_path / "mine.jsonl", qtbot)
    assert not [job for job in workbench.desk.jobs.pending if job.name == "attribute"]
    card.choose_metric("fisher.mean")
    assert pending(workbench).params["score"] == "fisher"
    first = pending(workbench)
    card.choose_metric("wanda.mean")  # what is no longer looked at is given up
    assert pending(workbench).params["score"] == "wanda"
    assert first not in workbench.desk.jobs.pending


@pytest.fixture
def scored(workbench: MainWindow, card: HeatmapCard, tmp_path: Path, qtbot: QtBot) -> HeatmapCard:
    card.choose_metric("snip.enrichment")
    choose_prompts(card, tmp_path / "mine.jsonl", qtbot)
    qtbot.mouseClick(card.strip.start_button, Qt.MouseButton.LeftButton)
    assert workbench.desk.lineup is not None
    finish(workbench, scores_result(tmp_path / "scores.json", workbench.desk.lineup))
    qtbot.waitUntil(lambda: card.state() == "ready")
    return card


def cell(card: HeatmapCard, module: str, layer: str) -> int:
    view = card.view
    return int(view.grid.ids[view.row_labels.index(module), view.columns.index(layer)])


def test_each_summary_is_drawn_beside_what_chance_gives(scored: HeatmapCard) -> None:
    # layer n holds n of the 7 (0+1+…+5) of each module's highest, and a sixth of the entries
    view = scored.view
    assert view.values[cell(scored, "q", "3")] == pytest.approx(3 / 15 * 6)
    assert np.isnan(view.values[cell(scored, "norm", "3")])
    assert view.values[cell(scored, "q", "0")] == 0.0
    assert "(chance 1.00)" in scored._readout(cell(scored, "q", "3"))
    scored.choose_metric("snip.share")
    assert view.values[cell(scored, "q", "3")] == pytest.approx(3 / 105)
    assert "(chance 0.0238)" in scored._readout(cell(scored, "q", "3"))
    scored.choose_metric("snip.mean")
    assert view.values[cell(scored, "q", "3")] == 4.0
    assert "chance" not in scored._readout(cell(scored, "q", "3"))


def test_what_was_asked_for_once_is_not_asked_for_again_while_it_is_read(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    card = workbench.workbench.heatmap
    choose_prompts(card, tmp_path / "mine.jsonl", qtbot)
    card.choose_metric("snip.mean")
    assert workbench.desk.lineup is not None
    finish(workbench, scores_result(tmp_path / "scores.json", workbench.desk.lineup))
    assert not [job for job in workbench.desk.jobs.pending if job.name == "attribute"]
    qtbot.waitUntil(lambda: card.state() == "ready")
    assert not [job for job in workbench.desk.jobs.pending if job.name == "attribute"]
    assert card.strip.stop_button.isHidden()
    assert card.strip.start_button.isHidden()


def test_the_card_says_what_was_scored_on_what(scored: HeatmapCard) -> None:
    strip = scored.strip
    assert strip.said.text() == "40 examples · 2,304 tokens, 896 answers'"
    assert strip.more.text() == "mine · 01234567 · 1.5 s · loss 0.750 nats a token"
    assert "0123456789abcdef" in strip.facts.toolTip()
    assert "SNIP of math, authors' code" in strip.facts.toolTip()
    assert remarks(scored)["snip.mean"] == ""
    assert remarks(scored)["fisher.mean"] == "not computed yet"


def test_scores_belong_to_one_model_one_set_and_one_share(
    workbench: MainWindow, scored: HeatmapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    workbench.desk.set_active(1)
    assert scored.state() == "empty"
    workbench.desk.set_active(0)
    assert scored.state() == "ready"
    scored.strip.share.setCurrentIndex(3)
    assert scored.state() == "empty"
    scored.strip.share.setCurrentIndex(1)
    assert scored.state() == "ready"
    choose_prompts(scored, tmp_path / "others.jsonl", qtbot)
    assert scored.state() == "empty"
    choose_prompts(scored, tmp_path / "mine.jsonl", qtbot)
    assert scored.state() == "ready"  # what was found for others is kept beside it


def test_what_fails_is_said_with_what_helps(
    workbench: MainWindow, card: HeatmapCard, tmp_path: Path, qtbot: QtBot
) -> None:
    card.choose_metric("snip.mean")
    choose_prompts(card, tmp_path / "mine.jsonl", qtbot)
    qtbot.mouseClick(card.strip.start_button, Qt.MouseButton.LeftButton)
    job = pending(workbench)
    workbench.desk.jobs._queue.remove(job)
    error = UserError("no_answers", "The example p1 has no answer.", "Why.", "Give it one.")
    workbench.desk.jobs.failed.emit(job, error)
    assert card.state() == "error"
    assert "The example p1 has no answer." in card.notice()[0]
    qtbot.mouseClick(card.notice()[1], Qt.MouseButton.LeftButton)
    assert workbench.desk.lineup is not None
    damaged = scores_result(tmp_path / "scores.json", workbench.desk.lineup)
    damaged.write_text(damaged.read_text().replace("layers.2", "layers.9"))
    finish(workbench, damaged)
    qtbot.waitUntil(lambda: card.state() == "error")
    assert "other tensors" in card.notice()[0]
    qtbot.mouseClick(card.notice()[1], Qt.MouseButton.LeftButton)
    damaged.write_text("{}")
    finish(workbench, damaged)
    qtbot.waitUntil(lambda: card.state() == "error" and "cannot be read" in card.notice()[0])


@pytest.mark.parametrize(("score", "builder"), [("snip", "difference"), ("fisher", "")])
def test_a_score_leads_to_the_builder_that_goes_by_it(
    workbench: MainWindow, scored: HeatmapCard, tmp_path: Path, qtbot: QtBot,
    score: str, builder: str,
) -> None:  # fmt: skip
    if score != "snip":
        scored.choose_metric(f"{score}.mean")
        qtbot.mouseClick(scored.strip.start_button, Qt.MouseButton.LeftButton)
        assert workbench.desk.lineup is not None
        path = scores_result(tmp_path / "others.json", workbench.desk.lineup, score)
        finish(workbench, path)
        qtbot.waitUntil(lambda: scored.state() == "ready")
    assert scored.strip.mask_button.isHidden() == (not builder)
    if builder:
        qtbot.mouseClick(scored.strip.mask_button, Qt.MouseButton.LeftButton)
        assert workbench.places.current == "mask"
        panel = workbench.screens.mask.builder
        assert panel.chosen == builder
        sets = [c for c in panel.form.controls.values() if isinstance(c, PromptSet)]
        qtbot.waitUntil(lambda: sets[0].path == str(tmp_path / "mine.jsonl"))


def test_another_lineup_knows_nothing_of_the_scores(
    workbench: MainWindow, scored: HeatmapCard
) -> None:
    finding = workbench.workbench.looking.scores
    assert finding.known("snip", 0) is not None
    workbench.desk.lineup_changed.emit()
    assert finding.known("snip", 0) is None
