"""The bootstrap: the right steps in the right order, nothing twice, a clear word when it can't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bootstrap

ROOT = Path(__file__).parents[2]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's two setup files, with an environment that is not there yet."""
    (tmp_path / "packaging").mkdir()
    for name in ("pyproject.toml", "packaging/constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "CONSTRAINTS", tmp_path / "packaging/constraints.txt")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv/trimtab-setup")
    monkeypatch.delenv("TRIMTAB_TORCH_INDEX", raising=False)
    return tmp_path


@pytest.fixture
def commands(house: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the bootstrap would have run, with a fake environment in their place."""
    seen: list[list[str]] = []

    def run(command: list[Any], **_: Any) -> None:
        seen.append([str(part) for part in command])
        if seen[-1][1:3] == ["-m", "venv"]:
            python = bootstrap.venv_program("python")
            python.parent.mkdir(parents=True)
            python.write_text("#!/bin/sh\nexit 0\n", "utf-8")
            python.chmod(0o755)

    monkeypatch.setattr(bootstrap, "run", run)
    monkeypatch.setattr(bootstrap, "loads", lambda library: True)
    return seen


def steps(commands: list[list[str]]) -> list[str]:
    return [
        " ".join([Path(command[0]).name, *command[1:]])
        for command in commands
        if command[1:3] not in (["-m", "venv"], ["-m", "pip"])
    ]


def installs(commands: list[list[str]]) -> list[list[str]]:
    return [command for command in commands if command[1:3] == ["-m", "pip"]]


def test_the_first_run_sets_up_and_the_second_goes_straight_to_work(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert bootstrap.main(["demo"]) == 0
    assert [command[1:3] for command in commands[:2]] == [["-m", "venv"], ["-m", "pip"]]
    assert steps(commands) == ["trimtab demo"]
    commands.clear()
    assert bootstrap.main(["demo"]) == 0
    assert [" ".join(command) for command in commands] == [
        f"{bootstrap.venv_program('trimtab')} demo"
    ]


def test_what_is_installed_is_the_project_in_the_tested_versions(
    commands: list[list[str]], house: Path
) -> None:
    bootstrap.set_up(with_tools=False)
    (command,) = installs(commands)
    assert command[command.index("--constraint") + 1] == str(house / "packaging/constraints.txt")
    assert command[command.index("--editable") + 1] == str(house)
    assert not any(part.startswith("pytest") for part in command)


def test_the_tools_are_added_when_tests_are_wanted_and_stay_for_the_demo(
    commands: list[list[str]],
) -> None:
    bootstrap.set_up(with_tools=False)
    bootstrap.set_up(with_tools=True)
    without, with_tools = installs(commands)
    assert with_tools[: len(without)] == without
    assert any(part.startswith("pytest>=") for part in with_tools)
    commands.clear()
    bootstrap.set_up(with_tools=False)
    bootstrap.set_up(with_tools=True)
    assert commands == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "packaging/constraints.txt"])
def test_a_change_of_the_setup_files_installs_again_into_the_same_environment(
    commands: list[list[str]], house: Path, changed: str
) -> None:
    bootstrap.set_up(with_tools=True)
    commands.clear()
    with (house / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    bootstrap.set_up(with_tools=True)
    assert [command[1:3] for command in commands] == [["-m", "pip"]]


def test_an_environment_whose_python_is_gone_is_made_anew(commands: list[list[str]]) -> None:
    bootstrap.set_up(with_tools=False)
    commands.clear()
    bootstrap.venv_program("python").write_text("#!/nowhere/python\n", "utf-8")
    bootstrap.venv_program("python").parent.rename(bootstrap.VENV / "old")
    bootstrap.set_up(with_tools=False)
    assert [command[1:3] for command in commands] == [["-m", "venv"], ["-m", "pip"]]


def test_an_install_that_failed_is_tried_again(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = bootstrap.run

    def fails(command: list[Any], **_: Any) -> None:
        if "pip" in map(str, command):
            raise bootstrap.SetupError("no network")
        works(command)

    monkeypatch.setattr(bootstrap, "run", fails)
    with pytest.raises(bootstrap.SetupError, match="no network"):
        bootstrap.set_up(with_tools=False)
    monkeypatch.setattr(bootstrap, "run", works)
    commands.clear()
    bootstrap.set_up(with_tools=False)
    assert len(installs(commands)) == 1


def test_another_index_for_torch_can_be_named(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_TORCH_INDEX", "https://example.org/cpu")
    bootstrap.set_up(with_tools=False)
    (command,) = installs(commands)
    assert command[command.index("--extra-index-url") + 1] == "https://example.org/cpu"


def test_without_a_display_the_demo_runs_headless(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert bootstrap.main(["demo"]) == 0
    assert steps(commands) == ["trimtab demo --headless --output demo-output"]


def test_the_checks_come_in_order_and_the_tests_last(commands: list[list[str]]) -> None:
    assert bootstrap.main(["test"]) == 0
    assert steps(commands) == [
        "python -m ruff check .",
        "python -m ruff format --check .",
        "python -m mypy",
        "lint-imports",
        "python -m pytest",
    ]


def test_the_first_check_that_fails_stops_the_run(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = bootstrap.run

    def fails(command: list[Any], **_: Any) -> None:
        works(command)
        if "mypy" in command:
            raise bootstrap.SetupError("failed with exit status 1: python -m mypy")

    monkeypatch.setattr(bootstrap, "run", fails)
    assert bootstrap.main(["test"]) == 1
    assert steps(commands)[-1] == "python -m mypy"
    assert "python -m mypy" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["demo", "test"]])
def test_wrong_usage_shows_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main(arguments) == 2
    assert "bootstrap.py demo" in capsys.readouterr().err


def test_an_old_python_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"Python 3\.11 or newer is needed") as error:
        bootstrap.check_python((3, 9, 2))
    assert error.value.status == 2
    bootstrap.check_python((3, 11, 0))
    bootstrap.check_python((4, 0, 0))


class Apt:
    """A fake apt-get: remembers what it was asked, and after an install every library loads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int, helps: bool = True) -> None:
        self.calls: list[str] = []
        self._helps = helps
        self._installed = False
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(bootstrap.os, "geteuid", lambda: uid)
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(bootstrap, "run", self.run)
        monkeypatch.setattr(
            bootstrap, "loads", lambda library: self._installed or "xcb-c" not in library
        )

    def run(self, command: list[str], **_: Any) -> None:
        self.calls.append(" ".join(command))
        self._installed = self._helps and "install" in command


