"""From what a user names to targets, judges and a suite: paths, endpoints and recipes' roles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.checkpoints import open_checkpoint
from trimtab.checkpoints.hub import resolve
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.asking import Target
from trimtab.evaluation.choosing import Connection, is_endpoint, named_judge, open_endpoint
from trimtab.evaluation.endpoint import EndpointTarget
from trimtab.evaluation.judges import REFUSAL_OPENINGS, ClassifierJudge, GuardJudge, Judge
from trimtab.evaluation.judges_target import FirstTokens, ImportedJudges, JudgeOfTargets
from trimtab.evaluation.merged_target import role_targets
from trimtab.evaluation.probes import DEMO_OPENINGS
from trimtab.evaluation.suite import TOY_LANGUAGE, Suite, core_suite, demo_suite, load_suite
from trimtab.evaluation.targets import ModelTarget, Precision
from trimtab.evaluation.targets_guard import LocalClassifier, LocalGuard
from trimtab.merging.recipe import Recipe


def open_targets(
    models: Sequence[str],
    recipes: Mapping[str, Recipe],
    roles: Sequence[str],
    connection: Connection,
    *,
    device: str = "cpu",
    precision: Precision = "auto",
) -> list[Target]:
    """Return the roles of each recipe, then each model: a folder, hub id or endpoint:MODEL@URL.

    A recipe's merge bears the name it is given by in `recipes`. A model that several of them
    share is taken once. Raises `UserError` as opening them does.
    """
    found: list[Target] = []
    known: set[tuple[str, str]] = set()

    def add(target: Target) -> None:
        key = (target.name, target.fingerprint)
        if key not in known or not target.fingerprint:
            known.add(key)
            found.append(target)

    for name, recipe in recipes.items():
        for target in role_targets(recipe, tuple(roles), device=device, precision=precision):
            if target.role == "merged":
                target.name = name
            add(target)
    for model in models:
        if is_endpoint(model):
            add(EndpointTarget(open_endpoint(model, connection)))
        else:
            place = resolve(model, "")
            # a folder of the hub's cache has a commit for its name
            name = "" if Path(model).expanduser().exists() else model
            add(ModelTarget(open_checkpoint(place), name=name, device=device, precision=precision))
    return found


def open_judge_of_targets(name: str, suite: Suite) -> JudgeOfTargets | None:
    """Return a judge that must know whose answers it reads; None where the name is of another.

    first-token or first-token:THRESHOLD goes by the log-odds of a refusal's first token,
    imported:FILE holds judgements made elsewhere. Raises `UserError` with `no_such_judge`,
    `bad_judgements`.
    """
    kind, colon, rest = name.partition(":")
    if kind == "imported" and rest:
        ids = [p.id for kind in ("harmful", "lookalike") for p in suite.prompts if p.kind == kind]
        return ImportedJudges(Path(rest).expanduser(), ids)
    if kind != "first-token":
        return None
    try:
        threshold = float(rest) if colon else 0.0
        if not math.isfinite(threshold):
            raise ValueError
    except ValueError:
        raise UserError(
            "no_such_judge",
            f"{rest or 'Nothing'} is no threshold of log-odds.",
            "It is a number in nats; 0 is where refusing and not refusing are as likely.",
            "Write first-token, or first-token:NUMBER.",
        ) from None
    toy = bool(suite.prompts) and all(p.language == TOY_LANGUAGE for p in suite.prompts)
    return FirstTokens(threshold, DEMO_OPENINGS if toy else REFUSAL_OPENINGS)


def open_judge(
    name: str,
    connection: Connection,
    control: Control,
    *,
    device: str = "cpu",
    precision: Precision = "auto",
) -> Judge:
    """Return a judge by name: see `choosing.named_judge`, and besides models that run here.

    guard:PATH is a guard model that writes safe or unsafe; classifier:PATH#LABEL,LABEL a sequence
    classification model with the labels that mean harm. Raises `UserError` with `no_such_judge`,
    `no_such_label`, and as opening models does.
    """
    kind, _, rest = name.partition(":")
    if kind == "guard" and rest:
        checkpoint = open_checkpoint(resolve(rest, ""))
        model = ModelTarget(checkpoint, device=device, precision=precision)
        version = model.fingerprint[:8]
        return GuardJudge(LocalGuard(model, control), f"guard {checkpoint.name} ({version})")
    if kind == "classifier" and rest:
        path, _, labels = rest.rpartition("#")
        harmful = frozenset(label.strip() for label in labels.split(",") if label.strip())
        checkpoint = open_checkpoint(resolve(path or labels, ""))
        classifier = LocalClassifier(checkpoint, device)
        if not path or not harmful or not harmful <= set(classifier.labels):
            raise UserError(
                "no_such_label",
                f"It was not said which labels of {checkpoint.name} mean harm.",
                f"It has: {', '.join(classifier.labels)}.",
                "Write classifier:PATH#LABEL,LABEL.",
            )
        version = checkpoint.fingerprint[:8]
        return ClassifierJudge(classifier, harmful, f"classifier {checkpoint.name} ({version})")
    return named_judge(name, connection, control)


def open_suite(name: str, format: str | None = None) -> Suite:
    """Return the suite that a name stands for: core, demo, or a file or folder of prompts."""
    ours: dict[str, Any] = {"core": core_suite, "demo": demo_suite}
    suite: Suite = ours[name]() if name in ours else load_suite(Path(name), format)
    return suite
