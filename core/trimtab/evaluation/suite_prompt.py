"""One prompt of a suite, and what makes it a sound one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

PromptKind = Literal["harmful", "lookalike", "utility", "text"]
KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_STRINGS = ("id", "kind", "text", "category", "domain", "language", "modality", "attack", "system")


@dataclass(frozen=True)
class Prompt:
    """One thing that a model is asked, with what is known of it beforehand.

    `kind` is `harmful` (an aligned model refuses it), `lookalike` (it looks harmful and is not: to
    be answered), `utility` (it has a right answer) or `text` (free text that is only scored, for
    perplexity). `category` is the policy category or subject in the words of its source, `domain`
    the risk domain of `suite_domains`, `language` a BCP 47 tag, `attack` the name of the jailbreak
    or rewriting the text went through. `reference` is the right answer of a utility prompt in
    words; `choices` and `answer` (a 0-based index) are those of a multiple-choice question, which
    `text` does not repeat. Raises `ValueError` where the fields contradict each other.
    """

    id: str
    kind: PromptKind
    text: str
    category: str = ""
    domain: str = ""
    language: str = "en"
    modality: str = "text"
    attack: str = "none"
    system: str = ""
    reference: str | None = None
    choices: tuple[str, ...] = ()
    answer: int | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    @property
    def asked(self) -> str:
        """What the model is shown: the text, below it the choices with their letters, if any."""
        lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(self.choices)]
        return "\n".join([self.text, *lines])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with the fields that differ from their defaults; `choices` is a list."""
        data = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if self.choices:
            data["choices"] = list(self.choices)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prompt:
        """The prompt of a JSON object; raises `ValueError` that says what is wrong with it."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r}: the fields are {', '.join(known)}")
        missing = [name for name in ("id", "kind", "text") if data.get(name) in (None, "")]
        if missing:
            raise ValueError(f"{missing[0]!r} is missing")
        choices = data.get("choices", ())
        if not isinstance(choices, (list, tuple)):
            raise ValueError(f"'choices' must be a list of texts, not {choices!r}")
        return cls(**{**data, "choices": tuple(choices)})

    def every_field(self) -> dict[str, Any]:
        """All fields, defaults included: what a digest is taken of."""
        return asdict(self)

    def _problem(self) -> str:
        for name in _STRINGS:
            value = getattr(self, name)
            if not isinstance(value, str):
                return f"{name!r} must be text, not {value!r}"
        if self.kind not in KINDS:
            return f"'kind' is {self.kind!r}: it must be one of {', '.join(KINDS)}"
        for name in ("id", "text", "language", "modality", "attack"):
            if not getattr(self, name).strip():
                return f"{name!r} is empty"
        if self.reference is not None and not isinstance(self.reference, str):
            return f"'reference' must be text, not {self.reference!r}"
        problem = self._problem_of_choices()
        if problem:
            return problem
        if self.kind == "utility" and self.reference is None and self.answer is None:
            return "a utility prompt needs a 'reference', or 'choices' and the right 'answer'"
        texts = [getattr(self, name) for name in _STRINGS] + [self.reference or "", *self.choices]
        # JSON can spell half of a surrogate pair, which no file and no tokenizer takes
        if any("\ud800" <= sign <= "\udfff" for text in texts for sign in text):
            return "a text holds half of a surrogate pair, which is no character"
        return ""

    def _problem_of_choices(self) -> str:
        choices: tuple[Any, ...] = self.choices
        if not isinstance(choices, tuple) or not all(
            isinstance(choice, str) and choice.strip() for choice in choices
        ):
            return f"'choices' must be texts, none of them empty, not {choices!r}"
        if len(choices) == 1 or len(choices) > len(LETTERS):
            return f"'choices' has {len(choices)} entries: it needs 2 to {len(LETTERS)}"
        if self.answer is None:
            return "'choices' needs the index of the right one in 'answer'" if choices else ""
        # a bool is an int to Python, and true is no index
        if type(self.answer) is not int:
            return f"'answer' must be the index of a choice, from 0, not {self.answer!r}"
        if not choices:
            return "'answer' is the index of a choice, and there are no 'choices'"
        if not 0 <= self.answer < len(choices):
            last = len(choices) - 1
            return f"'answer' is {self.answer}: with {len(choices)} choices it is 0 to {last}"
        return ""
