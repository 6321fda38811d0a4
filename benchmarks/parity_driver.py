"""Runs mergekit in its own environment, many merges in one process, with Trimtab's random masks.

    PYTHON-WITH-MERGEKIT benchmarks/parity_driver.py JOBS.json      one line of JSON for each merge
    PYTHON-WITH-MERGEKIT benchmarks/parity_driver.py --probe MODEL  what became of its known defects

A merge is mergekit's own `run_merge`. Two things are put in its hands: `torch.bernoulli` answers
from `parity_masks`, for which the sparsifier is told which tensor and model it has before it; and
Mixtral is described by the tensors of its files, one for each expert, where mergekit would stack
those of a layer into one tensor and merge that.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from mergekit import sparsify
from mergekit.architecture import ModuleDefinition, WeightInfo
from mergekit.architecture.json_definitions import (
    NAME_TO_ARCH,
    JsonLayerTemplates,
    JsonModuleArchitecture,
)
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import generalized_task_arithmetic as family
from mergekit.options import MergeOptions

import parity_masks
from small_models import EXPERTS

_real_merge = family.GeneralizedTaskArithmeticMerge.merge_group
_real_sparsify = family.sparsify
_queue: Iterator[tuple[str, str]] = iter(())
_now: tuple[str, str, float, float] = ("", "", 0.0, 0.0)


def _merge_group(self: Any, group: Any, /, **parameters: Any) -> torch.Tensor:
    global _queue
    _queue = iter([(group.metadata.name, Path(e.id.model.path).name) for e in group.non_base])
    merged: torch.Tensor = _real_merge(self, group, **parameters)
    return merged


def _sparsify(tensor: torch.Tensor, density: float, *rest: Any, **named: Any) -> torch.Tensor:
    global _now
    _now = (*next(_queue), density, named.get("epsilon", 0.0))
    thinned: torch.Tensor = _real_sparsify(tensor, density, *rest, **named)
    return thinned


def _bernoulli(probabilities: torch.Tensor, **_: Any) -> torch.Tensor:
    """Answer with Trimtab's mask; what float32 made of DELLA's probabilities is made good."""
    tensor, model, density, epsilon = _now
    p = np.float64(density)
    if epsilon:
        length = probabilities.shape[-1]
        least = density - epsilon
        steps = (probabilities.double().numpy() - least) * ((length - 1) / (2 * epsilon))
        p = least + 2 * epsilon * np.round(steps) / (length - 1)
    mask = parity_masks.kept(0, tensor, model, p, tuple(probabilities.shape))
    return torch.from_numpy(mask).to(probabilities.dtype)


def _keep_experts_apart() -> None:
    (mixtral,) = NAME_TO_ARCH["MixtralForCausalLM"]
    old = mixtral.modules["default"].architecture
    stem = "model.layers.${layer_index}."
    moe = stem + "block_sparse_moe."
    names = [moe + "gate.weight", *(f"{stem}self_attn.{part}_proj.weight" for part in "qkvo")]
    names += [stem + "input_layernorm.weight", stem + "post_attention_layernorm.weight"]
    names += [
        f"{moe}experts.{expert}.w{part}.weight" for expert in range(EXPERTS) for part in (1, 2, 3)
    ]
    templates = JsonLayerTemplates(weights=[WeightInfo(name=name) for name in names])
    definition = old.definition.model_copy(update={"layer_templates": templates})
    module = ModuleDefinition(architecture=JsonModuleArchitecture(definition=definition))
    NAME_TO_ARCH["MixtralForCausalLM"] = [
        mixtral.model_copy(update={"modules": {"default": module}})
    ]


def run(jobs: list[dict[str, str]]) -> None:
    """Do each merge and say how it ended."""
    family.GeneralizedTaskArithmeticMerge.merge_group = _merge_group
    family.sparsify = _sparsify
    torch.bernoulli = _bernoulli
    _keep_experts_apart()
    options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False)
    for job in jobs:
        failed = ""
        said = io.StringIO()
        try:
            document = yaml.safe_load(Path(job["document"]).read_text())
            with contextlib.redirect_stderr(said):
                run_merge(MergeConfiguration.model_validate(document), job["output"], options)
        except Exception as error:  # whatever mergekit raises is what there is to report
            failed = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        print(json.dumps({"output": job["output"], "failed": failed}), flush=True)


# --- what became of the defects that Trimtab's design documents lists --------------------------


def _raises(action: Callable[[], object], kind: type[Exception] = Exception) -> bool:
    try:
        action()
    except kind:
        return True
    return False


def _outliers() -> tuple[bool, str]:
    kept = {
        (n, gamma): int(
            sparsify.magnitude_outliers(torch.randn(n), 0.5, gamma=gamma).count_nonzero()
        )
        for n, gamma in ((64, 0.01), (4096, 0.0))
    }
    told = ", ".join(f"{k} of {n} at gamma {gamma:g}" for (n, gamma), k in kept.items())
    return any(k != n // 2 for (n, _), k in kept.items()), f"kept {told}, density 0.5"


def _rounding() -> tuple[bool, str]:
    torch.manual_seed(0)
    base = (torch.randn(1 << 16) * 0.02).bfloat16()
    tuned = [(base + torch.randn(1 << 16) * 1e-3).bfloat16() for _ in range(2)]
    exact = base.double() + sum(0.5 * (model.double() - base.double()) for model in tuned)
    from mergekit.merge_methods.base import TensorGroup
    from mergekit.merge_methods.registry import get

    shares = {}
    for method in ("task_arithmetic", "linear"):
        models = [base, *tuned] if method == "task_arithmetic" else tuned
        group = TensorGroup.from_tensors(
            models, ids=range(len(models)), base_index=0 if method == "task_arithmetic" else None
        )
        (merged,) = get(method)((group,), parameters={"weight": 0.5})
        wanted = exact if method == "task_arithmetic" else sum(0.5 * m.double() for m in tuned)
        shares[method] = float((merged != wanted.bfloat16()).float().mean())
    told = ", ".join(f"{share:.1%} in {method}" for method, share in shares.items())
    return shares["task_arithmetic"] > 0.01, f"entries that are not the rounded result: {told}"


def _card() -> tuple[bool, str]:
    from mergekit import card

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            Path("m1").mkdir()
            broken = _raises(lambda: card.is_hf("m1"))
        finally:
            os.chdir(here)
    return broken, "the model card of a merge of folders named like m1, without a network"


def _aliases(model: str) -> tuple[bool, str]:
    from mergekit.common import ModelReference
    from mergekit.io.tasks import LoaderCache
    from mergekit.plan import MergePlanner

    LoaderCache().setup(MergeOptions(quiet=True))
    weight = WeightInfo(name="absent", optional=True, aliases=("absent.too",))
    reference = ModelReference.model_validate(model)
    stand_in: Any = object()
    return _raises(
        lambda: MergePlanner.plan_tensor(stand_in, weight, [weight], [reference], stand_in),
        TypeError,
    ), "planning an optional weight that has aliases"


def _mismatch() -> tuple[bool, str]:
    from mergekit.merge_methods.base import TensorGroup

    group = TensorGroup.from_tensors([torch.ones(4, 3), torch.ones(5, 3)], base_index=0)
    return not _raises(group.validate_tensors), "shapes (4, 3) and (5, 3) in one tensor"


def _packed() -> tuple[bool, str]:
    from mergekit.merge_methods.buffers import copy_non_floating_buffer

    packed = [torch.tensor([i, 200], dtype=torch.uint8) for i in range(2)]
    return not _raises(lambda: copy_non_floating_buffer(packed, "w")), "two differing uint8 tensors"


def probe(model: str) -> list[dict[str, Any]]:
    """Try each documented defect; `there` says whether it still is."""
    found = []
    for title, trial in (
        ("breadcrumbs drops the whole delta where no outlier is cut off", _outliers),
        ("bfloat16 arithmetic with dtype: bfloat16", _rounding),
        ("crash after the weights are written, offline", _card),
        ("TypeError for an optional weight with aliases", lambda: _aliases(model)),
        ("shape mismatches are skipped or truncated", _mismatch),
        ("packed integers are averaged", _packed),
    ):
        there, what = trial()
        found.append({"defect": title, "there": there, "tried": what})
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "--probe":
        print(json.dumps(probe(sys.argv[2])))
    else:
        run(json.loads(Path(sys.argv[1]).read_text()))
