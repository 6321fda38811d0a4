"""Runs an evaluation: every target answers every prompt, every judge reads every answer."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab import __version__
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.answers import AnswerCache, Answers, ask_all
from trimtab.evaluation.asking import Target
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Judge, Verdict
from trimtab.evaluation.judges_target import JudgeOfTargets
from trimtab.evaluation.results import JudgeInfo, Results, Row, TargetInfo, limits_of
from trimtab.evaluation.rubric import RubricJudge
from trimtab.evaluation.suite import Prompt, Suite
from trimtab.evaluation.thresholds import now

#: requests to a judge's endpoint under way at once
_ASKED_AT_ONCE = 4
#: answers that a judge reads between two looks at whether to stop
_READ_AT_ONCE = 64


def evaluate(
    targets: Sequence[Target],
    suite: Suite,
    judges: Sequence[Judge | JudgeOfTargets],
    decoding: Decoding,
    control: Control,
    *,
    baseline: str = "",
    cache: Path | None = None,
) -> Results:
    """Ask all targets the suite's prompts and let the judges read the answers.

    The targets are compared with `baseline`: the one named so, else the first that is an aligned
    model, else the first. One target is held in memory at a time. Answers are kept in the folder
    `cache`, and are not asked for again while target, suite and decoding are the same. Utility
    answers are not judged: they are right or wrong. Raises `UserError` with `nothing_to_evaluate`,
    `same_names`, `no_such_baseline`, and as targets and judges do; `JobCancelled` between batches.
    """
    begun, at = time.monotonic(), now()
    ordered = _ordered(targets, baseline)
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names) or not judges:
        raise UserError(
            "same_names" if judges else "nothing_to_evaluate",
            "Each judge is asked once." if judges else "There is no judge.",
            f"Given were: {', '.join(names) or 'none'}.",
            "Name each judge once, and one at least.",
        )
    if not any(prompt.kind != "text" for prompt in suite.prompts):
        raise UserError(
            "nothing_to_evaluate",
            f"The suite {suite.name} asks nothing.",
            "It holds no prompt but texts to be scored.",
            "Choose another suite, or a larger part of this one.",
        )
    for judge in judges:
        if isinstance(judge, JudgeOfTargets):
            judge.refuse(ordered)
    known: dict[str, bool] = {}
    said = ask_all(
        ordered, suite, decoding, control, AnswerCache(cache),
        lambda target, cached: known.update({target.name: cached}),
    )  # fmt: skip
    verdicts = {
        target.name: {
            judge.name: _judge(judge, suite, said[target.name], target, decoding, control)
            for judge in judges
        }
        for target in ordered
    }
    rows = tuple(
        Row(
            prompt.id,
            target.name,
            said[target.name].answers[prompt.id],
            {
                name: found[prompt.id]
                for name, found in verdicts[target.name].items()
                if prompt.id in found
            },
            said[target.name].chosen.get(prompt.id),
        )
        for target in targets
        for prompt in suite.prompts
        if prompt.kind != "text"
    )
    infos = tuple(
        _info(target, said[target.name], ordered[0], known[target.name]) for target in targets
    )
    judged = tuple(JudgeInfo(judge.name, tuple(sorted(judge.measures))) for judge in judges)
    return Results(
        suite,
        infos,
        judged,
        decoding,
        ordered[0].name,
        rows,
        {**_provenance(time.monotonic() - begun), "begun": at},
        (
            *limits_of(suite, judged, ordered[0].name),
            *(n for judge in judges if isinstance(judge, JudgeOfTargets) for n in judge.notes()),
        ),
    )


def limited(suite: Suite, count: int) -> Suite:
    """Return the suite with at most `count` prompts of each kind, evenly spread over its order.

    It has another version, and so another digest.
    """
    chosen: set[str] = set()
    for kind in ("harmful", "lookalike", "utility", "text"):
        everything = suite.by_kind(kind)
        n = min(count, len(everything))
        chosen |= {everything[i * len(everything) // n].id for i in range(n)}
    prompts = tuple(prompt for prompt in suite.prompts if prompt.id in chosen)
    if len(prompts) == len(suite.prompts):
        return suite
    version_of_part = f"{suite.version}, {count} of each kind"
    return Suite(suite.name, version_of_part, suite.licence, suite.source, prompts)


def _ordered(targets: Sequence[Target], baseline: str) -> list[Target]:
    """Return the targets with the baseline first."""
    names = [target.name for target in targets]
    if not targets:
        raise UserError(
            "nothing_to_evaluate",
            "There is no model to evaluate.",
            "An evaluation asks at least one.",
            "Name a model folder, a recipe or an endpoint.",
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            "same_names",
            f"Two models are called {twice}.",
            "Their answers could not be told apart.",
            "Give one of them a name of its own in a recipe, or rename its folder.",
        )
    if baseline and baseline not in names:
        raise UserError(
            "no_such_baseline",
            f"There is no model {baseline} to compare with.",
            f"There are: {', '.join(names)}.",
            "Name one of these.",
        )
    aligned = [target.name for target in targets if target.role == "aligned"]
    chosen = baseline or (aligned or names)[0]
    return sorted(targets, key=lambda target: target.name != chosen)


def _judge(
    given: Judge | JudgeOfTargets,
    suite: Suite,
    said: Answers,
    target: Target,
    decoding: Decoding,
    control: Control,
) -> dict[str, Verdict]:
    prompts = [*suite.by_kind("harmful"), *suite.by_kind("lookalike")]
    found: dict[str, Verdict] = {}
    if isinstance(given, JudgeOfTargets):
        try:
            judge = given.of(target, prompts, decoding, control)
        finally:
            target.close()
    else:
        judge = given
    control.stage(f"{given.name} reads {target.name}", len(prompts))

    def one(prompt: Prompt) -> Verdict:
        verdict = judge.judge(prompt, said.answers[prompt.id])
        control.advance(1)
        return verdict

    for start in range(0, len(prompts), _READ_AT_ONCE):
        control.check()
        part = prompts[start : start + _READ_AT_ONCE]
        found |= dict(zip((p.id for p in part), _each(one, judge, part), strict=True))
    return found


def _each(
    one: Callable[[Prompt], Verdict], judge: Judge, prompts: Sequence[Prompt]
) -> list[Verdict]:
    if not isinstance(judge, RubricJudge):
        return [one(prompt) for prompt in prompts]
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="judge") as pool:
        try:
            return list(pool.map(one, prompts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _info(target: Target, said: Answers, baseline: Target, cached: bool) -> TargetInfo:
    return TargetInfo(
        target.name,
        target.role,
        target.describe(),
        said.perplexity,
        said.tokens,
        None if target is baseline else said.divergence.get(baseline.fingerprint),
        cached,
    )


def _provenance(seconds: float) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "trimtab": __version__,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
