"""Works out what a merge changes in config.json: the vocabulary, and the number of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.checkpoints import Lineup
from trimtab.merging.recipe import Recipe
from trimtab.merging.slots import slices_of
from trimtab.merging.vocabulary import VocabularyPlan


def vocabulary_config(vocabulary: VocabularyPlan, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes in the config with the vocabulary: its size, special tokens' numbers."""
    nested = config.get("text_config")
    if "vocab_size" not in config and isinstance(nested, dict) and "vocab_size" in nested:
        return {"text_config": {**nested, **vocabulary_config(vocabulary, nested)}}
    found: dict[str, Any] = {"vocab_size": vocabulary.n_rows}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old = config.get(key)
        if isinstance(old, int):
            found[key] = vocabulary.new_id(old)
        elif isinstance(old, list):
            found[key] = [new for o in old if (new := vocabulary.new_id(o)) is not None]
    return found


def stacked_config(recipe: Recipe, lineup: Lineup) -> dict[str, Any]:
    """Return what changes in the config when layers are stacked: their number, and their kinds."""
    slices = slices_of(recipe)
    total = sum(s.sources[0].layers[1] - s.sources[0].layers[0] for s in slices)
    config = lineup.reference.checkpoint.config
    found: dict[str, Any] = {}
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if key in config:
            found[key] = total
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        members = {m.name: m for m in reversed(lineup.members)}
        found["layer_types"] = [
            (members[s.sources[0].model].checkpoint.config.get("layer_types") or kinds)[layer]
            for s in slices
            for layer in range(*s.sources[0].layers)
        ]
    if isinstance(config.get("text_config"), dict) and not found:
        found["text_config"] = {**config["text_config"], "num_hidden_layers": total}
    return found
