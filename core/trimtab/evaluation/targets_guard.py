"""Guard models and classifiers that run here, as judges ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForSequenceClassification

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.suite import Prompt
from trimtab.evaluation.targets import LocalTarget
from trimtab.evaluation.targets_loading import load_model_of, load_tokenizer

#: "unsafe" and a line of categories
_REPLY = Decoding(max_new_tokens=32)


class LocalGuard:
    """A guard model, such as Llama Guard, asked in its own chat template about an exchange."""

    def __init__(self, target: LocalTarget, control: Control):
        self.target = target
        self._control = control

    def classify(self, prompt: Prompt, answer: str) -> str:
        """Return what the model writes of this exchange, by greedy decoding."""
        exchange = [
            {"role": "user", "content": prompt.asked},
            {"role": "assistant", "content": answer},
        ]
        return self.target.continue_conversation(exchange, _REPLY, _Silent(self._control))


class _Silent:
    """Passes the wish to stop on, and counts nothing: the judge's caller counts its answers."""

    def __init__(self, control: Control):
        self.check = control.check

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Report nothing."""

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Report nothing."""


class LocalClassifier:
    """A sequence classification model that reads prompt and answer as a pair of texts.

    What does not fit is cut from the longer of the two. Probabilities are sigmoids where the config
    calls the problem multi-label or there is one output, else a softmax; computed in float32.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu"):
        folder = checkpoint.path
        if checkpoint.kind != "folder" or not checkpoint.config:
            raise UserError(
                "cannot_run",
                f"{checkpoint.name} cannot be run.",
                "A classifier is a folder with config, tokenizer and weights.",
                "Choose such a folder.",
                details=str(folder),
            )
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model_of(
            AutoModelForSequenceClassification, Path(folder), device, torch.float32
        )
        self.model.eval()
        config: Any = self.model.config
        self.labels: Sequence[str] = [config.id2label[i] for i in range(config.num_labels)]
        several = config.problem_type == "multi_label_classification"
        self._each_alone = several or config.num_labels == 1
        self._device = device

    @torch.inference_mode()
    def probabilities(self, prompt: Prompt, answer: str) -> Sequence[float]:
        """Return one probability a label."""
        room = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        batch = self.tokenizer(
            prompt.asked, answer, truncation=room is not None, max_length=room, return_tensors="pt"
        ).to(self._device)
        logits = cast(Any, self.model)(**batch).logits[0].float()
        found = logits.sigmoid() if self._each_alone else logits.softmax(-1)
        return cast(list[float], found.tolist())
