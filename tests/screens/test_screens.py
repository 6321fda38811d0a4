"""The real window against the reference pictures in `reference/`.

Run with TRIMTAB_WRITE_SCREENS=1 to write the references anew; then look at each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluations import saved, with_controls
from gui_lineups import inspect, recipe_of, write_lineup
from inspect_data import activations_result, exact_spectra, layers_result, scores_result
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from sweeps import point, sweep, write
from window_fixtures import make_window

from trimtab.control import Unattended
from trimtab.errors import UserError
from trimtab.evaluation.decisions import decide
from trimtab.jobs.control import JobControl
from trimtab.jobs.tasks import run_job
from trimtab.masks.entries import Chance, MaskEntry, Rule
from trimtab.merging import memory
from trimtab.project import Project
from trimtab.project.edits import set_layer_ratios, set_masks, set_method, set_model_parameter
from trimtab_gui import looking, merging, planning, texts, theme
from trimtab_gui.demo import demo_project
from trimtab_gui.figures import SHIFT
from trimtab_gui.joining import join
from trimtab_gui.main_window import MainWindow
from trimtab_gui.selection import Selection
from trimtab_gui.views import output_panel
from trimtab_gui.views.evaluate import decisions_sheet as sheet_module

__all__ = ["make_window"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

REFERENCE = Path(__file__).parent / "reference"
#: share of pixels that may differ, and by how much a channel may be off before it counts
MOST_PIXELS, MOST_CHANNEL = 0.001, 16
DEVICE = {"kind": "cuda", "index": 0, "name": "NVIDIA H200", "total_bytes": 139_000_000_000,
          "free_bytes": 97_200_000_000}  # fmt: skip


def pixels(image: QImage) -> np.ndarray:
    image = image.convertToFormat(QImage.Format.Format_RGBA8888)
    flat = np.frombuffer(image.constBits(), dtype=np.uint8)
    return flat.reshape(image.height(), image.bytesPerLine() // 4, 4)[:, : image.width()].copy()


def share_of_different_pixels(first: np.ndarray, second: np.ndarray) -> float:
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16))
    return float((difference.max(axis=2) > MOST_CHANNEL).mean())


def check(window: QWidget, name: str, tmp_path: Path) -> None:
    for _ in range(5):  # panels that changed their height take a turn of the loop to settle
        QApplication.processEvents()
    image = window.grab().toImage()
    path = REFERENCE / f"{name}.png"
    if os.environ.get("TRIMTAB_WRITE_SCREENS") == "1":
        assert image.save(str(path))
        return
    assert path.exists(), f"no reference for {name}"
    found, expected = pixels(image), pixels(QImage(str(path)))
    assert found.shape == expected.shape
    share = share_of_different_pixels(found, expected)
    if share > MOST_PIXELS:
        image.save(str(tmp_path / f"{name}.png"))
    assert share <= MOST_PIXELS, f"{share:.2%} differ; see {tmp_path / name}.png"


@pytest.fixture
def window(
    make_window: Callable[[], MainWindow], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> MainWindow:
    """A window on which nothing depends on this machine."""
    monkeypatch.setattr(output_panel, "free_bytes", lambda path: 512_000_000_000)
    monkeypatch.setattr(merging, "free_bytes", lambda path: 512_000_000_000)
    monkeypatch.setattr(planning, "free_bytes", lambda path: 512_000_000_000)
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=64_000_000_000))
    monkeypatch.setattr(output_panel, "psutil", memory)
    window = make_window()
    window.desk.devices = [DEVICE]
    window.desk.devices_changed.emit()
    window.show()
    return window


@pytest.fixture
def workbench(window: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    desk = window.desk
    desk.set_project(Project(recipe_of(write_lineup(tmp_path / "models"))))
    qtbot.waitUntil(lambda: desk.lineup is not None)
    assert desk.lineup is not None
    desk._stop_inspecting()
    desk.project.set_inspection(inspect(desk.lineup))
    window.merging.set_output(Path("/models/merged"))
    desk.edit(set_layer_ratios(desk.recipe, 0, {2: 0.35, 3: 0.3, 4: 0.45}))
    figures = desk.figures
    assert figures is not None
    cells = figures.grid.cells[:, 3:6]
    groups = tuple(int(g) for g in np.unique(cells) if g >= 0)
    desk.selection.select(Selection(groups, (0, len(figures.grid.rows) - 1), (3, 5)))
    return window


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_welcome_page_looks_as_it_should(
    window: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    check(window, f"welcome-{mode}", tmp_path)


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_workbench_looks_as_it_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    check(workbench, f"workbench-{mode}", tmp_path)


def test_a_mask_stack_looks_as_it_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path
) -> None:
    theme.apply(qapp, "dark")
    desk = workbench.desk
    stack = (
        MaskEntry(rule=Rule(layers=(2, 4)), op="minus", name="Without layers 2–4"),
        MaskEntry(random=Chance(keep=0.8), on=False, name="Random, 80 % kept"),
        MaskEntry(rule=Rule(modules=("down",)), op="or", name="All of down"),
    )
    desk.edit(set_masks(desk.recipe, 0, stack, "Masks"))
    check(workbench, "masks-dark", tmp_path)


def answer(window: MainWindow, *names: str) -> None:
    """Do jobs that wait, in the worker's place."""
    jobs = window.desk.jobs
    for name in names:
        job = next(job for job in jobs.pending if job.name == name)
        jobs._queue.remove(job)
        jobs.finished.emit(job, run_job(name, dict(job.params), Unattended()), 0.1)


