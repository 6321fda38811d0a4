"""What docs/masks.md shows is so: the recipe is read, the commands run, the Python as well."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from trimtab.cli import main
from trimtab.demo.lineup import demo_paths
from trimtab.masks.file import MaskFile
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import open_lineup, parse_recipe

TEXT = (Path(__file__).parents[2] / "docs" / "masks.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "trimtab"
        assert main(arguments) == 0, command
    for name in ("aligned", "task-poisoned"):
        (tmp_path / name).symlink_to(demo_paths()[name])
    (recipe,) = (parse_recipe(block).absolute(tmp_path) for block in blocks("yaml"))
    plan = plan_merge(recipe, open_lineup(recipe))
    removed = {t.name for t in plan.tensors if "masked out" in t.why}
    assert {int(name.split(".")[2]) for name in removed} == {0, 1}
    (code,) = blocks("python")
    exec(code, {})
    assert MaskFile.open(tmp_path / "mine.mask.safetensors").names == ("model.norm.weight",)
