"""Compares what lies beside the weights, and guesses from it who plays which part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trimtab.checkpoints.index import Checkpoint
from trimtab.checkpoints.lineup import Finding, Level, Member, Role

_CONFIG_KEYS: tuple[tuple[str, Level], ...] = (
    ("model_type", "error"),
    ("hidden_size", "error"),
    ("num_hidden_layers", "error"),
    ("num_attention_heads", "error"),
    ("num_key_value_heads", "error"),
    ("rope_theta", "warning"),
    ("rope_parameters", "warning"),
    ("rope_scaling", "warning"),
    ("rms_norm_eps", "warning"),
    ("hidden_act", "warning"),
    ("tie_word_embeddings", "warning"),
)


def compare_configs(member: Member, reference: Member) -> list[Finding]:
    """List the settings in which the two configs differ, and what follows from each."""
    own, ref = member.checkpoint.config, reference.checkpoint.config
    found: list[Finding] = []
    for key, level in _CONFIG_KEYS:
        if key in own and key in ref and own[key] != ref[key]:
            weak = member.role == "base" and level == "error"
            found.append(
                Finding("warning" if weak else level, "configs_differ", member.name,
                        f"{key} is {own[key]} here and {ref[key]} in {reference.name}.",
                        "They cannot be merged." if level == "error" and not weak
                        else f"The merged model keeps {reference.name}'s.")
            )  # fmt: skip
    return found


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token -> id as tokenizer.json says, None when there is no readable one."""
    try:
        content = json.loads((folder / "tokenizer.json").read_bytes())
        model = content["model"]["vocab"]
        vocabulary = (
            dict(model) if isinstance(model, dict) else {row[0]: i for i, row in enumerate(model)}
        )
        for token in content.get("added_tokens") or ():
            vocabulary[token["content"]] = token["id"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return vocabulary


def compare_tokenizers(member: Member, reference: Member) -> list[Finding]:
    """Compare what number each token has; models in single files have no tokenizer to compare."""
    paths = [m.checkpoint.folder / "tokenizer.json" for m in (member, reference)]
    if member.checkpoint.kind == "file" or not all(path.exists() for path in paths):
        return []
    if paths[0].read_bytes() == paths[1].read_bytes():
        return []
    own, ref = (_vocabulary(path.parent) for path in paths)
    if own is None or ref is None:
        return [
            Finding("warning", "tokenizer_unreadable", member.name,
                    "Its tokenizer.json cannot be compared.",
                    f"The merged model keeps {reference.name}'s tokenizer.")
        ]  # fmt: skip
    if own == ref:
        return []
    moved = [token for token, number in ref.items() if own.get(token) != number]
    added = [token for token in own if token not in ref]
    level: Level = "warning" if member.role == "base" or not moved else "error"
    return [
        Finding(level, "tokenizers_differ", member.name,
                f"{len(moved)} tokens have another number and {len(added)} are new.",
                "The same row would mean different words: use models with one tokenizer."
                if level == "error"
                else f"The merged model keeps {reference.name}'s tokenizer.",
                tuple(moved[:100] or added[:100]))
    ]  # fmt: skip


def _has_chat_template(checkpoint: Checkpoint) -> bool:
    folder = checkpoint.folder
    if (folder / "chat_template.jinja").exists():
        return True
    try:
        return "chat_template" in json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def guess_roles(checkpoints: Sequence[Checkpoint]) -> list[Role]:
    """Guess who plays which part from configs and names, for several folders dropped at once.

    Adapters are fine-tuned. A name with instruct, chat, aligned or -it speaks for the aligned
    model; a name with base or pt, or being the only one without a chat template, for the base.
    What is left is fine-tuned; with no sign at all the first is the aligned model.
    """
    roles: list[Role] = ["finetuned"] * len(checkpoints)
    plain = [i for i, c in enumerate(checkpoints) if c.kind != "adapter"]

    def words(i: int) -> set[str]:
        return set(checkpoints[i].name.casefold().replace("_", "-").replace(".", "-").split("-"))

    speaks_for_aligned = {"aligned", "instruct", "chat", "it", "safe", "rlhf", "dpo"}
    bases = [i for i in plain if words(i) & {"base", "pt", "pretrained", "foundation"}]
    aligned = [i for i in plain if i not in bases and words(i) & speaks_for_aligned]
    if not bases:
        without = [i for i in plain if not _has_chat_template(checkpoints[i])]
        bases = [i for i in without if len(without) == 1 < len(plain) and i not in aligned]
    if bases:
        roles[bases[0]] = "base"
    aligned.sort(key=lambda i: (len(checkpoints[i].name), i))
    rest = [i for i in plain if i not in bases]
    if aligned:
        roles[aligned[0]] = "aligned"
    elif rest and (not bases or len(rest) > 1):
        roles[rest[0]] = "aligned"
    return roles
