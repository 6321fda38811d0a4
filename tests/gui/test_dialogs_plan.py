from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.jobs.control import JobControl
from trimtab.jobs.tasks import run_job
from trimtab.paths import cache_dir
from trimtab.project import edits
from trimtab_gui.account import Account, TensorTable
from trimtab_gui.dialogs.plan import PlanSheet
from trimtab_gui.dialogs.tensor_view import TensorModel
from trimtab_gui.main_window import MainWindow

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


def planned(window: MainWindow, qtbot: QtBot) -> PlanSheet:
    """Ask for the plan and let the job run here, as the worker would run it."""
    window.actions_.run("plan")
    sheet, job = window.planning.sheet, window.planning._job
    assert sheet is not None
    assert job is not None
    result = run_job(job.name, dict(job.params), JobControl(lambda *_: None))
    window.desk.jobs.finished.emit(job, result, 0.1)
    qtbot.waitUntil(lambda: bool(sheet.facts))
    return sheet


@pytest.fixture
def sheet(workbench: MainWindow, qtbot: QtBot) -> PlanSheet:
    desk = workbench.desk
    desk.edit(edits.set_ratio(desk.recipe, 1, 0.0))
    desk.edit(edits.set_layer_ratios(desk.recipe, 0, {0: 0.0, 1: 1.0}))
    return planned(workbench, qtbot)


def column(sheet: PlanSheet, number: int) -> list[str]:
    model = sheet.view.model()
    return [str(model.index(row, number).data()) for row in range(model.rowCount())]


def test_the_plan_counts_what_happens_to_the_tensors(sheet: PlanSheet) -> None:
    assert {a: chip.text() for a, chip in sheet.actions_.items()} == {
        "merged": "35 merged · 7.84 kB",
        "copied": "16 copied · 3.65 kB",
    }
    assert sheet.facts["writes"].endswith("· 1 file")
    assert sheet.facts["time"] == "unknown"
    assert sheet.facts["memory"].startswith("about ")
    assert sheet.bar.accessibleName() == "35 merged · 7.84 kB, 16 copied · 3.65 kB"
    assert sheet.bar.widths()[0] > sheet.bar.widths()[1] > 0
    sheet.close()


def test_the_table_filters_by_words_and_by_what_happens(sheet: PlanSheet, qtbot: QtBot) -> None:
    assert len(column(sheet, TensorTable.NAME)) == 51
    qtbot.keyClicks(sheet.search, "q_proj Math")
    assert all("q_proj" in name for name in column(sheet, TensorTable.NAME))
    assert sheet._count.text() == "5 of 51 tensors"
    sheet.search.clear()
    sheet.actions_["copied"].click()
    assert set(column(sheet, TensorTable.ACTION)) == {"copied"}
    assert sheet._count.text() == "16 of 51 tensors"
    sheet.actions_["copied"].click()
    assert sheet._count.text() == "51 tensors"
    sheet.close()


def test_the_table_sorts_by_number_where_it_shows_numbers(sheet: PlanSheet) -> None:
    model = sheet.view.model()
    assert isinstance(model, TensorModel)
    QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    sheet.view.sortByColumn(TensorTable.SIZE, Qt.SortOrder.AscendingOrder)
    assert column(sheet, TensorTable.SIZE)[0] == "32 B"
    sheet.view.sortByColumn(TensorTable.SIZE, Qt.SortOrder.DescendingOrder)
    assert column(sheet, TensorTable.SIZE)[0] == "256 B"
    sheet.view.sortByColumn(TensorTable.NAME, Qt.SortOrder.AscendingOrder)
    names = column(sheet, TensorTable.NAME)
    assert names == sorted(names)
    sheet.close()


