from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gui_lineups import recipe_of
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.errors import UserError
from trimtab.jobs.control import JobControl
from trimtab.jobs.tasks import run_job
from trimtab.methods import methods, registry
from trimtab.project import Project
from trimtab_gui.catalogue import OTHERS, Catalogue
from trimtab_gui.jobs import Job
from trimtab_gui.main_window import MainWindow
from trimtab_gui.opening import load_project

__all__ = ["lineup_paths", "make_window", "window", "workbench"]


def told() -> list[dict[str, Any]]:
    return list(run_job("methods", {}, JobControl(lambda *_: None))["methods"])


FOREIGN = {
    "name": "shake", "title": "Shake", "sentence": "Shake the weights.", "formula": "θ + ε",
    "reference": "A package", "takes": [1, 2], "part": "origin", "weighted": True,
    "random": True, "origin": "shaker.methods", "needs_base": False, "last": "",
    "parameters": [
        {"name": "force", "title": "Force", "sentence": "How hard.", "kind": "number",
         "default": 0.5, "minimum": 0.0, "maximum": 1.0, "choices": {}, "per_model": False,
         "range": "0 to 1"},
    ],
}  # fmt: skip


def answer(window: MainWindow, said: list[dict[str, Any]], problems: list[str]) -> None:
    job = Job(99, "methods", {}, "")
    window.desk.jobs.finished.emit(job, {"methods": said, "problems": problems}, 0.1)


def test_what_the_worker_says_is_what_the_window_knew_already() -> None:
    assert list(Catalogue.told(told())) == list(Catalogue.built_in())


def test_every_built_in_method_stands_under_a_heading_of_its_own_kind() -> None:
    groups = Catalogue.built_in().groups()
    assert OTHERS not in dict(groups)
    assert sum(len(listed) for _, listed in groups) == len(methods())


def test_the_window_asks_the_worker_at_its_start(window: MainWindow) -> None:
    window.warm_up()
    assert [job.name for job in window.desk.jobs.pending][:2] == ["devices", "methods"]


def test_another_package_s_method_appears_by_itself(workbench: MainWindow) -> None:
    panel = workbench.workbench.method
    answer(workbench, [*told(), FOREIGN], [])
    assert panel.method.entries()[-1].key == "shake"
    assert panel.method.entries()[-1].heading == OTHERS
    panel.method.chosen.emit("shake")
    assert workbench.desk.recipe.method == "shake"
    assert panel.method.text() == "Shake"
    assert list(panel.parameters) == ["force"]
    assert panel.seed.isVisibleTo(panel)
    assert workbench.desk.movement is None
    assert "decides entry by entry" in workbench.desk.movement_unknown
    assert workbench.merging.obstacle() is None


def test_a_package_that_fails_is_named(workbench: MainWindow) -> None:
    answer(workbench, told(), ["shaker.methods: ImportError: no shaker"])
    banner = workbench.banners.banner("methods")
    assert banner is not None
    assert "could not be loaded" in banner.text()


def test_a_recipe_of_another_package_opens_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> tuple[str, ...]:
        raise AssertionError("imported in the window")

    monkeypatch.setattr(registry, "load_entry_points", load)
    path = tmp_path / "p.trim"
    path.write_text("trimtab: 1\nmethod: shake\nparameters: {force: 0.1}\n")
    assert load_project(path).project.recipe.parameters == {"force": 0.1}
    path.write_text("trimtab: 1\nmethod: linear\nnonsense: 1\n")
    with pytest.raises(UserError, match="nonsense"):
        load_project(path)


def test_a_method_that_nobody_knows_is_told_in_place(
    make_window: Callable[[], MainWindow], lineup_paths: dict[str, Path], qtbot: QtBot
) -> None:
    window = make_window()
    recipe = recipe_of(lineup_paths).model_copy(update={"method": "gone"})
    window.desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: window.desk.lineup is not None)
    window.desk._stop_inspecting()
    assert window.workbench.method.method.text() == "gone"
    assert "no method called gone" in window.workbench.method._problem.text()
    assert window.merging.obstacle() == "There is no method called gone."
