"""What is written beside an extracted adapter's weights: its config and its model card."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.lora.factoring import Written


def adapter_config(
    written: Sequence[Written],
    biases: Sequence[str],
    modules_to_save: Sequence[str],
    rank: int,
    base: str,
    model_config: Mapping[str, Any],
    linear_modules: Sequence[str],
) -> dict[str, Any]:
    """Return adapter_config.json as PEFT reads it; the scale alpha / r is 1 everywhere.

    `biases` are written by themselves, `linear_modules` are all that could be targets.
    """
    plain = [w for w in written if not w.target.is_parameter]
    bare = [w for w in written if w.target.is_parameter]
    other = {re.escape(w.target.module): w.rank for w in plain if w.rank != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if _is_causal(model_config) else None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": _short([w.target.module for w in plain], linear_modules),
        "target_parameters": sorted({_suffix(w.target.name) for w in bare}) or None,
        "fan_in_fan_out": any(w.target.transposed for w in plain if w.target.kind == "linear"),
        "modules_to_save": list(modules_to_save) or None,
        "bias": "all" if biases else "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _is_causal(model_config: Mapping[str, Any]) -> bool:
    names = model_config.get("architectures") or [""]
    return str(names[0]).endswith(("ForCausalLM", "LMHeadModel"))


def _suffix(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[1:])


def _short(targets: Sequence[str], all_modules: Sequence[str]) -> list[str]:
    """Name targets by their last component where all modules of that name are targets."""
    chosen = Counter(module.rpartition(".")[2] for module in targets)
    there = Counter(module.rpartition(".")[2] for module in all_modules)
    return sorted(
        {
            leaf if chosen[leaf] == there[leaf] else module
            for module, leaf in ((m, m.rpartition(".")[2]) for m in targets)
        }
    )


def model_card(report: Mapping[str, Any], base: str) -> str:
    """Return README.md: what the adapter was made of, and how much of it is in it."""
    targets = report["targets"]
    worst = max(targets, key=lambda name: targets[name]["error"], default=None)
    text = (
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\ntags:\n- lora\n---\n\n"
        f"# {report['finetuned']} as an adapter\n\n"
        f"What {report['finetuned']} changed in {report['reference']}, as low-rank factors of "
        f"{len(targets)} weights; {len(report['whole'])} tensors are stored whole and "
        f"{len(report['left_out'])} changed ones are left out.\n"
    )
    if worst is not None:
        text += (
            f"\nRelative error (Frobenius): {report['error']:.3g} in all, at most "
            f"{targets[worst]['error']:.3g} ({worst}).\n"
        )
    return text