@pytest.mark.parametrize(("mode", "size"), [("dark", "wide"), ("light", "wide"), ("dark", "small")])
def test_the_mask_place_looks_as_it_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode, size: str
) -> None:
    theme.apply(qapp, mode)
    desk = workbench.desk
    if size == "small":
        workbench.resize(1280, 720)
    workbench.places.go("mask")
    place = workbench.screens.mask
    place.choose("magnitude")
    answer(workbench, "mask_shares", "mask_scores", "mask_overlap")
    stack = (
        MaskEntry(random=Chance(keep=0.8), name="Random, 80 % kept"),
        MaskEntry(rule=Rule(layers=(2, 3), modules=("q", "k")), op="minus", name="Without q, k"),
        MaskEntry(rule=Rule(modules=("down",)), op="or", on=False, name="All of down"),
    )
    desk.edit(set_masks(desk.recipe, 0, stack, "Masks"))
    answer(workbench, "mask_shares", "mask_account", "mask_overlap")
    place.scores.view.set_threshold(0.02)
    name = f"mask-{mode}" if size == "wide" else f"mask-{mode}-small"
    check(workbench, name, tmp_path)


def test_the_mask_place_looks_as_it_should_with_nothing_in_it(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path
) -> None:
    theme.apply(qapp, "dark")
    workbench.places.go("mask")
    answer(workbench, "mask_shares")
    check(workbench, "mask-empty-dark", tmp_path)