def test_copy_and_csv_hold_every_tensor(sheet: PlanSheet, tmp_path: Path, qtbot: QtBot) -> None:
    sheet.search.setText("layers.3.")
    sheet.copy.click()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert len(lines) == 1 + 8
    assert lines[0].split("\t")[0] == "tensor"
    assert sheet._done.text() == "8 rows copied"
    sheet.view.selectRow(2)
    qtbot.keyClick(sheet.view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert len(QGuiApplication.clipboard().text().splitlines()) == 2
    sheet.save_to(tmp_path / "plan.csv")
    with open(tmp_path / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 51
    copied = next(r for r in rows if r["tensor"] == "model.layers.1.mlp.up_proj.weight")
    assert (copied["what"], copied["from"], copied["bytes"]) == ("copied", "math", "256")
    assert "ratio 1" in copied["why"]
    sheet.save_to(tmp_path / "no" / "plan.csv")
    assert "Not saved" in sheet._done.text()
    sheet.close()


def test_parameters_of_each_tensor_are_told(workbench: MainWindow, qtbot: QtBot) -> None:
    desk = workbench.desk
    desk.edit(edits.set_method(desk.recipe, "ties"))
    desk.edit(edits.set_model_parameter(desk.recipe, 1, "density", 0.4))
    workbench.merging.set_memory(4 * 10**9)
    sheet = planned(workbench, qtbot)
    assert "density 0.2, 0.4" in column(sheet, TensorTable.PARAMETERS)[0]
    assert column(sheet, TensorTable.RATIO)[0] == "math 0.6 · code 0.3"
    assert column(sheet, TensorTable.SOURCES)[0] == "aligned + math + code"
    assert sheet.facts["memory"] == "at most 4.00 GB"
    sheet.close()


def test_the_time_is_that_of_the_last_merge_by_the_same_method(
    workbench: MainWindow, qtbot: QtBot
) -> None:
    merging = workbench.merging
    merging._measured({"method": "task_arithmetic", "bytes_read": 30_000, "bytes_written": 10_000,
                       "seconds": 2.0})  # fmt: skip
    assert merging.seconds_for(60_000) == (3.0, 20_000.0)
    assert merging.seconds_for(10**9) is None, "too unlike to judge by"
    sheet = planned(workbench, qtbot)
    assert sheet.facts["time"].startswith("about ")
    sheet.close()
    workbench.desk.edit(edits.set_method(workbench.desk.recipe, "linear"))
    assert merging.seconds_for(60_000) is None


def test_what_keeps_the_plan_from_being_made_is_said(workbench: MainWindow, qtbot: QtBot) -> None:
    workbench.actions_.run("plan")
    sheet, job = workbench.planning.sheet, workbench.planning._job
    assert sheet is not None
    error = UserError("memory_too_small", "1 GB is not enough.", "It needs 2 GB.", "Allow 2 GB.")
    workbench.desk.jobs.failed.emit(job, error)
    assert sheet.problem.isVisible()
    assert sheet.problem.text() == "1 GB is not enough."
    sheet.close()


def test_closing_gives_the_plan_up(workbench: MainWindow, qtbot: QtBot) -> None:
    workbench.actions_.run("plan")
    sheet, job = workbench.planning.sheet, workbench.planning._job
    assert sheet is not None
    qtbot.keyClick(sheet, Qt.Key.Key_Escape)
    assert workbench.planning.sheet is None
    assert job not in workbench.desk.jobs.pending


def test_a_damaged_plan_is_an_error_in_place(
    workbench: MainWindow, tmp_path: Path, qtbot: QtBot
) -> None:
    workbench.actions_.run("plan")
    sheet, job = workbench.planning.sheet, workbench.planning._job
    assert sheet is not None
    (tmp_path / "p.json").write_text("{}")
    workbench.desk.jobs.finished.emit(job, {"path": str(tmp_path / "p.json")}, 0.1)
    qtbot.waitUntil(lambda: sheet.problem.isVisible())
    sheet.close()


def test_only_the_newest_plans_are_kept(workbench: MainWindow) -> None:
    for ratio in np.linspace(0.1, 0.9, 7):
        recipe = edits.set_ratio(workbench.desk.recipe, 0, float(ratio)).after
        run_job("plan", {"recipe": recipe.model_dump(mode="json")}, JobControl(lambda *_: None))
    assert len(list((cache_dir() / "plans").glob("*"))) == 4


def test_a_plan_of_many_tensors_is_one_table(tmp_path: Path) -> None:
    one = {"shape": [4, 4], "dtype": "bf16", "action": "merged", "why": "a with b",
           "sources": ["a: x", "b: y"], "ratios": {"b": 0.5}, "parameters": {}}  # fmt: skip
    tensors = [{**one, "name": f"t{i:05}"} for i in range(20_000)]
    said = {"method": "linear", "reference": "a", "device": "cpu", "bytes_in": 1, "bytes_out": 1,
            "memory_bytes": 1, "shards": ["s"], "notes": [f"note {i}" for i in range(9)],
            "findings": [{"level": "warning", "model": "b", "what": "Odd.", "effect": "So be it."}],
            "tensors": tensors, "data_bytes": [32] * 20_000}  # fmt: skip
    path = tmp_path / "p.json"
    path.write_text(json.dumps(said))
    account = Account.load(path)
    assert account.shares[0].count == 20_000
    assert account.told()[0] == "·  b: Odd. So be it."
    assert account.told()[-1] == "·  and 7 more"
    kept = account.table.matching("T0001 b", frozenset({"merged"}))
    assert int(kept.sum()) == 10
    assert account.table.order(TensorTable.NAME, True)[0] == 19_999


def test_nothing_is_planned_while_a_merge_runs(
    make_window: Callable[[], MainWindow], workbench: MainWindow
) -> None:
    workbench.merging.start()
    assert workbench.planning.obstacle() == "A merge is running."
    assert not workbench.workbench.output.plan.isEnabled()
