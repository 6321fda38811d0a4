"""Measures one recipe of a lineup after another: what is loaded once, and what a trial costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from trimtab.control import Control
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.preview_model import PreviewModel
from trimtab.evaluation.preview_reading import Reading
from trimtab.evaluation.preview_rows import tokenise
from trimtab.evaluation.preview_weights import MergedWeights, refuse_other_shapes
from trimtab.evaluation.probes import DEMO_OPENINGS, OPENINGS, ProbeSet, is_demo
from trimtab.evaluation.suite import Suite
from trimtab.evaluation.targets import Loaded, LocalTarget, runnable
from trimtab.evaluation.targets_loading import load_model, load_tokenizer
from trimtab.merging.planner import plan_merge
from trimtab.merging.recipe import Recipe, open_lineup
from trimtab.search.objectives import Source

#: what probes call the numbers that a sweep knows by shorter names
_PROBED = {
    "refusal": "refusal_share",
    "task": "task_accuracy",
    "kl": "kl",
    "perplexity": "perplexity",
    "refusal_margin": "refusal_margin",
    "task_margin": "task_margin",
}


@dataclass(frozen=True)
class Work:
    """What trials are measured on and how; goes to other processes as it is.

    `suite` is the part that is searched on. `room` is how many bytes of the models a process may
    keep in memory, `threads` how many torch may use, 0 for its own choice.
    """

    recipe: Recipe
    suite: Suite
    measure: Source
    decoding: Decoding
    device: str
    room: int
    threads: int = 0


@dataclass(frozen=True)
class Raw:
    """What a merge did: numbers that need no judge, and by prompt id its answers and choices."""

    numbers: dict[str, float | None]
    answers: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)


class _Silent:
    """Stops when another `Control` does and reports nothing: trials are counted whole."""

    def __init__(self, check: Callable[[], None]):
        self.check = check

    def stage(self, name: str, total: int, bytes_total: int = 0) -> None:
        """Report to nobody."""

    def advance(self, items: int = 0, n_bytes: int = 0) -> None:
        """Report to nobody."""


class Bench:
    """A lineup in memory with the prompts that are searched on.

    The reference is loaded as a transformers model once, and takes the weights of one merge after
    another: those of a merge to disk, bit for bit, of which only what a recipe changes is made
    anew. Raises `UserError` as `load_model` and `tokenise` do, `JobCancelled` between steps.
    """

    def __init__(self, work: Work, control: Control):
        if work.threads:
            torch.set_num_threads(work.threads)
        self._work = work
        self._lineup = open_lineup(work.recipe)
        reference = self._lineup.reference.checkpoint
        runnable(reference)
        demo = is_demo(reference.folder)
        tokenizer = load_tokenizer(reference.folder)
        control.check()
        dtype = torch.float32 if work.device == "cpu" else None
        model = load_model(reference.folder, work.device, dtype)
        model.eval()
        control.check()
        text = model.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None) or 1 << 30
        suite = work.suite
        common: dict[str, Any] = {
            "suite": suite.name, "digest": suite.digest,
            "openings": DEMO_OPENINGS if demo else OPENINGS, "whole": demo,
        }  # fmt: skip
        usable = [p for p in suite.by_kind("utility") if p.answer is not None or p.reference]
        probes = ProbeSet(
            harmful=suite.by_kind("harmful"), tasks=tuple(usable), texts=suite.by_kind("text"),
            **common,
        )  # fmt: skip
        rows = tokenise(probes, tokenizer, positions, int(text.vocab_size))
        self._model = PreviewModel(model, reference, rows)
        self._lookalikes: PreviewModel | None = None
        if suite.by_kind("lookalike"):
            alike = ProbeSet(harmful=suite.by_kind("lookalike"), tasks=(), texts=(), **common)
            rows = tokenise(alike, tokenizer, positions, int(text.vocab_size))
            self._lookalikes = PreviewModel(model, reference, rows)
        loaded = Loaded(model, tokenizer)
        self._target = LocalTarget("merge", lambda *_: loaded, "", device=work.device)
        # what a held-out set cannot be asked in is said now, and not after the search
        asked = [p for p in suite.prompts if p.kind != "text"][:1]
        self._target.first_token_logits(asked, work.decoding, _Silent(control.check))
        self._weights = MergedWeights(work.room)
        self._reference: Reading = self._model.measure(_Silent(control.check))

    def close(self) -> None:
        """Give back files and memory."""
        self._weights.close()
        self._target.close()

    def measure(self, recipe: Recipe, control: Control) -> Raw:
        """Return what a recipe's merge does.

        Raises `UserError` as a merge of the recipe would, `JobCancelled` between layers.
        """
        quiet = _Silent(control.check)
        plan = plan_merge(recipe, self._lineup)
        refuse_other_shapes(plan)
        self._weights.update(plan, quiet)
        self._model.take(self._weights, self._weights.take_changed())
        values = self._model.measure(quiet, self._reference).values
        numbers = {name: values[known].value for name, known in _PROBED.items()}
        numbers["over_refusal"] = None
        if self._lookalikes is not None:
            alike = self._lookalikes.measure(quiet).values
            numbers["over_refusal"] = alike["refusal_share"].value
        if self._work.measure == "probes":
            return Raw(numbers)
        asked = [p for p in self._work.suite.prompts if p.kind != "text"]
        decoding = self._work.decoding
        said = self._target.generate(asked, decoding, quiet)
        questions = [p for p in asked if p.choices]
        scores = self._target.choice_log_likelihoods(questions, decoding, quiet)
        return Raw(
            numbers,
            {p.id: answer for p, answer in zip(asked, said, strict=True)},
            {p.id: max(range(len(s)), key=s.__getitem__)
             for p, s in zip(questions, scores, strict=True)},
        )  # fmt: skip
