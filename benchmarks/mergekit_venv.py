"""Makes an environment with mergekit from PyPI, beside the builds, for the benchmarks to run.

    python benchmarks/mergekit_venv.py      make it where it is missing, and print its Python

TRIMTAB_MERGEKIT_PYTHON names the Python of an environment that has mergekit already;
TRIMTAB_TORCH_INDEX a package index with a smaller torch, as for the development environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parents[1] / "build" / "mergekit"
WANTED = ("mergekit==0.1.5", "torch==2.13.0")


def mergekit_python() -> Path:
    """Return the Python of an environment that has mergekit."""
    named = os.environ.get("TRIMTAB_MERGEKIT_PYTHON")
    if named:
        return Path(named)
    python = VENV / "bin" / "python"
    stamp = VENV / "made-with.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(WANTED):
        print(f"making {VENV} with {' and '.join(WANTED)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        command: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        if os.environ.get("TRIMTAB_TORCH_INDEX"):
            command += ["--extra-index-url", os.environ["TRIMTAB_TORCH_INDEX"]]
        subprocess.run([*command, *WANTED], check=True, stdout=sys.stderr)
        stamp.write_text(" ".join(WANTED))
    return python


def mergekit_version(python: Path) -> str:
    """Return the versions of mergekit and torch that a Python has, in words."""
    code = (
        "from importlib.metadata import version\n"
        "for name in ('mergekit', 'torch', 'transformers'): print(name, version(name))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return ", ".join(done.stdout.splitlines())


def offline() -> dict[str, str]:
    """Return an environment in which nothing that mergekit imports looks for a network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


if __name__ == "__main__":
    print(mergekit_python())
