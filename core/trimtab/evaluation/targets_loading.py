"""Loads models and tokenizers with transformers: local files, no pickles, no code of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
)

from trimtab.activations import loading
from trimtab.errors import UserError


def load_model(
    folder: Path,
    device: str,
    dtype: torch.dtype | None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load the causal language model of a folder to `device`, in `dtype` or as it is stored.

    With `tensors` the folder gives the config alone, and these are the weights, by the names that
    they have in the folder's files. Of the model's generation settings its token numbers are
    kept and nothing else. Raises `UserError` with `cannot_run`, or `weights_missing` where some
    of the model would be made up.
    """
    model = load_model_of(AutoModelForCausalLM, folder, device, dtype, tensors)
    model.generation_config = _token_numbers(folder, model)
    return model


def load_model_of(
    kind: Any,
    folder: Path,
    device: str,
    dtype: torch.dtype | None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load a model by one of transformers' auto classes, `kind`; otherwise as `load_model` does."""
    loading.quiet()
    wanted: Any = dtype or "auto"
    try:
        if tensors is None:
            model, info = kind.from_pretrained(
                folder,
                dtype=wanted,
                use_safetensors=True,
                output_loading_info=True,
                **loading.LOCAL,
            )
        else:
            config = AutoConfig.from_pretrained(folder, **loading.LOCAL)
            with torch.device("meta"):
                skeleton = kind.from_config(config, trust_remote_code=False)
            model, info = type(skeleton).from_pretrained(
                None,
                config=skeleton.config,
                state_dict=dict(tensors),
                dtype=wanted,
                output_loading_info=True,
            )
    except loading.REFUSALS as error:
        raise _cannot_run(folder, error) from error
    missing = sorted(info["missing_keys"])
    if missing or info.get("mismatched_keys"):
        raise UserError(
            "weights_missing",
            f"{folder.name} lacks weights that its config asks for.",
            f"{missing[0] if missing else 'A tensor of another shape'} would be made up.",
            "Get the model again, or correct its config.json.",
            details="\n".join(missing),
        )
    # transformers wraps to() without types
    cast(torch.nn.Module, model).to(device)
    return cast(PreTrainedModel, model)


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer, one that can pad. Raises `UserError` with `no_tokenizer`."""
    tokenizer = loading.load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def _token_numbers(folder: Path, model: Any) -> GenerationConfig:
    """Return the model's end, begin and padding tokens: generate() would mix in all the rest."""
    own = model.generation_config
    if (folder / "generation_config.json").is_file():
        own = GenerationConfig.from_pretrained(folder, local_files_only=True)
    keys = ("eos_token_id", "bos_token_id", "pad_token_id")
    return GenerationConfig(**{key: getattr(own, key, None) for key in keys})


def _cannot_run(folder: Path, error: Exception) -> UserError:
    return UserError(
        "cannot_run",
        f"{folder.name} cannot be run.",
        f"transformers says: {loading.first_line(error)}",
        "Models that bring code of their own are not run; others may need a newer transformers.",
        details=str(error),
    )
