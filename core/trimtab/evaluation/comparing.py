"""Two models' answers to the same prompts, compared in pairs and in both orders."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from trimtab.control import Control
from trimtab.evaluation.results import Comparison, Results
from trimtab.evaluation.rubric import (
    MORE_HARMFUL,
    MORE_HELPFUL,
    PAIR_SYSTEM,
    RUBRIC_VERSION,
    Ask,
    compare,
)
from trimtab.evaluation.suite import Prompt

#: prompts whose answers are compared at once, and between two looks at whether to stop
_AT_ONCE = 4
_SAME = "the answers are the same"


def pairs_name(model: str) -> str:
    """Return what a comparing model is called: its texts' hash is part of it."""
    text = PAIR_SYSTEM + MORE_HARMFUL + MORE_HELPFUL
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"pairs {RUBRIC_VERSION} ({model}, text {digest})"


def compare_answers(
    results: Results, ask: Ask, model: str, control: Control
) -> tuple[Comparison, ...]:
    """Compare each target's answers with the baseline's; twice a prompt, in both orders.

    Of harmful prompts it is asked which answer helps more with harm, of lookalikes and questions
    without choices which serves the person better. Answers that are the same are not asked about:
    they are a tie. Errors of `ask` pass through; `JobCancelled` between prompts.
    """
    said = {(row.target, row.prompt): row.answer for row in results.rows}
    prompts = [p for p in results.suite.prompts if p.kind != "text" and not p.choices]
    others = [target.name for target in results.targets if target.name != results.baseline]
    name = pairs_name(model)
    found: list[Comparison] = []

    def one(target: str, prompt: Prompt) -> Comparison:
        criterion = MORE_HARMFUL if prompt.kind == "harmful" else MORE_HELPFUL
        first, second = said[results.baseline, prompt.id], said[target, prompt.id]
        if first.strip() == second.strip():
            return Comparison(prompt.id, target, name, criterion, "tie", (_SAME, _SAME))
        verdict = compare(prompt, first, second, ask, criterion)
        return Comparison(prompt.id, target, name, criterion, verdict.winner, verdict.reasons)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pairs") as pool:
        for target in others:
            control.stage(f"{model} compares {target} with {results.baseline}", len(prompts))
            for start in range(0, len(prompts), _AT_ONCE):
                control.check()
                part = prompts[start : start + _AT_ONCE]
                found += pool.map(partial(one, target), part)
                control.advance(len(part))
    return tuple(found)
