"""Makes the skeleton of a model from its config, without weights, and loads its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from trimtab.errors import UserError

#: what every call of transformers is given: no network, no code of a model's own
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
#: what transformers raises for folders that it cannot make a model of
REFUSALS = (
    OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError,
    StrictDataclassError,
)  # fmt: skip


def load_skeleton(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return the causal language model of a folder with every weight on the meta device.

    What a model computes of its config alone, such as the frequencies of rotary embeddings, is
    there, on the CPU. Raises `UserError` with `cannot_run`.
    """
    quiet()
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=False
            )
        _compute_buffers(model)
    except REFUSALS as error:
        raise UserError(
            "cannot_run",
            f"{folder.name} cannot be run.",
            f"transformers says: {first_line(error)}",
            "Models that bring code of their own are not run; others may need a newer version.",
            details=str(error),
        ) from error
    model.eval()
    return model


def positions_of(config: Any) -> int | None:
    """Return how many positions a model has, where its config says so."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


@torch.no_grad()
def _compute_buffers(model: PreTrainedModel) -> None:
    """Give a model on the meta device the buffers that no file holds."""
    for module in model.modules():
        lost = {name: b for name, b in module.named_buffers(recurse=False) if b.is_meta}
        for name, buffer in lost.items():
            setattr(module, name, torch.zeros_like(buffer, device="cpu"))
        if lost:
            # what transformers itself does for them when it loads a model
            model._init_weights(module)


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer. Raises `UserError` with `no_tokenizer`."""
    quiet()
    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except REFUSALS as error:
        raise UserError(
            "no_tokenizer",
            f"{folder.name}'s tokenizer cannot be loaded.",
            f"transformers says: {first_line(error)}",
            "A model is asked in tokens: put its tokenizer files beside the weights.",
            details=str(error),
        ) from error


def quiet() -> None:
    """Leave to us what is said of a model: what is wrong with it is an error here, or nothing."""
    disable_progress_bar()
    set_verbosity_error()


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
