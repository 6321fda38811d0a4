"""Models that run here: answers, first-token logits and likelihoods, by transformers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.asking import messages, plain_text
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.suite_prompt import LETTERS, Prompt
from trimtab.evaluation.targets_loading import load_model, load_tokenizer
from trimtab.evaluation.targets_writing import TokenStream, generation_settings

Floats = npt.NDArray[np.float32]
#: "auto" computes in float32 on the CPU, and elsewhere in what the weights are stored in
Precision = Literal["auto", "float32", "stored"]
#: tokens of a text that are looked at together
_WINDOW = 2048
#: what decides an answer besides the weights
_DECIDING = (
    "config.json", "generation_config.json", "tokenizer", "chat_template", "vocab", "merges",
    "special_tokens", "added_tokens", "spiece", "sentencepiece",
)  # fmt: skip


class Loaded(NamedTuple):
    """A model ready to run and its tokenizer."""

    model: PreTrainedModel
    tokenizer: Any


class LikelihoodOf(NamedTuple):
    """The log-likelihood of a text in nats, and how many tokens it is the sum over."""

    nats: float
    tokens: int


class LocalTarget:
    """A causal language model that runs in this process; loaded when first asked.

    `load` makes the model. `dtype` of the computation follows from `precision` and `device`.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[str, torch.dtype | None, Control], Loaded],
        fingerprint: str,
        *,
        device: str = "cpu",
        precision: Precision = "auto",
        role: str = "",
        about: dict[str, Any] | None = None,
    ):
        self.name = name
        self.role = role
        self.device = device
        in_float = precision == "float32" or (precision == "auto" and device == "cpu")
        self.precision = "float32" if in_float else "stored"
        self.fingerprint = _joined(fingerprint, device.partition(":")[0], self.precision)
        self._dtype = torch.float32 if in_float else None
        self._load = load
        self._about = about or {}
        self._loaded: Loaded | None = None

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it, ready for JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "fingerprint": self.fingerprint,
            "device": self.device,
            "precision": self.precision,
            **self._about,
        }

    def close(self) -> None:
        """Give the model's memory back; the next call loads it again."""
        self._loaded = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory; 0 while it is not loaded."""
        if self._loaded is None:
            return 0
        state = self._loaded.model.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in state)

    def loaded(self, control: Control) -> Loaded:
        """Return model and tokenizer. Raises `UserError`: see `targets_loading`."""
        if self._loaded is None:
            control.check()
            self._loaded = self._load(self.device, self._dtype, control)
            self._loaded.model.eval()
        return self._loaded

    # Answers.

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[str]:
        """Return an answer a prompt, without the prompt and special tokens.

        Prompts are padded on the left, so that each answer follows its prompt at once. How long an
        answer may be ends where the model's positions do. The model's own generation settings
        count for nothing but its end tokens. Raises `UserError` with `no_chat_template`,
        `template_refused` or `prompt_too_long`; `JobCancelled` between batches.
        """
        rows = [self._ids(prompt, decoding, control) for prompt in prompts]
        return self._written(rows, decoding, control)

    def continue_conversation(
        self,
        conversation: Sequence[Mapping[str, str]],
        decoding: Decoding,
        control: Control,
        stream: TokenStream | None = None,
    ) -> str:
        """Return what the model writes after a conversation of {"role", "content"}.

        In its own chat template, whatever `decoding` says. With `stream`, which is given each
        token, it can be stopped between tokens. Raises as `generate` does.
        """
        _, tokenizer = self.loaded(control)
        text = self._framed(conversation, "The conversation", tokenizer)
        ids = self._fitting(_tokens(tokenizer, text, special=False), "conversation")
        return self._written([ids], decoding, control, stream)[0]

    @torch.inference_mode()
    def _written(
        self,
        rows: list[list[int]],
        decoding: Decoding,
        control: Control,
        stream: TokenStream | None = None,
    ) -> list[str]:
        model, tokenizer = self.loaded(control)
        # like lengths together: less padding; the order is a function of the prompts alone
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        answers = [""] * len(rows)
        for start in range(0, len(order), decoding.batch_size):
            control.check()
            chosen = order[start : start + decoding.batch_size]
            batch = self._padded([rows[i] for i in chosen], tokenizer)
            length = batch["input_ids"].shape[1]
            settings = generation_settings(decoding, model, tokenizer, _positions(model) - length)
            with torch.random.fork_rng(_cuda_devices(self.device), enabled=not decoding.greedy):
                if not decoding.greedy:
                    torch.manual_seed(decoding.seed + start)
                output = cast(Any, model).generate(
                    **batch, generation_config=settings, streamer=stream
                )
            texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = text
            control.advance(len(chosen))
        return answers

    # Likelihoods.

    def encode(self, text: str, control: Control) -> list[int]:
        """Return a text's tokens, without special ones."""
        return _tokens(self.loaded(control).tokenizer, text, special=False)

    @torch.inference_mode()
    def first_token_logits(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Floats:
        """Return the logits of each answer's first token, float32 [prompts, vocabulary]."""
        model, tokenizer = self.loaded(control)
        accepted = inspect.signature(model.forward).parameters
        found: list[Floats] = []
        for start in range(0, len(prompts), decoding.batch_size):
            control.check()
            chosen = prompts[start : start + decoding.batch_size]
            rows = [self._ids(prompt, decoding, control) for prompt in chosen]
            batch = self._padded(rows, tokenizer)
            more: dict[str, Any] = {}
            if "position_ids" in accepted:
                # padding shifts a row: its first token stands at position 0 all the same
                more["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
            if "logits_to_keep" in accepted:
                more["logits_to_keep"] = 1
            logits = model(**batch, **more, use_cache=False).logits[:, -1]
            found.append(logits.float().cpu().numpy())
            control.advance(len(chosen))
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    @torch.inference_mode()
    def log_likelihood(self, texts: Sequence[str], control: Control) -> list[LikelihoodOf]:
        """Return each text's log-likelihood, as it stands, without a chat template.

        The first token of a text, or of a window of 2048 tokens, is given and not counted.
        exp(−nats / tokens) is the perplexity.
        """
        model, tokenizer = self.loaded(control)
        window = min(_WINDOW, _positions(model))
        found = []
        for text in texts:
            ids = _tokens(tokenizer, text)
            nats, tokens = 0.0, 0
            for low in range(0, max(len(ids) - 1, 1), window):
                control.check()
                part = ids[low : low + window]
                if len(part) > 1:
                    nats += self._continued(model, tokenizer, [part[:1]], [part[1:]])[0]
                    tokens += len(part) - 1
            found.append(LikelihoodOf(nats, tokens))
            control.advance(1)
        return found

    @torch.inference_mode()
    def choice_log_likelihoods(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[list[float]]:
        """Return, for each prompt with choices, the log-likelihood of each choice's letter, nats.

        The letters follow the prompt where an answer would begin.
        """
        model, tokenizer = self.loaded(control)
        mark = "" if decoding.template == "model" else " "
        found = []
        for prompt in prompts:
            control.check()
            ids = self._ids(prompt, decoding, control)
            letters = [
                _tokens(tokenizer, mark + letter, special=False)
                for letter in LETTERS[: len(prompt.choices)]
            ]
            found.append(self._continued(model, tokenizer, [ids] * len(letters), letters))
            control.advance(1)
        return found

    def _continued(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        given: list[list[int]],
        then: list[list[int]],
    ) -> list[float]:
        """Return the log-likelihood in nats of each continuation, summed in float64."""
        rows = [a + b for a, b in zip(given, then, strict=True)]
        # padding on the right: what is looked at lies before it, and a causal model never sees it
        batch = self._padded(rows, tokenizer, left=False)
        logits = model(**batch, use_cache=False).logits.float().log_softmax(-1)
        found = []
        for i, (before, after) in enumerate(zip(given, then, strict=True)):
            at = torch.arange(len(before) - 1, len(before) + len(after) - 1)
            chosen = logits[i, at, torch.tensor(after, device=logits.device)]
            found.append(float(chosen.double().sum()))
        return found

    # Prompts as tokens.

    def _ids(self, prompt: Prompt, decoding: Decoding, control: Control) -> list[int]:
        _, tokenizer = self.loaded(control)
        if decoding.template == "plain":
            ids = _tokens(tokenizer, plain_text(prompt, decoding))
        else:
            text = self._framed(messages(prompt, decoding), f"The prompt {prompt.id}", tokenizer)
            ids = _tokens(tokenizer, text, special=False)
        return self._fitting(ids, f"prompt {prompt.id}")

    def _fitting(self, ids: list[int], what: str) -> list[int]:
        room = _positions(cast(Loaded, self._loaded).model)
        if len(ids) >= room:
            raise UserError(
                "prompt_too_long",
                f"The {what} does not fit in {self.name}.",
                f"It has {len(ids):,} tokens; the model has positions for {room:,}.",
                "Leave it out of the suite.",
            )
        return ids

    def _framed(self, conversation: Sequence[Mapping[str, str]], what: str, tokenizer: Any) -> str:
        from jinja2 import TemplateError

        if not tokenizer.chat_template:
            raise UserError(
                "no_chat_template",
                f"{self.name} has no chat template.",
                "Without one there is no telling how it wants to be asked.",
                "Choose the template plain, which puts the bare text.",
            )
        try:
            text: str = tokenizer.apply_chat_template(
                list(conversation), tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise UserError(
                "template_refused",
                f"{what} does not go into {self.name}'s chat template.",
                f"It says: {error}.",
                "Some templates know no system text: leave it away, or choose the template plain.",
            ) from error
        return text

    def _padded(self, rows: list[list[int]], tokenizer: Any, left: bool = True) -> dict[str, Any]:
        width = max(map(len, rows))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(row)
            mask[i, place] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}


class ModelTarget(LocalTarget):
    """A model folder, run as it is: local files alone, no code of the model's own."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str = "",
        device: str = "cpu",
        precision: Precision = "auto",
        role: str = "",
    ):
        runnable(checkpoint)
        folder = checkpoint.path

        def load(device: str, dtype: torch.dtype | None, control: Control) -> Loaded:
            tokenizer = load_tokenizer(folder)
            return Loaded(load_model(folder, device, dtype), tokenizer)

        super().__init__(
            name or checkpoint.name,
            load,
            _joined(checkpoint.fingerprint, deciding_files(folder)),
            device=device,
            precision=precision,
            role=role,
            about={"kind": "checkpoint", "path": str(folder)},
        )


def runnable(checkpoint: Checkpoint) -> None:
    """Raise `UserError` with `cannot_run` for what is no whole model folder."""
    if checkpoint.kind == "folder" and checkpoint.config:
        return
    if checkpoint.kind == "adapter":
        why = "An adapter runs on a model, and does not say surely on which."
        fix = "Write a recipe that names both, and evaluate its roles."
    else:
        why = "There is no config.json beside the weights, so their shape as a model is unknown."
        fix = "Choose the folder that holds config, tokenizer and weights."
    raise UserError(
        "cannot_run",
        f"{checkpoint.name} cannot be run.",
        why,
        fix,
        details=str(checkpoint.path),
    )


def deciding_files(folder: Path) -> str:
    """Return a hex digest of the small files that decide answers: config, tokenizer, template."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.startswith(_DECIDING):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _joined(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _tokens(tokenizer: Any, text: str, special: bool = True) -> list[int]:
    # what is too long is refused, or cut in windows: no warning is wanted
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _positions(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else 1 << 30


def _cuda_devices(device: str) -> list[int]:
    return [torch.device(device).index or 0] if device.startswith("cuda") else []
