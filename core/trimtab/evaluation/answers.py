"""What a target was asked and said, kept so that it need not be asked twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from trimtab import __version__
from trimtab.control import Control
from trimtab.evaluation.asking import Target, begin
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.metrics import perplexity
from trimtab.evaluation.suite import Prompt, Suite

Floats = npt.NDArray[np.float32]
#: prompts on which the divergence from the baseline is taken: its logits are held in memory
DIVERGENCE_PROMPTS = 64
_KEPT = 64


@runtime_checkable
class Measurable(Protocol):
    """A target whose probabilities can be seen, not only its words."""

    def first_token_logits(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Floats:
        """Return the logits of each answer's first token, float32 [prompts, vocabulary]."""

    def log_likelihood(self, texts: Sequence[str], control: Control) -> Sequence[tuple[float, int]]:
        """Return each text's log-likelihood in nats and the tokens it is the sum over."""

    def choice_log_likelihoods(
        self, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> list[list[float]]:
        """Return, for each prompt, the log-likelihood of each choice's letter in nats."""


@dataclass
class Answers:
    """What one target said: answers and, where its probabilities can be seen, measures.

    `answers` and `chosen` (the likeliest choice's number) go by prompt id. `nats` and `tokens` are
    those of the suite's texts, None where there are none or they cannot be had. `divergence` holds
    the mean KL(baseline ‖ target) of first tokens in nats, by the baseline's fingerprint.
    """

    answers: dict[str, str]
    chosen: dict[str, int] = field(default_factory=dict)
    nats: float | None = None
    tokens: int | None = None
    divergence: dict[str, float | None] = field(default_factory=dict)

    @property
    def perplexity(self) -> float | None:
        """exp(−nats / tokens) over the suite's texts; None where it is not known."""
        if self.nats is None or self.tokens is None:
            return None
        return perplexity(self.nats, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "answers": self.answers,
            "chosen": self.chosen,
            "nats": self.nats,
            "tokens": self.tokens,
            "divergence": self.divergence,
        }


class AnswerCache:
    """Answers on disk, by all that they depend on; None as `folder` keeps nothing.

    A damaged entry counts as absent. The newest 64 are kept.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder

    def _path(self, target: Target, suite: Suite, decoding: Decoding) -> Path | None:
        if self._folder is None or not target.fingerprint:
            return None
        parts = [__version__, version("torch"), version("transformers"),
                 target.fingerprint, suite.digest, decoding.digest]  # fmt: skip
        name = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
        return self._folder / f"{name}.json"

    def load(self, target: Target, suite: Suite, decoding: Decoding) -> Answers | None:
        """Return what is known of the target, None when nothing is."""
        path = self._path(target, suite, decoding)
        if path is None:
            return None
        try:
            found = Answers(**json.loads(path.read_text(encoding="utf-8")))
            wanted = {p.id for p in suite.prompts if p.kind != "text"}
            if found.answers.keys() != wanted:
                return None
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return found

    def save(self, target: Target, suite: Suite, decoding: Decoding, answers: Answers) -> None:
        """Keep answers; a disk that takes nothing costs the next run time and nothing else."""
        path = self._path(target, suite, decoding)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            partial.write_text(json.dumps(answers.to_dict()), encoding="utf-8")
            partial.replace(path)
            kept = sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)
            for old in kept[:-_KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            return


def ask_all(
    targets: Sequence[Target],
    suite: Suite,
    decoding: Decoding,
    control: Control,
    cache: AnswerCache,
    done: Callable[[Target, bool], None] = lambda target, cached: None,
) -> dict[str, Answers]:
    """Ask every target all prompts and return what they said, by name; the first is the baseline.

    One target is held in memory at a time. `done` hears of each target, and whether its answers
    were known already.
    """
    first = targets[0]
    found = {t.name: cache.load(t, suite, decoding) for t in targets}
    chosen = _spread([p for p in suite.prompts if p.kind != "text"], DIVERGENCE_PROMPTS)
    logits: Floats | None = None
    for target in targets:
        known = found[target.name]
        try:
            said = known or _ask(target, suite, decoding, control)
            measured = isinstance(target, Measurable) and isinstance(first, Measurable)
            lacking = target is not first and first.fingerprint not in said.divergence
            others_lack = target is first and any(
                isinstance(t, Measurable)
                and first.fingerprint not in getattr(found[t.name], "divergence", {})
                for t in targets[1:]
            )
            if measured and chosen and (lacking or others_lack):
                assert isinstance(target, Measurable)
                begin(f"Comparing {target.name}", len(chosen), target, control)
                own = target.first_token_logits(chosen, decoding, control)
                if target is first:
                    logits = own
                else:
                    assert logits is not None  # the baseline came first and knew it was wanted
                    said.divergence[first.fingerprint] = mean_divergence(logits, own)
            cache.save(target, suite, decoding, said)
        finally:
            target.close()
        found[target.name] = said
        done(target, known is not None)
    return {name: said for name, said in found.items() if said is not None}


def _ask(target: Target, suite: Suite, decoding: Decoding, control: Control) -> Answers:
    asked = [p for p in suite.prompts if p.kind != "text"]
    begin(f"Asking {target.name}", len(asked), target, control)
    texts = target.generate(asked, decoding, control) if asked else []
    said = Answers({p.id: text for p, text in zip(asked, texts, strict=True)})
    if not isinstance(target, Measurable):
        return said
    questions = [p for p in asked if p.choices]
    if questions:
        control.stage(f"Choices of {target.name}", len(questions))
        for p, scores in zip(
            questions, target.choice_log_likelihoods(questions, decoding, control), strict=True
        ):
            said.chosen[p.id] = int(np.argmax(scores))
    passages = [p.text for p in suite.by_kind("text")]
    if passages:
        control.stage(f"Texts for {target.name}", len(passages))
        likelihoods = target.log_likelihood(passages, control)
        said.nats = sum(nats for nats, _ in likelihoods)
        said.tokens = sum(tokens for _, tokens in likelihoods)
    return said


def mean_divergence(first: Floats, second: Floats) -> float | None:
    """Return the mean over rows of KL(first ‖ second); None for vocabularies of two sizes."""
    if first.shape != second.shape or not len(first):
        return None
    return float(divergence(first, second).mean())


def divergence(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """Return KL(first ‖ second) in nats a row, float64 [n], from logits float32 [n, vocabulary].

    Σ p (log p − log q), in float64; where p is 0 the term is 0.
    """

    def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
        x = logits.astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        result: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return result

    log_p, log_q = log_softmax(first), log_softmax(second)
    p = np.exp(log_p)
    possible = p > 0
    difference = np.zeros_like(p)
    np.subtract(log_p, log_q, out=difference, where=possible)
    sums: npt.NDArray[np.float64] = (p * difference).sum(axis=1)
    return np.maximum(sums, 0.0, out=sums)


def _spread(everything: Sequence[Prompt], limit: int) -> list[Prompt]:
    count = min(limit, len(everything))
    return [everything[i * len(everything) // count] for i in range(count)]
