"""One conversation, answered by the models of a recipe side by side; they stay loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

from trimtab.checkpoints import Checkpoint
from trimtab.control import Control, Listening
from trimtab.errors import UserError
from trimtab.evaluation import preview
from trimtab.evaluation.choosing import Connection, named_judge
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.merged_target import role_targets
from trimtab.evaluation.probes import is_demo
from trimtab.evaluation.suite import TOY_LANGUAGE, Prompt
from trimtab.evaluation.targets import Loaded, LocalTarget
from trimtab.evaluation.targets_writing import TokenStream
from trimtab.merging.recipe import Recipe, open_lineup

#: share of the free memory that a model may take before others have to go, and at all
_COMFORT, _MOST = 0.4, 0.9


@dataclass(frozen=True)
class Question:
    """A conversation of {"role", "content"} that ends with the user's words, and who answers it.

    `judge` is a name as in `choosing.named_judge`, or "auto": the demo's for the demo's models,
    else "phrases".
    """

    recipe: Recipe
    roles: tuple[str, ...]
    conversation: tuple[Mapping[str, str], ...]
    decoding: Decoding
    device: str = "cpu"
    judge: str = "auto"


#: models that wait for the next question, by fingerprint; the one used last stands last
_loaded: dict[str, LocalTarget] = {}


def answer(question: Question, control: Control) -> dict[str, Any]:
    """Let each role answer in its own chat template; returns answers and verdicts for JSON.

    While a model writes, the stage of `control` is its name, and who reads along hears what it has
    written so far. The merge is not saved: its weights are the bits that a saved one would have,
    in the live preview's own model where that is loaded. A model that cannot answer has an error
    in place of an answer. Raises `UserError` with `nothing_asked`, and as the lineup and judges do;
    `JobCancelled` between tokens.
    """
    last = question.conversation[-1]
    if last["role"] != "user" or not last["content"].strip():
        raise UserError(
            "nothing_asked",
            "There is nothing to answer.",
            "A conversation ends with what the user says.",
            "Write something.",
        )
    reference = open_lineup(question.recipe).reference.checkpoint
    demo = is_demo(reference.folder)
    name = ("demo" if demo else "phrases") if question.judge == "auto" else question.judge
    judge = named_judge(name, Connection(), control)
    prompt = Prompt("chat", "harmful", last["content"], language=TOY_LANGUAGE if demo else "en")
    answers: list[dict[str, Any]] = []
    used: set[str] = set()
    for role in question.roles:
        try:
            targets = role_targets(question.recipe, (role,), device=question.device)
        except UserError as error:
            answers.append({"name": role, "role": role, "error": error.to_dict()})
            continue
        used |= {target.fingerprint for target in targets}
        for target in targets:
            said: dict[str, Any] = {"name": target.name, "role": target.role}
            try:
                said |= _answer(question, target, reference, judge, prompt, control)
            except UserError as error:
                said["error"] = error.to_dict()
            answers.append(said)
    for fingerprint in set(_loaded) - used:
        _loaded.pop(fingerprint).close()
    return {
        "answers": answers,
        "judge": judge.name,
        "decoding": question.decoding.to_dict(),
        "decoding_sentence": question.decoding.sentence,
    }


def _answer(
    question: Question,
    target: LocalTarget,
    reference: Checkpoint,
    judge: Judge,
    prompt: Prompt,
    control: Control,
) -> dict[str, Any]:
    begun = time.monotonic()
    ready = _ready(question, target, reference, control)
    loaded = time.monotonic()
    # what loading had to report is over
    control.stage(target.name, 1)
    tokenizer = ready.loaded(control).tokenizer
    heard = control.say if isinstance(control, Listening) else lambda text: None
    stream = TokenStream(tokenizer, control, heard)
    text = ready.continue_conversation(question.conversation, question.decoding, control, stream)
    return {
        "text": text,
        "tokens": stream.tokens,
        "cut": stream.tokens >= question.decoding.max_new_tokens and not stream.ended,
        "verdict": asdict(judge.judge(prompt, text)),
        "loading_seconds": round(loaded - begun, 3),
        "seconds": round(time.monotonic() - loaded, 3),
        "fingerprint": target.fingerprint,
    }


def _ready(
    question: Question, target: LocalTarget, reference: Checkpoint, control: Control
) -> LocalTarget:
    """Return the target loaded: as it waits here, lent by the preview, or anew."""
    waiting = _loaded.pop(target.fingerprint, None)
    if waiting is not None:
        _loaded[target.fingerprint] = waiting
        return waiting
    if target.role == "merged":
        lent = preview.lend(question.recipe, question.device, control)
        if lent is not None:
            model, tokenizer = lent
            # not kept: the preview puts other weights into it when the hand moves
            return LocalTarget(
                target.name, lambda *_: Loaded(model, tokenizer), "", device=question.device
            )
    _make_room(target, reference)
    control.stage(f"Loading {target.name}", 1)
    target.loaded(control)
    _loaded[target.fingerprint] = target
    return target


def _make_room(target: LocalTarget, reference: Checkpoint) -> None:
    """Let models go, the one used longest ago first, until another one fits.

    Raises `UserError` with `chat_too_large`.
    """
    count, stored = reference.n_parameters, reference.n_bytes
    needed = 4 * count if target.precision == "float32" else stored
    if target.role == "merged" and target.device == "cpu":
        needed += stored  # it is merged before it is loaded
    while _loaded and needed > _COMFORT * _free(target.device):
        _loaded.pop(next(iter(_loaded))).close()
    if needed > _MOST * _free(target.device):
        preview.release()
    free = _free(target.device)
    if needed > _MOST * free:
        raise UserError(
            "chat_too_large",
            f"{target.name} is too large to answer here.",
            f"It takes {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free.",
            "Close other programs, or use a device with more memory.",
        )


def _free(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def release(least: int = 0) -> None:
    """Let go of the models, if they are at least so many bytes together."""
    if sum(target.nbytes for target in _loaded.values()) >= least:
        for target in _loaded.values():
            target.close()
        _loaded.clear()
