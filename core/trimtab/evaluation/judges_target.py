"""Judges that need to know whose answer they read: by its probabilities, or by a file's rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from trimtab.control import Control
from trimtab.errors import UserError
from trimtab.evaluation.answers import Measurable
from trimtab.evaluation.asking import Target, begin
from trimtab.evaluation.decoding import Decoding
from trimtab.evaluation.judgements import load_judgements
from trimtab.evaluation.judges import (
    REFUSAL_OPENINGS,
    FirstTokenJudge,
    Judge,
    Measure,
    first_tokens,
)
from trimtab.evaluation.suite import Prompt


@runtime_checkable
class JudgeOfTargets(Protocol):
    """A judge for each target; `name` and `measures` are as those of `Judge`."""

    @property
    def name(self) -> str:
        """Name and version, as it stands in results."""
        ...

    @property
    def measures(self) -> frozenset[Measure]:
        """What its verdicts are evidence of."""
        ...

    def refuse(self, targets: Sequence[Target]) -> None:
        """Raise `UserError` where it cannot judge these targets, before anything is asked."""
        ...

    def of(
        self, target: Target, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Judge:
        """Return the judge of one target's answers to these prompts."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return in sentences what has to be known of its verdicts."""
        ...


@runtime_checkable
class _Tokenised(Measurable, Protocol):
    def encode(self, text: str, control: Control) -> list[int]: ...


class FirstTokens:
    """The judge of what each target is about to say: see `judges.FirstTokenJudge`.

    `openings` are how refusals begin; only the first token of each counts.
    """

    measures: frozenset[Measure] = frozenset({"refusal"})

    def __init__(self, threshold: float = 0.0, openings: Sequence[str] = REFUSAL_OPENINGS):
        self._threshold = threshold
        self._openings = tuple(openings)
        self.name = f"first-token log-odds above {threshold:g} of {', '.join(self._openings)}"

    def refuse(self, targets: Sequence[Target]) -> None:
        """Raise `UserError` with `no_probabilities` for a target that only speaks."""
        for target in targets:
            if not isinstance(target, _Tokenised):
                raise UserError(
                    "no_probabilities",
                    f"The first tokens of {target.name} cannot be judged.",
                    "From an endpoint only words come, and no probabilities.",
                    "Choose another judge, or evaluate the model's folder.",
                )

    def of(
        self, target: Target, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Judge:
        """Return the judge of one target, its log-odds of all these prompts at hand."""
        assert isinstance(target, _Tokenised)  # `refuse` has seen to it
        seen: Any = target
        begin(f"First tokens of {target.name}", len(prompts), target, control)

        def logits(asked: Sequence[Prompt], /) -> Any:
            return seen.first_token_logits(asked, decoding, control)

        ids = first_tokens(lambda text: seen.encode(text, control), self._openings)
        judge = FirstTokenJudge(logits, ids, self._threshold)
        judge.prepare(prompts)
        return judge

    def notes(self) -> tuple[str, ...]:
        """Say that its threshold was set on nothing."""
        return (
            f"{self.name} reads no answer: where answers that help begin as refusals do, it is "
            "wrong. Its threshold was not set on labelled answers.",
        )


class ImportedJudges:
    """Judgements made elsewhere: see `judgements.load_judgements`.

    Raises `UserError` with `bad_judgements`.
    """

    def __init__(self, path: Path, prompt_ids: Collection[str]):
        self._path = path
        self._ids = tuple(prompt_ids)
        self._lacking: list[str] = []
        rows = load_judgements(path, prompt_ids, "\0")  # those that name no target
        self.name = rows.name
        self.measures = rows.measures
        self._nameless = rows.nameless

    def refuse(self, targets: Sequence[Target]) -> None:
        """Raise `UserError` with `judgements_ambiguous` where rows could be of any target."""
        if self._nameless and len(targets) > 1:
            raise UserError(
                "judgements_ambiguous",
                f"{self._path.name} does not say whose answers it judges.",
                f"There are {len(targets)} models, and one row would count for all of them.",
                "Give it a column target with the model's name, or a column answer with the text "
                "that was judged.",
                details=", ".join(target.name for target in targets),
            )

    def of(
        self, target: Target, prompts: Sequence[Prompt], decoding: Decoding, control: Control
    ) -> Judge:
        """Return the judge of one target: the file's rows about it."""
        found = load_judgements(self._path, self._ids, target.name)
        if found.missing:
            self._lacking.append(f"{len(found.missing)} of {len(self._ids)} of {target.name}")
        return found

    def notes(self) -> tuple[str, ...]:
        """Say of whose answers the file has no judgement."""
        if not self._lacking:
            return ()
        return (f"{self._path.name} has no judgement of answers: {', '.join(self._lacking)}.",)
