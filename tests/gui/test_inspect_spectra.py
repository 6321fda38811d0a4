"""Metrics of spectra: offered, computed on demand, and drawn while they arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inspect_data import exact_spectra, half_known, put
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from safetensors.numpy import load_file
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.inspection.spectra import Spectra
from trimtab.inspection.spectral_metrics import SPECTRAL_METRICS
from trimtab_gui import looking
from trimtab_gui.main_window import MainWindow
from trimtab_gui.plots.spectrum import SpectrumCurve, SpectrumPlot
from trimtab_gui.selection import Selection

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


def found_of(bench: MainWindow, qtbot: QtBot) -> Spectra:
    """Compute the spectra, have the window look, and return what it drew from."""
    finding = bench.workbench.looking.spectra
    assert bench.desk.lineup is not None
    found = exact_spectra(bench.desk.lineup)
    finding.look()
    qtbot.waitUntil(lambda: finding.known is not None)
    return found


def test_every_spectral_metric_is_offered_and_drawn_as_computed(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    found_of(workbench, qtbot)
    card, known = workbench.workbench.heatmap, workbench.workbench.looking.spectra.known
    assert known is not None
    offered = {entry.key for entry in card.metric_box.entries()}
    for metric in SPECTRAL_METRICS:
        assert metric.id in offered
        card.choose_metric(metric.id)
        expected = metric.compute(known.groups, 0)
        np.testing.assert_array_equal(card.view.values, expected[: card.view.values.size])
        assert metric.formula in card._formula
        assert card.state() == "ready"


def test_stable_rank_and_spectrum_are_those_of_the_tensor(
    workbench: MainWindow, lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    found_of(workbench, qtbot)
    figures = workbench.desk.figures
    assert figures is not None
    group = figures.grid.labels.index("L2 · v")
    name = "model.layers.2.self_attn.v_proj.weight"
    tau = (
        load_file(lineup_paths["math"] / "model.safetensors")[name].astype(np.float64)
        - load_file(lineup_paths["aligned"] / "model.safetensors")[name]
    )
    sigma = np.linalg.svd(tau, compute_uv=False)
    workbench.desk.selection.point_at(group)
    panel = workbench.workbench.selection
    rows = dict(panel.table.rows())
    assert float(rows["stable rank"]) == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-2)
    assert {"safety energy · chance", "sign conflict"} <= set(rows)
    curves = panel.spectrum.plot.curves
    assert [c.label for c in curves] == ["τ", "a"]
    np.testing.assert_allclose(curves[0].values[: len(sigma)], sigma, rtol=1e-4)


def test_a_small_lineup_is_computed_when_its_metric_is_chosen(workbench: MainWindow) -> None:
    finding = workbench.workbench.looking.spectra
    workbench.workbench.heatmap.choose_metric("stable_rank")
    assert finding.running
    job = workbench.desk.jobs.pending[-1]
    assert (job.name, job.params["level"]) == ("spectra", "exact")
    assert workbench.workbench.heatmap.state() == "loading"


def test_what_takes_long_is_told_and_asked_for_first(
    workbench: MainWindow, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    monkeypatch.setattr(looking, "_SMALL", 0.0)
    finding, card = workbench.workbench.looking.spectra, workbench.workbench.heatmap
    workbench.desk.session.set("spectra rate", 1000.0)
    finding.changed.emit()
    entry = next(e for e in card.metric_box.entries() if e.key == "stable_rank")
    assert entry.objection == "not computed yet"
    card.choose_metric("stable_rank")
    assert not finding.running
    text, button = card.notice()
    # 44 matrices of 8 x 8 and the three vectors a and two τ
    assert "132 matrices" in text
    assert "about" in text
    assert "by the last run" in text
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert finding.running


def test_cells_fill_while_values_arrive(workbench: MainWindow, qtbot: QtBot) -> None:
    card, finding = workbench.workbench.heatmap, workbench.workbench.looking.spectra
    lineup = workbench.desk.lineup
    assert lineup is not None
    found = exact_spectra(lineup)
    card.choose_metric("stable_rank")
    put(lineup, half_known(found))
    finding.look()
    qtbot.waitUntil(lambda: finding.known is not None)
    some = int((~np.isnan(card.view.values)).sum())
    assert card.state() == "ready"
    put(lineup, found)
    finding.look()
    qtbot.waitUntil(lambda: finding.stage == "exact")
    assert 0 < some < int((~np.isnan(card.view.values)).sum())


def test_the_window_looks_again_by_itself_while_the_job_runs(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    finding, lineup = workbench.workbench.looking.spectra, workbench.desk.lineup
    assert lineup is not None
    finding.start()
    exact_spectra(lineup)
    qtbot.waitUntil(lambda: finding.stage == "exact")
    finding.stop()
    assert not finding.running


def test_an_error_is_said_in_place_and_can_be_tried_again(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    card, finding = workbench.workbench.heatmap, workbench.workbench.looking.spectra
    card.choose_metric("stable_rank")
    job = workbench.desk.jobs.pending[-1]
    workbench.desk.jobs._queue.remove(job)
    workbench.desk.jobs.failed.emit(job, UserError("x", "No room.", "The disk is full.", "Tidy."))
    assert card.state() == "error"
    text, button = card.notice()
    assert "The disk is full." in text
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert finding.running


def test_another_lineup_forgets_the_spectra(workbench: MainWindow, qtbot: QtBot) -> None:
    found_of(workbench, qtbot)
    finding = workbench.workbench.looking.spectra
    finding.start()
    workbench.desk.lineup_changed.emit()
    assert finding.known is None
    assert not finding.running
    assert not [job for job in workbench.desk.jobs.pending if job.name == "spectra"]


def test_chance_is_read_beside_the_value(workbench: MainWindow, qtbot: QtBot) -> None:
    found_of(workbench, qtbot)
    card, figures = workbench.workbench.heatmap, workbench.desk.figures
    assert figures is not None
    card.choose_metric("safety_energy")
    card.view.set_cursor(figures.grid.labels.index("L2 · v"))
    assert "(chance 0.125)" in card.view.readout()  # one direction of eight
    card.choose_metric("relative")
    assert "chance" not in card.view.readout()


def test_a_coarse_spectrum_states_its_error(workbench: MainWindow, qtbot: QtBot) -> None:
    finding, lineup = workbench.workbench.looking.spectra, workbench.desk.lineup
    assert lineup is not None
    put(lineup, half_known(exact_spectra(lineup)))
    finding.look()
    qtbot.waitUntil(lambda: finding.known is not None)
    known = finding.known
    assert known is not None
    group = int(np.flatnonzero(known.groups.level.max(1) == 1)[0])
    workbench.desk.selection.point_at(group)
    hint = workbench.workbench.selection.spectrum.hint
    assert hint.text() == "Off by ± 10.0 % of the largest, at most."


def test_without_spectra_the_panel_offers_to_compute_them(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    workbench.desk.selection.select(Selection((1,), (0, 0), (1, 1)))
    view = workbench.workbench.selection.spectrum
    assert view.plot.isHidden()
    assert not view.button.isHidden()
    qtbot.mouseClick(view.button, Qt.MouseButton.LeftButton)
    assert workbench.workbench.looking.spectra.running
    assert view.button.isHidden()


@pytest.fixture
def plot(qtbot: QtBot) -> SpectrumPlot:
    made = SpectrumPlot()
    qtbot.addWidget(made)
    made.resize(220, 132)
    values = np.array([4.0, 2.0, 1.0, np.nan])
    made.set_curves([SpectrumCurve("τ", "finetuned", values, values * 0.9, values * 1.1)])
    made.show()
    return made


def test_pointer_and_arrows_read_the_spectrum(plot: SpectrumPlot, qtbot: QtBot) -> None:
    at = plot.place(1, 2.0)
    QTest.mouseMove(plot, QPoint(round(at.x()), round(at.y())))
    qtbot.waitUntil(lambda: plot.marked == 1)
    assert plot.tip(QPointF(at)) == "singular value 2\nτ: 2.00 (1.80 to 2.20)"
    qtbot.keyClick(plot, Qt.Key.Key_Right)
    assert plot.marked == 2
    assert plot.csv_table()[1][2] == [3.0, 1.0, pytest.approx(0.9), pytest.approx(1.1)]
    assert "4.00" in plot.accessibleDescription()
