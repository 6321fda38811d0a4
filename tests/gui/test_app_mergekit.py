from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from window_fixtures import lineup_paths, make_window, window, workbench

from trimtab.merging.mergekit import to_recipe
from trimtab.merging.settings import Tokenizer
from trimtab.project import Project, edits
from trimtab_gui.main_window import MainWindow

__all__ = ["lineup_paths", "make_window", "window", "workbench"]
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")


@pytest.fixture
def theirs(lineup_paths: dict[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "their.yml"
    data = {
        "merge_method": "ties",
        "base_model": str(lineup_paths["aligned"]),
        "models": [
            {"model": str(lineup_paths["math"]), "parameters": {"density": 0.3, "weight": 0.5}},
            {"model": str(lineup_paths["code"]), "parameters": {"weight": [0.1, 0.9]}},
        ],
        "dtype": "float32",
        "chat_template": "chatml",
    }
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_recipe_of_mergekit_opens_as_a_new_project(
    window: MainWindow, theirs: Path, qtbot: QtBot
) -> None:
    window.documents.open_paths([theirs])
    desk = window.desk
    qtbot.waitUntil(lambda: desk.lineup is not None)
    desk._stop_inspecting()
    assert desk.recipe.method == "ties"
    assert len(desk.recipe.finetuned) == 2
    assert desk.title == "their.yml"
    assert desk.project.path is None, "saving must not write over mergekit's file"
    assert desk.project.dirty
    banner = window.banners.banner("open")
    assert banner is not None
    assert banner.kind() == "info"
    panel = window.workbench.method
    assert panel.rows["density"].own[0].value() == 0.3
    assert panel.method.text() == "TIES"
    assert window.workbench.output.recipe.text() == "chatml template"


def test_what_has_no_control_is_told_in_one_line(workbench: MainWindow, qtbot: QtBot) -> None:
    from trimtab.merging.recipe import Slice, SliceSource

    card = workbench.workbench.output.recipe
    assert not card.isVisibleTo(workbench)
    slices = (
        Slice(sources=(SliceSource(model="math", layers=(0, 4)),)),
        Slice(sources=(SliceSource(model="code", layers=(2, 6), parameters={"scale": 0.5}),)),
    )
    recipe = edits.set_method(workbench.desk.recipe, "passthrough").after
    recipe = recipe.model_copy(update={"slices": slices, "tokenizer": Tokenizer()})
    workbench.desk.set_project(Project(recipe))
    qtbot.waitUntil(lambda: workbench.desk.lineup is not None)
    workbench.desk._stop_inspecting()
    assert card.isVisibleTo(workbench)
    assert card.text() == "2 slices · union tokenizer"
    assert "code [2, 6) · scale 0.5" in card.toolTip()
    assert workbench.merging.obstacle() is None, "two models in slices of one each"
    qtbot.keyClick(card, Qt.Key.Key_Return)


def test_several_merges_in_one_file_are_refused_with_what_to_do(
    window: MainWindow, theirs: Path
) -> None:
    text = theirs.read_text()
    theirs.write_text(f"name: first\n{text}---\nmerge_method: linear\nmodels: [{{model: first}}]\n")
    window.documents.open_paths([theirs])
    banner = window.banners.banner("open")
    assert banner is not None
    assert banner.text() == "their.yml holds 2 merges."
    assert "trimtab merge their.yml" in banner._fix.text()
    assert window.desk.empty


def test_a_key_that_cannot_be_honoured_is_refused_by_name(window: MainWindow, theirs: Path) -> None:
    theirs.write_text(theirs.read_text() + "frobnicate: 1\n")
    window.documents.open_paths([theirs])
    banner = window.banners.banner("open")
    assert banner is not None
    assert "frobnicate" in banner.text() + banner._why.text()


def test_a_recipe_is_exported_and_reads_back_as_the_same_merge(
    workbench: MainWindow, tmp_path: Path
) -> None:
    desk = workbench.desk
    desk.edit(edits.set_method(desk.recipe, "ties"))
    desk.edit(edits.set_model_parameter(desk.recipe, 1, "density", 0.4))
    path = tmp_path / "out.yaml"
    assert workbench.documents.export_mergekit_to(path)
    back = to_recipe(yaml.safe_load(path.read_text()), tmp_path)
    assert back.method == "ties"
    assert back.finetuned[1].parameters["density"] == 0.4
    banner = workbench.banners.banner("export")
    assert banner is not None
    assert banner.kind() == "ok"


def test_what_mergekit_cannot_do_is_said_in_place(
    workbench: MainWindow, tmp_path: Path, make_window: Callable[[], MainWindow]
) -> None:
    workbench.desk.edit(edits.set_method(workbench.desk.recipe, "tsv_merge"))
    assert not workbench.documents.export_mergekit_to(tmp_path / "out.yaml")
    banner = workbench.banners.banner("export")
    assert banner is not None
    assert banner.kind() == "error"
    assert not (tmp_path / "out.yaml").exists()
    workbench.desk.edit(edits.set_method(workbench.desk.recipe, "ties"))
    assert not workbench.documents.export_mergekit_to(tmp_path / "no" / "out.yaml")
    banner = workbench.banners.banner("export")
    assert banner is not None
    assert "could not be written" in banner.text()