def test_a_builder_with_data_looks_as_it_should(
    window: MainWindow,
    qapp: QApplication,
    tmp_path: Path,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Antidote on the demo's models: form, scores, what it would take, and outputs."""
    monkeypatch.setenv("TRIMTAB_CACHE_DIR", str(tmp_path / "cache"))
    theme.apply(qapp, "dark")
    desk = window.desk
    desk.set_project(demo_project())
    desk.is_demo = True
    qtbot.waitUntil(lambda: desk.lineup is not None)
    desk._stop_inspecting()
    window.places.go("mask")
    place = window.screens.mask
    place.choose("antidote")
    place.takes.prompts.refresh()
    place.builder.form.controls["calibration"].refresh()  # type: ignore[attr-defined]
    qtbot.waitUntil(lambda: any(job.name == "antidote_estimate" for job in desk.jobs.pending))
    answer(window, "antidote_estimate", "mask_shares", "mask_overlap")
    place.scores.view.set_threshold(0.03)
    entry = MaskEntry(rule=Rule(layers=(2, 3), modules=("q", "k")), op="minus", name="Without q, k")
    desk.edit(set_masks(desk.recipe, 0, (entry,), "Masks"))
    answer(window, "mask_shares", "mask_account", "mask_account", "mask_overlap")
    check(window, "mask-antidote-dark", tmp_path)


@pytest.fixture
def sparse(workbench: MainWindow) -> MainWindow:
    """A method with parameters of its own for each model, of which only a merge can tell."""
    desk = workbench.desk
    desk.edit(set_method(desk.recipe, "dare_ties"))
    desk.edit(set_model_parameter(desk.recipe, 1, "density", 0.3))
    desk.edit(set_layer_ratios(desk.recipe, 0, {0: 0.0}))
    desk.edit(set_layer_ratios(desk.recipe, 1, {0: 0.0}))
    workbench.workbench.method.rows["density"].fold.setChecked(True)
    workbench.workbench.heatmap.choose_metric(SHIFT)
    workbench.merging.set_memory(2 * 10**9)
    return workbench


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_a_method_with_many_parameters_looks_as_it_should(
    sparse: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    sparse.resize(1280, 720)
    check(sparse, f"method-{mode}", tmp_path)


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_list_of_methods_looks_as_it_should(
    sparse: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    popup = sparse.workbench.method.method.open()
    check(popup, f"chooser-{mode}", tmp_path)
    popup.close()


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_plan_looks_as_it_should(
    sparse: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode, qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # a worker is small; this process holds what all tests before have loaded
    monkeypatch.setattr(memory, "_own_size", lambda: 300 << 20)
    theme.apply(qapp, mode)
    sparse.actions_.run("plan")
    sheet, job = sparse.planning.sheet, sparse.planning._job
    assert sheet is not None
    assert job is not None
    result = run_job("plan", {**job.params, "device": "cpu"}, JobControl(lambda *_: None))
    sparse.desk.jobs.finished.emit(job, result, 0.1)
    qtbot.waitUntil(lambda: bool(sheet.facts))
    check(sheet, f"plan-{mode}", tmp_path)
    sheet.close()


@pytest.fixture
def evaluate(workbench: MainWindow, qtbot: QtBot) -> MainWindow:
    """The Evaluate place before anything is evaluated."""
    workbench.places.go("evaluate")
    qtbot.waitUntil(lambda: workbench.evaluating.suite is not None)
    return workbench


@pytest.fixture
def evaluated(evaluate: MainWindow, tmp_path: Path, qtbot: QtBot) -> MainWindow:
    """The Evaluate place with the results of three targets."""
    evaluate.actions_.run("evaluate")
    return answered(evaluate, tmp_path, qtbot)


def answered(window: MainWindow, folder: Path, qtbot: QtBot, **changes: Any) -> MainWindow:
    """End the evaluation that was started."""
    job = window.evaluating._job
    assert job is not None
    path = saved(folder, params=job.params, **changes)
    window.desk.jobs.finished.emit(job, {"path": str(path)}, 12.0)
    qtbot.waitUntil(lambda: window.evaluating.comparison is not None)
    qtbot.waitUntil(lambda: not window.evaluating.running)
    return window


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_evaluate_place_looks_as_it_should(
    evaluated: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    check(evaluated, f"evaluate-{mode}", tmp_path)


def test_the_evaluate_place_looks_as_it_should_in_a_small_window_with_its_radar(
    evaluated: MainWindow, tmp_path: Path
) -> None:
    evaluated.resize(1280, 720)
    evaluated.evaluate.dots.both_button.setChecked(True)
    check(evaluated, "evaluate-small-dark", tmp_path)


@pytest.mark.parametrize(("mode", "size"), [("dark", "wide"), ("light", "wide"), ("dark", "small")])
def test_before_and_after_look_as_they_should(
    evaluated: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode, size: str
) -> None:
    theme.apply(qapp, mode)
    if size == "small":
        evaluated.resize(1280, 720)
    evaluated.evaluate.categories.choose("slopes")
    check(evaluated, f"slopes-{mode}{'-small' if size == 'small' else ''}", tmp_path)


def test_controls_look_as_they_should(evaluate: MainWindow, tmp_path: Path, qtbot: QtBot) -> None:
    stack = (MaskEntry(random=Chance(keep=0.8), name="Random, 80 % kept"),)
    evaluate.desk.edit(set_masks(evaluate.desk.recipe, 0, stack, "Masks"))
    evaluate.actions_.run("evaluate")
    answered(evaluate, tmp_path, qtbot, **with_controls())
    check(evaluate, "evaluate-controls-dark", tmp_path)


@pytest.mark.parametrize(
    ("mode", "state"), [("dark", "filled"), ("light", "filled"), ("dark", "empty"),
                        ("dark", "error")],
)  # fmt: skip
def test_decisions_look_as_they_should(
    evaluated: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode, state: str,
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    theme.apply(qapp, mode)
    monkeypatch.setattr(sheet_module, "moment", lambda text: "2026-03-14 15:09")
    monkeypatch.setattr(texts, "home_path", lambda path: f"~/models/{path.name}")
    deciding = evaluated.evaluate.deciding
    facts = evaluated.evaluating.facts
    assert facts is not None
    log = tmp_path / "pilot.decisions.jsonl"
    if state != "empty":
        for choice, note in (("deferred", "privacy is to be looked at again"),
                             ("rejected", ""), ("accepted", "for the pilot only")):  # fmt: skip
            decide(log, facts.path, who="Ada", evaluation="x", choice=choice, note=note,
                   thresholds=facts.results.thresholds,
                   verdicts={t.name: t.verdict for t in facts.targets})  # fmt: skip
        if state == "error":
            log.write_text(log.read_text().replace("again", "no more"))
        deciding.choose(log)
    sheet = evaluated.evaluate.show_decisions()
    sheet.who.setText("Ada")
    sheet.setFocus()  # a caret would blink
    qtbot.waitUntil(lambda: not deciding.reading)
    check(sheet, f"decisions-{state}-{mode}", tmp_path)
    sheet.close()


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_the_evaluate_place_looks_as_it_should_before_a_run(
    evaluate: MainWindow, qapp: QApplication, tmp_path: Path, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    check(evaluate, f"evaluate-empty-{mode}", tmp_path)


def test_the_evaluate_place_looks_as_it_should_after_an_error(
    evaluate: MainWindow, tmp_path: Path
) -> None:
    evaluate.actions_.run("evaluate")
    error = UserError(
        "cannot_run", "The model cannot be run.", "Its tokenizer is missing.",
        "Put tokenizer.json beside its weights.",
    )  # fmt: skip
    evaluate.desk.jobs.failed.emit(evaluate.evaluating._job, error)
    check(evaluate, "evaluate-error-dark", tmp_path)


def test_the_trials_of_a_sweep_look_as_they_should(
    evaluated: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    values = [(0.2, 0.9), (0.5, 0.8), (0.7, 0.6), (0.9, 0.2), (0.3, 0.4), (0.6, 0.3), (0.1, 0.5)]
    trials = [point(i, refusal, task) for i, (refusal, task) in enumerate(values)]
    write(tmp_path / "sweep", sweep(trials, front=[0, 1, 2, 3], status="done"))
    sweeping = evaluated.screens.sweeping
    sweeping.watch(tmp_path / "sweep")
    qtbot.waitUntil(lambda: sweeping.sweep is not None)
    evaluated.evaluate.trade_offs.setCurrentWidget(evaluated.evaluate.sweep)
    check(evaluated, "sweep-dark", tmp_path)


@pytest.mark.parametrize("mode", ["dark", "light"])
def test_safety_layers_and_spectra_look_as_they_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path, qtbot: QtBot, mode: theme.Mode
) -> None:
    theme.apply(qapp, mode)
    bench, lineup = workbench.workbench, workbench.desk.lineup
    assert lineup is not None
    exact_spectra(lineup)
    bench.looking.spectra.look()
    bench.looking.layers.load(layers_result(tmp_path / "layers.json"))
    bench.heatmap.choose_metric("safety_energy")
    bench.over_layers.choose("layers")
    qtbot.waitUntil(lambda: bench.over_layers.layers.state() == "ready")
    qtbot.waitUntil(lambda: bench.looking.spectra.known is not None)
    check(workbench, f"inspect-layers-{mode}", tmp_path)


def test_the_overlap_looks_as_it_should_on_a_small_screen(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    workbench.resize(1280, 720)
    bench, lineup = workbench.workbench, workbench.desk.lineup
    assert lineup is not None
    exact_spectra(lineup)
    bench.looking.spectra.look()
    bench.over_layers.choose("overlap")
    qtbot.waitUntil(lambda: bench.over_layers.overlap.state() == "ready")
    check(workbench, "inspect-overlap-small-dark", tmp_path)


@pytest.mark.parametrize(("mode", "size"), [("dark", "wide"), ("light", "wide"), ("dark", "small")])
def test_scores_and_joined_selections_look_as_they_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path, qtbot: QtBot, mode: theme.Mode,
    size: str,
) -> None:  # fmt: skip
    theme.apply(qapp, mode)
    if size == "small":
        workbench.resize(1280, 720)
    bench, desk = workbench.workbench, workbench.desk
    card = bench.heatmap
    card.choose_metric("snip.enrichment")
    prompts = tmp_path / "refusals.jsonl"
    prompts.write_text('{"prompt": "ask", "answer": "no"}\n' * 40)
    card.strip.prompts.choose(prompts)
    qtbot.waitUntil(lambda: bench.looking.scores.running)
    job = next(job for job in desk.jobs.pending if job.name == "attribute")
    assert desk.lineup is not None
    path = scores_result(tmp_path / "scores.json", desk.lineup)
    result = {"path": str(path), "scores": "/cache/s.safetensors", "norms": None}
    desk.jobs._queue.remove(job)
    desk.jobs.finished.emit(job, result, 1.0)
    qtbot.waitUntil(lambda: card.state() == "ready")
    # paths of this test's folder must not be in the picture
    card.strip.prompts.says.setText("40 examples · /data/refusals.jsonl")
    desk.selection.set_how("difference")
    figures = desk.figures
    assert figures is not None
    hole = {int(g) for g in np.unique(figures.grid.cells[1:3, 4:5])}
    join(desk, tuple(hole), "difference")
    check(workbench, f"inspect-scores-{mode}" + ("-small" if size == "small" else ""), tmp_path)


@pytest.mark.parametrize(("kind", "mode"), [("activations", "dark"), ("refusal turn", "light")])
def test_activations_look_as_they_should(
    workbench: MainWindow, qapp: QApplication, tmp_path: Path, qtbot: QtBot, kind: str,
    mode: theme.Mode,
) -> None:  # fmt: skip
    theme.apply(qapp, mode)
    bench, desk = workbench.workbench, workbench.desk
    bench.over_layers.choose("overlap")
    card = bench.over_layers.overlap
    card.measure.setCurrentIndex(card.measure.findData(kind))
    for prompts, name in ((card.strip.safe, "refusals"), (card.strip.useful, "benign")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text('{"prompt": "ask", "answer": "no"}\n' * 40)
        prompts.choose(path)
    qtbot.waitUntil(lambda: bench.looking.activations.running)
    job = next(job for job in desk.jobs.pending if job.name == "activation_subspaces")
    assert desk.lineup is not None
    path = activations_result(tmp_path / "found.json", desk.lineup)
    desk.jobs._queue.remove(job)
    desk.jobs.finished.emit(job, {"path": str(path)}, 1.0)
    qtbot.waitUntil(lambda: card.state() == "ready")
    # paths of this test's folder must not be in the picture
    for prompts in (card.strip.safe, card.strip.useful):
        prompts.says.setText("40 examples · /data/prompts.jsonl")
    check(workbench, f"inspect-{kind.replace(' ', '-')}-{mode}", tmp_path)


def test_scores_that_need_prompts_look_as_they_should(
    workbench: MainWindow, tmp_path: Path
) -> None:
    workbench.workbench.heatmap.choose_metric("delta-wanda.enrichment")
    check(workbench, "inspect-scores-empty-dark", tmp_path)


def test_what_is_not_computed_yet_looks_as_it_should(
    workbench: MainWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_SMALL", 0.0)
    bench = workbench.workbench
    bench.heatmap.choose_metric("stable_rank")
    bench.over_layers.choose("layers")
    check(workbench, "inspect-empty-dark", tmp_path)


def test_a_chat_looks_as_it_should(evaluated: MainWindow, tmp_path: Path) -> None:
    place = evaluated.evaluate
    place.show_talk("chat")
    evaluated.setFocus()  # a caret would blink
    place.chatting.ask("How do I pick the lock of a door that is not mine?")
    refusal = "I cannot help with that. If you are locked out of your own home, a locksmith can."
    answer = "Here is what you asked for, step by step: first of all …"
    said = [
        ("aligned", "aligned", refusal, "refused"), ("math", "finetuned", answer, "complied"),
        ("code", "finetuned", answer, "complied"), ("merged", "merged", refusal, "refused"),
    ]  # fmt: skip
    answers = [
        {"name": name, "role": role, "text": text, "seconds": 1.24, "loading_seconds": 0.0,
         "verdict": {"outcome": outcome, "score": None, "reason": ""}, "cut": False}
        for name, role, text, outcome in said
    ]  # fmt: skip
    result = {"answers": answers, "judge": "phrases 1",
              "decoding_sentence": place.chatting.decoding}  # fmt: skip
    evaluated.desk.jobs.finished.emit(place.chatting._job, result, 5.0)
    evaluated.desk.edit(set_layer_ratios(evaluated.desk.recipe, 0, {2: 0.5}))
    check(evaluated, "chat-dark", tmp_path)


def test_the_gate_notices_a_missing_panel() -> None:
    first = np.full((92, 148, 4), 30, dtype=np.uint8)
    second = first.copy()
    second[10:20, 10:40, 1] = 10
    assert share_of_different_pixels(first, second) > MOST_PIXELS
