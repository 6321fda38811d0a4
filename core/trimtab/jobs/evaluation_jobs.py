"""The jobs that ask models: an evaluation on a suite, a decision on one, and a chat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.activations.calibration import Calibration, Example, load_calibration
from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.asking import Target
from trimtab.evaluation.chat import Question, answer
from trimtab.evaluation.choosing import Connection, open_ask
from trimtab.evaluation.comparing import compare_answers
from trimtab.evaluation.controls import LINEAR, RANDOM, half_linear, random_masks
from trimtab.evaluation.decisions import decide as add_decision
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judges import Judge
from trimtab.evaluation.judges_target import JudgeOfTargets
from trimtab.evaluation.lm_eval import TaskNumber, find_harness, has_template, run_tasks
from trimtab.evaluation.merged_target import MergedTarget
from trimtab.evaluation.opening import (
    open_judge,
    open_judge_of_targets,
    open_suite,
    open_targets,
)
from trimtab.evaluation.results import Results, load_results
from trimtab.evaluation.run import evaluate as run_evaluation
from trimtab.evaluation.run import limited
from trimtab.evaluation.suite import Suite
from trimtab.evaluation.suite_calibration import (
    check_calibration,
    limits_of_calibration,
    refuse_overlap,
)
from trimtab.evaluation.tables import tables, verdict_of
from trimtab.evaluation.targets import LocalTarget
from trimtab.evaluation.thresholds import now, parse_thresholds
from trimtab.jobs.common import chosen_devices, keep
from trimtab.jobs.evaluation_params import ChatParams, DecideParams, EvaluateParams
from trimtab.jobs.hashes import hashes_of
from trimtab.merging.engine import run_merge
from trimtab.merging.place import output_exists
from trimtab.paths import cache_dir
from trimtab.search.board import BOARD
from trimtab.search.spec import load_spec
from trimtab.search.split import split


def evaluate(params: EvaluateParams, control: Control) -> dict[str, Any]:
    """Evaluate models and leave the results as JSON, in the cache unless a place is named."""
    begun = now()
    output = None if params.output is None else Path(params.output).expanduser().absolute()
    if output is not None and output.exists() and not params.overwrite:
        raise output_exists(output)  # before anything is asked
    thresholds = parse_thresholds(
        params.thresholds, params.thresholds_set or begun, params.thresholds_source
    )
    decoding = Decoding.of(params.decoding)
    suite = open_suite(params.suite, params.format)
    if params.limit is not None:
        suite = limited(suite, params.limit)
    named = [_calibration(name) for name in params.calibration]
    checked = check_calibration(suite, params.recipes.values(), named)
    if not params.allow_overlap:
        refuse_overlap(checked, suite)
    connection = Connection(params.key_variable, params.timeout, params.concurrency)
    ask = open_ask(params.compare, connection, control) if params.compare else None
    device = chosen_devices(params.device)[0]
    targets = open_targets(
        params.models, params.recipes, params.roles, connection,
        device=device, precision=params.precision,
    )  # fmt: skip
    judges = [_judge(name, params, suite, device, connection, control) for name in params.judges]
    if params.lm_eval:
        find_harness()  # before anything is asked
    if params.controls:
        targets += _controls(params, device, control)
    results = run_evaluation(
        targets, suite, judges, decoding, control, baseline=params.baseline,
        cache=None if params.fresh else cache_dir() / "answers",
    )  # fmt: skip
    if ask is not None:
        results = replace(results, comparisons=compare_answers(results, *ask, control))
    if params.lm_eval:
        results = replace(results, tasks=tuple(_tasks(params, targets, decoding, control)))
    if params.hashes:
        results = _hashed(results, targets, control)
    provenance = {
        **results.provenance,
        "begun": begun,
        "calibration": [each.to_dict() for each in checked],
    }
    limits = (*results.limits, *limits_of_calibration(checked))
    if params.lm_eval and (bare := [t.name for t in targets if not isinstance(t, LocalTarget)]):
        limits += (f"No tasks of the harness were run on {', '.join(bare)}: it needs weights.",)
    results = replace(results, thresholds=thresholds, limits=limits, provenance=provenance)
    return {"path": str(_kept(results, output))}


def _kept(results: Results, output: Path | None) -> Path:
    """Write results where they were wanted, or into the cache; return where they are."""
    extra = tables(results)
    if output is not None:
        results.save(output, extra)
        return output
    path = cache_dir() / "evaluations" / f"{results.digest}.json"
    try:
        keep(path, results.to_json(extra))
    except OSError as error:
        raise UserError(
            "cannot_write",
            "The results could not be kept.",
            f"The system says: {error.strerror}.",
            "Make room in the cache folder, or name a place with --output.",
            details=str(error),
        ) from error
    return path


def _judge(
    name: str,
    params: EvaluateParams,
    suite: Suite,
    device: str,
    connection: Connection,
    control: Control,
) -> Judge | JudgeOfTargets:
    return open_judge_of_targets(name, suite) or open_judge(
        name, connection, control, device=device, precision=params.precision
    )


def _tasks(
    params: EvaluateParams, targets: list[Target], decoding: Decoding, control: Control
) -> Iterator[TaskNumber]:
    """Have the harness run its tasks on each target that has weights; merges are saved for it."""
    for target in targets:
        if not isinstance(target, LocalTarget):
            continue
        with _folder(target, control) as folder:
            yield from run_tasks(
                target.name, folder, params.lm_eval, control,
                device=target.device,
                dtype="float32" if target.precision == "float32" else "auto",
                batch_size=decoding.batch_size,
                seed=decoding.seed,
                limit=params.limit,
                include=params.lm_eval_include,
                template=decoding.template == "model" and has_template(folder),
            )  # fmt: skip


@contextmanager
def _folder(target: LocalTarget, control: Control) -> Iterator[Path]:
    """Give the folder of a target's model: its own, or one that lasts as long as it is needed."""
    if not isinstance(target, MergedTarget):
        yield Path(target.describe()["path"])
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="lm-eval-", dir=cache_dir()) as place:
        run_merge(target.plan, Path(place) / "merged", control, device=["cpu"])
        yield Path(place) / "merged"