def test_root_gets_the_missing_system_libraries_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch, uid=0)
    bootstrap.ensure_system(with_tools=False)
    assert apt.calls == [
        "apt-get update -q",
        "apt-get install -y --no-install-recommends libxcb-cursor0",
    ]


def test_anyone_else_gets_the_exact_command(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch, uid=1000)
    with pytest.raises(bootstrap.SetupError) as error:
        bootstrap.ensure_system(with_tools=False)
    assert error.value.status == 3
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends libxcb-cursor0"
        in str(error.value)
    )
    assert apt.calls == []


def test_a_system_without_apt_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Apt(monkeypatch, uid=0)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    with pytest.raises(bootstrap.SetupError, match="libxcb-cursor0") as error:
        bootstrap.ensure_system(with_tools=False)
    assert error.value.status == 3


def test_packages_that_did_not_help_are_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    Apt(monkeypatch, uid=0, helps=False)
    with pytest.raises(bootstrap.SetupError, match="still not to be loaded") as error:
        bootstrap.ensure_system(with_tools=False)
    assert error.value.status == 3


def test_only_the_display_that_is_there_decides_what_is_needed() -> None:
    bare = bootstrap.needed_libraries({})
    assert not any("xcb" in library or "wayland" in library for library in bare)
    assert "libxcb-cursor.so.0" in bootstrap.needed_libraries({"DISPLAY": ":0"})
    assert "libwayland-client.so.0" in bootstrap.needed_libraries({"WAYLAND_DISPLAY": "w"})


def test_a_library_is_missing_only_if_it_does_not_load() -> None:
    assert bootstrap.loads("libc.so.6")
    assert bootstrap.missing_packages({"libc.so.6": "libc6", "libno-such.so.9": "nothing"}) == [
        "nothing"
    ]


def test_a_python_without_venv_gets_debians_package_in_the_same_command(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = Apt(monkeypatch, uid=0)
    monkeypatch.setattr(bootstrap, "lacks_venv", lambda: True)
    bootstrap.ensure_system(with_tools=False)
    assert apt.calls[1].endswith(f" libxcb-cursor0 python3.{sys.version_info.minor}-venv")


def test_an_environment_that_is_there_needs_no_venv_package(
    house: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.set_up(with_tools=True)
    commands.clear()
    monkeypatch.setattr(bootstrap, "lacks_venv", lambda: True)
    bootstrap.ensure_system(with_tools=True)
    assert commands == []


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'packaging/bootstrap.py')!r}, run_name='x')"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_every_dependency_has_a_tested_version() -> None:
    import re
    import tomllib

    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = document["project"]["dependencies"] + document["dependency-groups"]["dev"]

    def canonical(requirement: str) -> str:
        name = re.split(r"[<>=!\[; ]", requirement, maxsplit=1)[0]
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "packaging/constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonical(line): line for line in lines if line and not line.startswith("#")}
    assert {canonical(requirement) for requirement in wanted} <= set(pinned)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned.values())
    assert pinned["torch"] == "torch==2.13.0"
