"""A model set up to run on a calibration set, and what is gathered of it and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from trimtab.activations.blocks import BlockModel, Site
from trimtab.activations.calibration import Calibration
from trimtab.activations.loading import LOCAL, load_tokenizer, positions_of
from trimtab.activations.norms import ActNorms
from trimtab.activations.shelf import Shelf
from trimtab.activations.statistics import CovarianceWatch, NormWatch, Which
from trimtab.activations.stream import Pass
from trimtab.activations.tensor_file import TensorFileWriter
from trimtab.activations.tokens import Template, Tokens, batches, encode
from trimtab.activations.weights import ModelWeights
from trimtab.checkpoints.reader import TensorReader
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.paths import cache_dir

_VERSION = 1
_KEPT = 100


@dataclass(frozen=True)
class Setting:
    """How a model is run: in which template, on which device, in float32 or bfloat16."""

    template: Template = "model"
    device: str = "cpu"
    bfloat16: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that is computed in."""
        return torch.bfloat16 if self.bfloat16 else torch.float32


@dataclass(frozen=True)
class Calibrated:
    """A model and a calibration set in its tokens; `run` takes one forwards, and once back."""

    model: BlockModel
    tokens: Sequence[Tokens]
    run: Pass

    @property
    def sites(self) -> list[Site]:
        """Every Linear of every block."""
        blocks = range(len(self.model.blocks))
        return [site for block in blocks for site, _ in self.model.sites(block)]


@contextmanager
def calibrated(
    weights: ModelWeights, calibration: Calibration, setting: Setting, control: Control
) -> Iterator[Calibrated]:
    """Set a model up to run on a calibration set; what it holds is given back at the end.

    Raises `UserError` as `BlockModel`, `load_tokenizer` and `encode` do.
    """
    tokenizer = load_tokenizer(weights.folder)
    with TensorReader() as reader, Shelf(cache_dir() / "activations") as shelf:
        model = BlockModel(weights, reader, setting.device, setting.dtype)
        tokens = encode(tokenizer, calibration, setting.template, model.positions)
        yield Calibrated(model, tokens, Pass(model, batches(tokens), shelf, control))


def count_tokens(
    weights: ModelWeights, calibration: Calibration, setting: Setting
) -> dict[str, int]:
    """Return how many tokens of a set go through a model: "all", and those of the "answers".

    Raises `UserError` as `load_tokenizer` and `encode` do.
    """
    tokenizer = load_tokenizer(weights.folder)
    config = AutoConfig.from_pretrained(weights.folder, **LOCAL)
    tokens = encode(tokenizer, calibration, setting.template, positions_of(config))
    every = sum(len(example.ids) for example in tokens)
    return {"all": every, "answers": sum(example.answered for example in tokens)}


def provenance(weights: ModelWeights, calibration: Calibration, setting: Setting) -> dict[str, Any]:
    """Return what anything gathered is to say of its origin, ready for JSON."""
    return {
        "model": weights.name,
        "fingerprint": weights.fingerprint,
        "calibration": calibration.name,
        "digest": calibration.digest,
        "ids": list(calibration.ids),
        "template": setting.template,
        "device": setting.device.partition(":")[0],
        "precision": "bfloat16" if setting.bfloat16 else "float32",
    }


def content_key(
    weights: ModelWeights, calibration: Calibration, setting: Setting, *more: object
) -> str:
    """Return a hex digest of all that decides what is gathered."""
    parts = [
        _VERSION, weights.key, calibration.digest, setting.template,
        setting.device.partition(":")[0], setting.bfloat16, *more,
    ]  # fmt: skip
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def norms_path(weights: ModelWeights, calibration: Calibration, setting: Setting) -> Path:
    """Return where the norms of this model on this set are kept."""
    key = content_key(weights, calibration, setting, "norms")
    return cache_dir() / "activations" / f"{key}.norms.safetensors"


def act_norms(
    weights: ModelWeights, calibration: Calibration, setting: Setting, control: Control
) -> tuple[ActNorms, bool]:
    """Return the input strengths of all Linears in the blocks, and whether they were known.

    What is found is kept in the cache, under a key of the model's and the set's content. Raises
    `UserError` as `calibrated` does, and `JobCancelled`.
    """
    path = norms_path(weights, calibration, setting)
    if path.exists():
        try:
            norms = ActNorms.load(path)
        except UserError:
            path.unlink()  # of another version, or damaged: it can be made again
        else:
            path.touch()
            return norms, True
    watch = NormWatch()
    with calibrated(weights, calibration, setting, control) as ready:
        ready.run.forward([watch])
    norms = watch.result(provenance(weights, calibration, setting))
    norms.save(path)
    keep_newest(path.parent, "*.norms.safetensors", _KEPT)
    return norms, False


def covariances(
    weights: ModelWeights,
    calibration: Calibration,
    setting: Setting,
    path: Path,
    control: Control,
    *,
    which: Which = "answers",
    wanted: Callable[[Site], bool] = lambda site: True,
) -> None:
    """Write Σ x xᵀ [in, in], float32, of the inputs of the Linears that are `wanted` to `path`.

    Over the tokens of the answers, or all. Read them with `Covariances`, which knows that
    Linears with the same inputs share one. Raises as `act_norms` does.
    """
    about = {**provenance(weights, calibration, setting), "tokens": which}
    metadata = {"trimtab_covariances": "1", "about": json.dumps(about, ensure_ascii=False)}
    with calibrated(weights, calibration, setting, control) as ready:
        names = tuple(site.name for site in ready.sites if wanted(site))
        with TensorFileWriter(path, names, metadata) as writer:
            watch = CovarianceWatch(writer, which, wanted)
            ready.run.forward([watch])
            writer.finish({"leaders": json.dumps(watch.leaders)})


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Leave only the newest files of a pattern in a folder of the cache."""
    found = sorted(folder.glob(pattern), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in found[count:]:
        old.unlink(missing_ok=True)