def _hashed(results: Results, targets: list[Target], control: Control) -> Results:
    hashes = hashes_of(targets, control)
    infos = tuple(
        replace(info, about={**info.about, "sha256": hashes[info.name]})
        if hashes[info.name]
        else info
        for info in results.targets
    )
    return replace(results, targets=infos)


def _calibration(name: str) -> Calibration:
    """Return a calibration set: shipped, a file, a suite, or what a sweep's folder searched on."""
    folder = Path(name).expanduser()
    if (folder / BOARD).exists():
        spec = load_spec(folder)
        whole = open_suite(spec.suite, spec.format)
        return _of_suite(split(whole, spec.seed, spec.held_out).search, folder.name)
    if name in ("core", "demo") or folder.is_dir():
        return _of_suite(open_suite(name), name)
    return load_calibration(name)


def _of_suite(suite: Suite, name: str) -> Calibration:
    return Calibration(name, tuple(Example(p.id, p.asked) for p in suite.prompts))


def _controls(params: EvaluateParams, device: str, control: Control) -> Iterator[Target]:
    """Yield what each recipe's merge has to be better than."""
    for name, recipe in params.recipes.items():
        mark = "" if len(params.recipes) == 1 else f" ({name})"
        pairs = (
            (LINEAR, half_linear(recipe)),
            (RANDOM, random_masks(recipe, cache_dir() / "controls", control)),
        )
        for title, plain in pairs:
            if plain is not None and plain.finetuned:
                yield MergedTarget(
                    plain, name=title + mark, device=device, precision=params.precision,
                    role="control",
                )  # fmt: skip


def decide(params: DecideParams, control: Control) -> dict[str, Any]:
    """Add a decision on a results file to a log."""
    path = Path(params.results).expanduser().absolute()
    results = load_results(path)
    made = add_decision(
        Path(params.log).expanduser().absolute(),
        path,
        who=params.who,
        evaluation=results.digest,
        thresholds=results.thresholds,
        verdicts={target.name: verdict_of(results, target.name) for target in results.targets},
        choice=params.choice,
        note=params.note,
    )
    return asdict(made)


def chat(params: ChatParams, control: Control) -> dict[str, Any]:
    """Put one conversation to several models; they stay loaded for the next one."""
    question = Question(
        params.recipe,
        params.roles,
        tuple(message.model_dump() for message in params.conversation),
        Decoding(
            max_new_tokens=params.max_new_tokens, temperature=params.temperature,
            top_p=params.top_p, seed=params.seed, batch_size=1,
        ),
        chosen_devices(params.device)[0],
        params.judge,
        params.models,
        Connection(params.key_variable, params.timeout),
    )  # fmt: skip
    return answer(question, control)
