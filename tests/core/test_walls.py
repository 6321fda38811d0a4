"""The walls between the packages: no screen in the core, no torch in the window or in headers."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CORE_WITHOUT_TORCH = [
    "trimtab",
    "trimtab.checkpoints",
    "trimtab.cli",
    "trimtab.device",
    "trimtab.doctor",
    "trimtab.inspection.result",
    "trimtab.jobs.protocol",
    "trimtab.merging.recipe",
    "trimtab.project",
]
WINDOW = ["trimtab_gui.app", "trimtab_gui.main_window"]


def modules_after_importing(name: str) -> set[str]:
    """The top-level names in sys.modules of a fresh interpreter after `import name`."""
    code = (
        f"import json, sys, {name}; "
        "print(json.dumps(sorted({module.partition('.')[0] for module in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", CORE_WITHOUT_TORCH)
def test_importing_it_imports_neither_torch_nor_a_screen(name: str) -> None:
    unwanted = {"torch", "transformers", "PySide6", "shiboken6", "pyqtgraph", "trimtab_gui"}
    assert modules_after_importing(name) & unwanted == set()


@pytest.mark.parametrize("name", WINDOW)
def test_the_window_does_not_import_torch(name: str) -> None:
    assert modules_after_importing(name) & {"torch", "transformers", "peft"} == set()


def lint_imports(**environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_contracts_are_kept() -> None:
    done = lint_imports()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied_roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all our Python code, in which walls may be broken."""
    copy = tmp_path_factory.mktemp("roots")
    for root in ("core", "gui", "resources"):
        for source in (ROOT / root).rglob("*.py"):
            target = copy / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return copy


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        ("core/trimtab/errors.py", "import PySide6", "The core knows no screen"),
        (
            "core/trimtab/errors.py",
            "def lazily():\n    import trimtab_gui",
            "The core knows no screen",
        ),
        ("gui/trimtab_gui/undo.py", "import torch", "The window reaches torch by no path"),
        (
            "gui/trimtab_gui/undo.py",
            "def lazily():\n    import trimtab.kernels.plain",
            "The window reaches torch by no path",
        ),
        (
            "core/trimtab/checkpoints/header.py",
            "def lazily():\n    import transformers",
            "The window reaches torch by no path",
        ),
        ("core/trimtab/errors.py", "import trimtab.merging", "A room of the core stands above"),
        (
            "core/trimtab/new_room.py",
            "import trimtab.checkpoints",
            "A room of the core stands above",
        ),
    ],
)
def test_a_broken_wall_is_seen(copied_roots: Path, place: str, line: str, contract: str) -> None:
    module = copied_roots / place
    before = module.read_text("utf-8") if module.exists() else None
    module.write_text(f"{before or ''}\n\n{line}\n", "utf-8")
    try:
        roots = os.pathsep.join(str(copied_roots / root) for root in ("core", "gui", "resources"))
        done = lint_imports(PYTHONPATH=roots)
    finally:
        module.unlink() if before is None else module.write_text(before, "utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert any(text.startswith(contract) for text in broken), done.stdout


def ignored_imports() -> list[tuple[str, str]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = document["tool"]["importlinter"]["contracts"]
    lines = [line for contract in contracts for line in contract.get("ignore_imports", [])]
    return [(importer, imported) for importer, _, imported in map(str.split, lines)]


@pytest.mark.parametrize(("importer", "imported"), ignored_imports())
def test_an_import_that_a_contract_overlooks_stays_in_a_function(
    importer: str, imported: str
) -> None:
    root = ROOT / ("gui" if importer.startswith("trimtab_gui") else "core")
    source = root / (importer.replace(".", "/") + ".py")
    tree = ast.parse(source.read_text("utf-8"))
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    eager: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            eager.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            eager.add(node.module)
    assert not any(f"{name}.".startswith(f"{imported}.") for name in eager)
