"""A device in two short texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab_gui import texts


def device_texts(device: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name and the facts of a device, memory as used of total."""
    kind = str(device["kind"])
    name = "CPU" if kind == "cpu" else f"{kind}:{device['index']}"
    total = int(device["total_bytes"])
    used = total - int(device["free_bytes"])
    model = _short(str(device["name"]))
    memory = f"{texts.significant(used / 1e9)} / {texts.significant(total / 1e9)} GB"
    return name, f"{model} · {memory}" if model else memory


def _short(name: str) -> str:
    for noise in ("(R)", "(TM)", "CPU", "Processor"):
        name = name.replace(noise, "")
    words = name.partition("@")[0].split()
    text = " ".join(words)
    return text if len(text) <= 28 else text[:27].rstrip() + "…"
