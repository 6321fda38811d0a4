from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from trimtab.merging.recipe import FineTuned, ModelRef, Recipe
from trimtab_gui import texts
from trimtab_gui.session import RECENT_LIMIT, Session, UnfinishedMerge

RECIPE = Recipe(aligned=ModelRef(path="/m/a"), finetuned=(FineTuned(path="/m/b", ratio=0.25),))


def test_settings_come_back(tmp_path: Path) -> None:
    Session(tmp_path).set("theme", "light")
    assert Session(tmp_path).get("theme") == "light"


def test_ten_recent_documents_the_latest_first_and_each_once(tmp_path: Path) -> None:
    session = Session(tmp_path)
    for i in range(12):
        session.opened(tmp_path / f"{i}.trim")
    session.opened(tmp_path / "5.trim")
    found = [r.path.name for r in Session(tmp_path).recent]
    assert len(found) == RECENT_LIMIT
    assert found[:3] == ["5.trim", "11.trim", "10.trim"]


def test_a_document_that_is_gone_is_known_as_missing(tmp_path: Path) -> None:
    here = tmp_path / "here.trim"
    here.write_text("trimtab: 1\n")
    session = Session(tmp_path)
    session.opened(tmp_path / "gone.trim")
    session.opened(here)
    assert [r.missing for r in session.recent] == [False, True]
    session.relocate(tmp_path / "gone.trim", here)
    assert [r.path for r in session.recent] == [here]


def test_a_running_merge_is_remembered_until_it_ends(tmp_path: Path) -> None:
    Session(tmp_path).merge_started(UnfinishedMerge(RECIPE, tmp_path / "out", True))
    left = Session(tmp_path).unfinished
    assert left is not None
    assert left == UnfinishedMerge(RECIPE, tmp_path / "out", True)
    Session(tmp_path).merge_ended()
    assert Session(tmp_path).unfinished is None


def test_unsaved_work_is_found_again(tmp_path: Path) -> None:
    Session(tmp_path).autosave(RECIPE, None)
    found = Session(tmp_path).recovered
    assert found is not None
    assert found.recipe == RECIPE
    Session(tmp_path).drop_recovery()
    assert Session(tmp_path).recovered is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"recipe": 3}', '{"recent": [{"path": 1}]}'])
def test_damaged_files_are_as_good_as_none(tmp_path: Path, content: str) -> None:
    for name in ("window.json", "unfinished-merge.json", "recovery.json"):
        (tmp_path / name).write_text(content)
    session = Session(tmp_path)
    assert session.recent == []
    assert session.unfinished is None
    assert session.recovered is None


def test_a_folder_that_cannot_be_written_only_makes_forgetful(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    session = Session(blocked)
    session.set("theme", "light")
    session.merge_started(UnfinishedMerge(RECIPE, tmp_path, False))
    assert session.get("theme") == "light"


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.set("a", 1)
    assert json.loads((tmp_path / "window.json").read_text()) == {"a": 1}
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("days", "expected"), [(0, "today"), (1, "yesterday"), (3, None), (40, None)]
)
def test_days_read_as_people_say_them(days: int, expected: str | None) -> None:
    now = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
    then = time.mktime((2026, 11, 23 - days, 9, 0, 0, 0, 0, -1))
    text = texts.day(then, now)
    if expected is None:
        expected = "Friday" if days == 3 else "14 Oct"
    assert text == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(16_400_000_000, "16.4 GB"), (1_570_000, "1.57 MB"), (999, "999 B"), (999_600, "1.00 MB"),
     (0, "0 B")],
)  # fmt: skip
def test_sizes_have_three_significant_digits(value: int, text: str) -> None:
    assert texts.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "40 ms"), (1.23, "1.2 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7300, "2 h 01 min")],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert texts.duration(seconds) == text
