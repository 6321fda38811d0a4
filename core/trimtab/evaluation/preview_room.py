"""Decides whether a lineup is previewed from memory or streamed, and in what it is computed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import psutil
import torch

from trimtab.activations.blocks import BlockModel
from trimtab.checkpoints import Checkpoint, Lineup
from trimtab.errors import UserError
from trimtab.evaluation.preview_rows import Rows
from trimtab.merging.memory import Memory
from trimtab.merging.plan import Plan

#: shares of the free memory that models may take, and what is done with them
_SHARE, _WORK_SHARE = 0.6, 0.2
#: the same of a device's own memory, which has fewer guests
_DEVICE_SHARE = 0.8
_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Room:
    """Bytes of the machine's memory that models may take, and `work` with them besides.

    `device` is what models may take of the memory of a device of its own.
    """

    models: int
    work: int
    device: int | None = None


@dataclass(frozen=True)
class Whole:
    """How a lineup is held whole: computed in `dtype`, None for what is stored.

    As many as `room` bytes of the models are kept in memory, and `device` in that of a device of
    its own, None without one.
    """

    dtype: torch.dtype | None
    room: int
    device: int | None = None


def free_room(device: str) -> Room:
    """Return what a preview on a device may take at this moment."""
    free = psutil.virtual_memory().available
    own = None
    if device.startswith("cuda"):
        own = int(_DEVICE_SHARE * torch.cuda.mem_get_info(device)[0])
    return Room(int(_SHARE * free), int(_WORK_SHARE * free), own)


def held_whole(lineup: Lineup, room: Room) -> Whole | None:
    """Return how a lineup is held in memory, None where it does not fit.

    In float32 on the CPU where there is room for it, else as it is stored.
    """
    reference = lineup.reference.checkpoint
    image = sum(header.file_bytes for header in reference.headers)
    if room.device is not None:
        fits = image <= room.device and image <= room.models
        return Whole(None, room.models - image, room.device - image) if fits else None
    in_float = 4 * reference.n_parameters + image
    if in_float <= room.models:
        return Whole(torch.float32, room.models - in_float)
    return Whole(None, room.models - 2 * image) if 2 * image <= room.models else None


def streaming_dtype(reference: Checkpoint, device: str) -> torch.dtype:
    """Return what a streamed model is computed in: float32 on the CPU, else what most is stored."""
    if device == "cpu":
        return torch.float32
    index = reference.index
    counts: Counter[str] = Counter()
    for row, numel in enumerate(index.numel):
        counts[index.dtype_of(row).code] += int(numel)
    return _STORED.get(counts.most_common(1)[0][0], torch.bfloat16)


def left_for_models(blocks: BlockModel, plan: Plan, measuring: int, room: Room) -> int:
    """Return how many bytes of the models may stay in memory while a model is streamed.

    Raises `UserError` with `preview_too_large` where not even one block fits.
    """
    block = blocks.most_parameters * blocks.dtype.itemsize
    # a tensor that is being made is there as it is stored, and in float32
    making = 8 * max((tensor.numel for tensor in plan.tensors), default=0)
    if room.device is not None and block > room.device:
        raise _too_large(block, room.device, "the device's memory")
    models = making if room.device is not None else making + block
    if models > room.models:
        raise _too_large(models, room.models, "memory")
    work = min(8, os.cpu_count() or 1) * Memory(plan, None, "cpu").each
    if room.device is None:
        work += measuring
    if work > room.work:
        raise _too_large(work, room.work, "memory for the work on it")
    return room.models - models


def measuring_bytes(rows: Rows, hidden: int, vocabulary: int) -> int:
    """Return how many bytes the probes take while they go through a model, roughly."""
    return max(
        (
            4 * feed.ids.numel() * hidden * 8 + 4 * 3 * len(feed.ids) * feed.keep * vocabulary
            for feed in (*rows.padded, *rows.packed)
        ),
        default=0,
    )


def _too_large(needed: int, free: int, of: str) -> UserError:
    why = (
        f"Even block by block that takes {needed / 1e9:.3g} GB of {of}, and {free / 1e9:.3g} GB "
        "may be used."
    )
    return too_large(why)


def too_large(why: str) -> UserError:
    """Return the error of a preview that can neither be held nor streamed."""
    return UserError(
        "preview_too_large",
        "These models are too large to be measured while the hand moves.",
        why,
        "Close other programs, or merge and save, then evaluate the result.",
    )
