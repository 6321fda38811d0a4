"""One conversation, answered by models side by side; they stay loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from trimtab.checkpoints import Checkpoint, open_checkpoint
from trimtab.checkpoints.hub import resolve
from trimtab.control import Control, Listening, Receiving
from trimtab.errors import UserError
from trimtab.evaluation import preview
from trimtab.evaluation.choosing import Connection, is_endpoint, named_judge, open_endpoint
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.endpoint import EndpointTarget
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.merged_target import role_targets
from trimtab.evaluation.probes import is_demo
from trimtab.evaluation.suite import TOY_LANGUAGE, Prompt
from trimtab.evaluation.targets import Loaded, LocalTarget, ModelTarget
from trimtab.evaluation.targets_writing import TokenStream
from trimtab.merging.recipe import Recipe, open_lineup

#: share of the free memory that a model may take before others have to go, and at all
_COMFORT, _MOST = 0.4, 0.9


@dataclass(frozen=True)
class Question:
    """A conversation of {"role", "content"} that ends with the user's words, and who answers it.

    The `roles` of `recipe` answer, where there is one, then `models`: folders, hub ids or
    endpoint:MODEL@URL, which are spoken to by `connection`. `judge` is a name as in
    `choosing.named_judge`, or "auto": the demo's for the demo's models, else "phrases".
    """

    recipe: Recipe | None
    roles: tuple[str, ...]
    conversation: tuple[Mapping[str, str], ...]
    decoding: Decoding
    device: str = "cpu"
    judge: str = "auto"
    models: tuple[str, ...] = ()
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True)
class _Speaker:
    """Who answers: a model that runs here, with what it is made of, or one behind an endpoint."""

    target: LocalTarget | EndpointTarget
    made_of: Checkpoint | None = None


#: models that wait for the next question, by fingerprint; the one used last stands last
_loaded: dict[str, LocalTarget] = {}


def answer(question: Question, control: Control) -> dict[str, Any]:
    """Let each model answer in its own chat template; returns answers and verdicts for JSON.

    While a model writes, the stage of `control` is its name, and who reads along hears what it has
    written so far; who takes parts gets each answer, as {"answer", "judge"}, when it has ended. The
    merge is not saved: its weights are the bits that a saved one would have, in the live preview's
    own model where that is loaded. A model that cannot answer has an error in place of an answer.
    Raises `UserError` with `nothing_asked`, `nobody_asked`, and as the lineup and judges do;
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
    if question.recipe is None and not question.models:
        raise UserError(
            "nobody_asked",
            "There is no model to answer.",
            "A chat asks one at least.",
            "Name a model folder, a recipe or an endpoint.",
        )
    demo = _asks_the_demo(question)
    name = ("demo" if demo else "phrases") if question.judge == "auto" else question.judge
    judge = named_judge(name, question.connection, control)
    prompt = Prompt("chat", "harmful", last["content"], language=TOY_LANGUAGE if demo else "en")
    answers: list[dict[str, Any]] = []
    used: set[str] = set()
    for found in _speakers(question):
        if isinstance(found, _Speaker):
            said: dict[str, Any] = {"name": found.target.name, "role": found.target.role}
            used.add(found.target.fingerprint)
            try:
                said |= _answer(question, found, judge, prompt, control)
            except UserError as error:
                said["error"] = error.to_dict()
        else:
            said = found
        answers.append(said)
        if isinstance(control, Receiving):
            control.part({"answer": said, "judge": judge.name})
    for fingerprint in set(_loaded) - used:
        _loaded.pop(fingerprint).close()
    return {
        "answers": answers,
        "judge": judge.name,
        "decoding": question.decoding.to_dict(),
        "decoding_sentence": question.decoding.sentence,
    }


def _asks_the_demo(question: Question) -> bool:
    if question.recipe is not None:
        return is_demo(open_lineup(question.recipe).reference.checkpoint.folder)
    return not is_endpoint(question.models[0]) and is_demo(Path(question.models[0]).expanduser())


def _speakers(question: Question) -> Iterator[_Speaker | dict[str, Any]]:
    """Yield who answers, in order; in place of one that cannot be opened what is said of it."""
    if question.recipe is not None:
        reference = open_lineup(question.recipe).reference.checkpoint
        for role in question.roles:
            try:
                targets = role_targets(question.recipe, (role,), device=question.device)
            except UserError as error:
                yield {"name": role, "role": role, "error": error.to_dict()}
                continue
            yield from (_Speaker(target, reference) for target in targets)
    for model in question.models:
        try:
            yield _model(model, question)
        except UserError as error:
            yield {"name": model, "role": "", "error": error.to_dict()}


def _model(model: str, question: Question) -> _Speaker:
    if is_endpoint(model):
        return _Speaker(EndpointTarget(open_endpoint(model, question.connection)))
    checkpoint = open_checkpoint(resolve(model, ""))
    # a folder of the hub's cache has a commit for its name
    name = "" if Path(model).expanduser().exists() else model
    return _Speaker(ModelTarget(checkpoint, name=name, device=question.device), checkpoint)


def _answer(
    question: Question, speaker: _Speaker, judge: Judge, prompt: Prompt, control: Control
) -> dict[str, Any]:
    begun = time.monotonic()
    target = speaker.target
    if isinstance(target, EndpointTarget):
        loaded = begun
        control.stage(target.name, 1)
        text = target.endpoint.chat(question.conversation, question.decoding, control)
        more: dict[str, Any] = {"tokens": None, "cut": False}
    else:
        assert speaker.made_of is not None
        ready = _ready(question, target, speaker.made_of, control)
        loaded = time.monotonic()
        # what loading had to report is over
        control.stage(target.name, 1)
        tokenizer = ready.loaded(control).tokenizer
        heard = control.say if isinstance(control, Listening) else lambda text: None
        stream = TokenStream(tokenizer, control, heard)
        text = ready.continue_conversation(
            question.conversation, question.decoding, control, stream
        )
        full = stream.tokens >= question.decoding.max_new_tokens
        more = {"tokens": stream.tokens, "cut": full and not stream.ended}
    written = time.monotonic()
    return {
        "text": text,
        **more,
        "verdict": asdict(judge.judge(prompt, text)),
        "loading_seconds": round(loaded - begun, 3),
        "seconds": round(written - loaded, 3),
        "fingerprint": target.fingerprint,
    }


def _ready(
    question: Question, target: LocalTarget, made_of: Checkpoint, control: Control
) -> LocalTarget:
    """Return the target loaded: as it waits here, lent by the preview, or anew."""
    waiting = _loaded.pop(target.fingerprint, None)
    if waiting is not None:
        _loaded[target.fingerprint] = waiting
        return waiting
    if target.role == "merged" and question.recipe is not None:
        lent = preview.lend(question.recipe, question.device, control)
        if lent is not None:
            model, tokenizer = lent
            # not kept: the preview puts other weights into it when the hand moves
            return LocalTarget(
                target.name, lambda *_: Loaded(model, tokenizer), "", device=question.device
            )
    _make_room(target, made_of)
    control.stage(f"Loading {target.name}", 1)
    target.loaded(control)
    _loaded[target.fingerprint] = target
    return target


def _make_room(target: LocalTarget, made_of: Checkpoint) -> None:
    """Let models go, the one used longest ago first, until another one fits.

    Raises `UserError` with `chat_too_large`.
    """
    count, stored = made_of.n_parameters, made_of.n_bytes
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
