"""What several jobs need: the devices asked for, and files of the cache that are replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.errors import UserError

_KEPT = 4


def chosen_devices(names: str) -> list[str]:
    """Return torch's names of the devices asked for; what the engine cannot use is absent.

    Raises `UserError` with `no_such_device`.
    """
    from trimtab.device import cuda_is_likely, devices

    if names == "cpu" or (names == "auto" and not cuda_is_likely()):
        return ["cpu"]  # without the seconds that importing torch takes
    found = devices()
    if names == "auto":
        return [d.torch_name for d in found if d.kind == "cuda"] or ["cpu"]
    known = [device.torch_name for device in found if device.kind != "mps"]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known or (name == "cpu" and len(wanted) > 1):
            raise UserError(
                "no_such_device",
                f"There is no device {name}.",
                f"This machine has: {', '.join(known)}.",
                "Choose one of these, or auto; several CUDA devices with commas between them.",
            )
    return wanted


def keep(path: Path, text: str, count: int = _KEPT) -> None:
    """Write a file of the cache whole, and leave only the newest `count` of its neighbours there.

    Raises `OSError` when the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    kept = sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[count:]:
        old.unlink(missing_ok=True)
