"""The devices that tensors can be worked on, and how much memory each has."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

Kind = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Device:
    """One device as it was when asked; memory is in bytes."""

    kind: Kind
    index: int
    name: str
    total_bytes: int
    free_bytes: int

    @property
    def torch_name(self) -> str:
        """The name that `torch.device` takes, such as "cuda:0"; the CPU has no number."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def cpu_device() -> Device:
    """Return the CPU with the machine's memory, without importing torch."""
    memory = psutil.virtual_memory()
    return Device("cpu", 0, _cpu_name(), int(memory.total), int(memory.available))


def devices() -> list[Device]:
    """Return every device that torch can use, accelerators first and the CPU last.

    Imports torch, which takes seconds: for the worker and the command, not for the window.
    """
    import torch

    found: list[Device] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(Device("cuda", index, torch.cuda.get_device_name(index), total, free))
    if torch.backends.mps.is_available():
        # Apple's GPU shares the machine's memory and may use the part that Metal recommends.
        limit = torch.mps.recommended_max_memory()
        used = torch.mps.driver_allocated_memory()
        found.append(Device("mps", 0, f"{platform.machine()} GPU", limit, max(limit - used, 0)))
    return [*found, cpu_device()]


def cuda_is_likely() -> bool:
    """Whether an NVIDIA driver is there at all; asked before torch, whose import takes seconds."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: platform knows
    return platform.processor() or platform.machine()
