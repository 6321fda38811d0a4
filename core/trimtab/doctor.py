"""Looks at the machine and says of each thing Trimtab needs whether it is well, and what to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

import trimtab
from trimtab import device, paths

Verdict = Literal["ok", "warning", "problem"]

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "PySide6-Essentials",
    "pyqtgraph",
)
_GIB = 2**30
_SPEED_BYTES = 64 * 2**20
_TORCH_TIMEOUT_S = 120.0
# What torch sees is asked of another process: importing it here would cost the window its speed,
# and a broken driver can take the asking process down.
_TORCH_PROBE = """
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "cuda_build": torch.version.cuda or torch.version.hip,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    "threads": torch.get_num_threads(),
}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` is empty where there is nothing to do."""

    section: str
    name: str
    value: str
    verdict: Verdict = "ok"
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which a person wants to read them."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all findings."""
        verdicts = {finding.verdict for finding in self.findings}
        if "problem" in verdicts:
            return "problem"
        return "warning" if "warning" in verdicts else "ok"

    def to_text(self) -> str:
        """Return the diagnosis as aligned lines for a terminal or a bug report."""
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines: list[str] = []
        section = None
        for finding in self.findings:
            if finding.section != section:
                section = finding.section
                lines += ["", section] if lines else [section]
            mark = {"ok": "  ", "warning": "! ", "problem": "✗ "}[finding.verdict]
            lines.append(f"  {mark}{finding.name:<{width}}  {finding.value}")
            if finding.fix:
                lines.append(f"    {'':<{width}}  → {finding.fix}")
        counts = [
            f"{count} {verdict}{'s' if count > 1 else ''}"
            for verdict in ("problem", "warning")
            if (count := sum(finding.verdict == verdict for finding in self.findings))
        ]
        summary = ", ".join(counts) or "all is well"
        return "\n".join([*lines, "", f"Trimtab {trimtab.__version__}: {summary}"])

    def to_json(self) -> str:
        """Return the diagnosis as JSON: version, overall verdict and the list of findings."""
        document = {
            "trimtab": trimtab.__version__,
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(document, indent=2, ensure_ascii=False)


def diagnose() -> Diagnosis:
    """Look at the machine; takes some seconds, most of them torch's import in another process."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _machine,
        _packages,
        _accelerators,
        _folders,
        _display,
    )
    return Diagnosis(tuple(finding for look in looks for finding in look()))


def _machine() -> Iterator[Finding]:
    section = "Machine"
    yield Finding(section, "System", f"{platform.platform()} ({platform.machine()})")
    yield Finding(section, "Python", f"{platform.python_version()} at {sys.executable}")
    cpu = device.cpu_device()
    cores = psutil.cpu_count(logical=False)
    threads = os.cpu_count() or 1
    yield Finding(section, "CPU", f"{cpu.name}, {cores or '?'} cores, {threads} threads")
    memory = f"{cpu.total_bytes / _GIB:.1f} GiB, {cpu.free_bytes / _GIB:.1f} GiB free"
    if cpu.free_bytes < 2 * _GIB:
        yield Finding(
            section,
            "Memory",
            memory,
            "warning",
            "Close other programs: a merge wants about 2 GiB, whatever the size of the model.",
        )
    else:
        yield Finding(section, "Memory", memory)


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding("Packages", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "Packages",
                name,
                "not installed",
                "problem",
                f'Install it: {sys.executable} -m pip install "{name}"',
            )


def _accelerators() -> Iterator[Finding]:
    section = "Accelerators"
    cards = _nvidia_cards()
    for card in cards:
        yield Finding(section, "NVIDIA", card)
    try:
        seen = _ask_torch()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        yield Finding(
            section,
            "torch",
            f"could not be asked: {_reason(error)}",
            "problem",
            f'Try it by hand: {sys.executable} -c "import torch"',
        )
        return
    names = seen["devices"]
    build = f"built for {seen['cuda_build']}" if seen["cuda_build"] else "CPU build"
    found = ", ".join(map(str, names)) if isinstance(names, list) and names else "no GPU"
    value = f"{seen['version']}, {build}; sees {found}; {seen['threads']} CPU threads"
    if cards and not names:
        yield Finding(
            section,
            "torch",
            value,
            "warning",
            "There is an NVIDIA card that torch does not see: install a CUDA build of torch that "
            "fits the driver. Until then all work runs on the CPU.",
        )
    else:
        yield Finding(section, "torch", value)


def _nvidia_cards() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []  # without a working driver torch sees no card either, and says so
    cards = (line.split(", ") for line in done.stdout.splitlines() if line.strip())
    return [f"{name}, {memory}, driver {driver}" for name, memory, driver in cards]


def _ask_torch() -> Mapping[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _TORCH_PROBE],
        capture_output=True,
        text=True,
        timeout=_TORCH_TIMEOUT_S,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if not isinstance(answer, dict):
        raise ValueError(f"unexpected answer {answer!r}")
    return answer


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr).strip().splitlines()[-1]
    return str(error)


def _folders() -> Iterator[Finding]:
    section = "Folders"
    for name, folder in (("Cache", paths.cache_dir()), ("Settings", paths.config_dir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            variable = "TRIMTAB_CACHE_DIR" if name == "Cache" else "TRIMTAB_CONFIG_DIR"
            yield Finding(
                section,
                name,
                f"{folder}: cannot be written: {error.strerror}",
                "problem",
                f"Make it writable, or name another folder in {variable}.",
            )
            continue
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(folder).free
        value = f"{folder}: {used / 2**20:.1f} MiB used, {free / _GIB:.1f} GiB free on the disk"
        if free < _GIB:
            yield Finding(section, name, value, "warning", "Make room on this disk.")
        else:
            yield Finding(section, name, value)
        if name == "Cache" and free > 4 * _SPEED_BYTES:
            written, read = _disk_speed(folder)
            yield Finding(
                section,
                "Disk speed",
                f"{written / 2**20:.0f} MiB/s written to the disk, {read / 2**20:.0f} MiB/s read "
                f"{'from it' if _drops_cache() else 'from its cache'} (64 MiB)",
            )


def _drops_cache() -> bool:
    return hasattr(os, "posix_fadvise")


def _disk_speed(folder: Path) -> tuple[float, float]:
    """Bytes per second written (with fsync) and read back in `folder`."""
    # Random bytes, so that a file system that compresses cannot flatter itself.
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(_SPEED_BYTES // len(block)):
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        if _drops_cache():
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(len(block)):
            pass
        read = time.perf_counter() - start
    return _SPEED_BYTES / written, _SPEED_BYTES / read


def _display() -> Iterator[Finding]:
    section = "Display"
    chosen = os.environ.get("QT_QPA_PLATFORM")
    displays = [
        f"{name}={os.environ[name]}"
        for name in ("WAYLAND_DISPLAY", "DISPLAY")
        if os.environ.get(name)
    ]
    if chosen:
        displays.append(f"QT_QPA_PLATFORM={chosen}")
    if displays or not sys.platform.startswith("linux"):
        yield Finding(section, "Display", ", ".join(displays) or "the system's own")
    else:
        yield Finding(
            section,
            "Display",
            "none",
            "warning",
            "The window needs a display; `trimtab` and `trimtab demo --headless` do without.",
        )
