"""Whether an answer is the right one: by number, by choice, or by words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from trimtab.evaluation.suite import Prompt

How = Literal["number", "choice", "exact"]

_NUMBER = re.compile(r"[-+\u2212]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?![\d/]))?")
_FINAL = re.compile(r"(?:final answer|answer|result)(?: is| equals)?\s*[:=]?\s*", re.I)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:\b(?i:answer|choice|option)(?: is)?\s*:?\s*\(?([A-Z])"
    # "the answer is A city" names no choice
    r"(?![A-Za-z']|(?<=A)\s+(?!because|since|as\b|and\b)[a-z])"
    r"|^\(?([A-Z])(?:[).:]|\)?\s*$))",
    re.M,
)


@dataclass(frozen=True)
class Match:
    """Whether an answer is right, by which rule, and what was read out of it ("" for nothing)."""

    right: bool
    how: How
    read: str


def match_answer(prompt: Prompt, answer: str) -> Match | None:
    """Compare an answer with what its prompt knows to be right; None where it knows nothing.

    Choices are compared where the prompt has them. A reference that is a number, or that ends in
    `#### number` as GSM8K's do (Cobbe et al. 2021), is compared as a number; any other reference
    by its words, in full.
    """
    if prompt.choices and prompt.answer is not None:
        choice = read_choice(answer, prompt.choices)
        read = "" if choice is None else prompt.choices[choice]
        return Match(choice == prompt.answer, "choice", read)
    if prompt.reference is None:
        return None
    wanted = reference_number(prompt.reference)
    if wanted is not None:
        number = read_number(answer)
        return Match(number == wanted, "number", "" if number is None else str(number))
    words = normalise(answer)
    return Match(bool(words) and words == normalise(prompt.reference), "exact", words)


def contains_reference(prompt: Prompt, answer: str) -> bool | None:
    """Whether the right answer stands in an answer as whole words, whatever is around it.

    None where the prompt has no reference in words. Generous: it takes a list of guesses, and "it
    is not Paris" for Paris.
    """
    if prompt.reference is None or reference_number(prompt.reference) is not None:
        return None
    wanted = normalise(prompt.reference)
    return bool(wanted) and f" {wanted} " in f" {normalise(answer)} "


def reference_number(reference: str) -> Fraction | None:
    """Return the number a reference stands for: after its last ####, or all of it."""
    text = reference.rsplit("####", 1)[-1].strip().strip("$\u20ac\u00a3%. ")
    return _fraction(text) if _NUMBER.fullmatch(text) else None


def read_number(answer: str) -> Fraction | None:
    """Return the number that an answer ends on; None without one.

    In this order: after the last ####, in the last \\boxed{}, after the last "answer is", the last
    number at all. Thousands commas, a currency sign and a percent sign do not count; 1/2 is 0.5.
    """
    if "####" in answer:
        return _first(answer.rsplit("####", 1)[1])
    boxed = _BOXED.findall(answer)
    if boxed:
        return _first(boxed[-1])
    said = [match.end() for match in _FINAL.finditer(answer)]
    if said:
        after = re.match(r"[\W_]*", answer[said[-1] :])
        start = said[-1] + (after.end() if after else 0)
        # The sign and a leading point belong to the number, not to what is skipped before it.
        while start > said[-1] and answer[start - 1] in "-+\u2212.":
            start -= 1
        found = _NUMBER.match(answer, start)
        if found:
            return _fraction(found[0])
    numbers = _NUMBER.findall(answer)
    return _fraction(numbers[-1]) if numbers else None


def read_choice(answer: str, choices: tuple[str, ...]) -> int | None:
    """Return the index of the choice that an answer names; None where it names none, or several.

    A letter counts where it is the whole answer, begins a line with a point or bracket, or follows
    "answer" or "option"; "A" as a word does not. Without one, the text of exactly one choice must
    stand in the answer; one that lies inside another that is there too does not count.
    """
    text = re.sub(r"[*_`]", "", unicodedata.normalize("NFKC", answer)).strip()
    letters = {ord(m[1] or m[2]) - ord("A") for m in _LETTER.finditer(text)}
    named = [i for i in letters if i < len(choices)]
    if len(text) == 1 and text.isalpha():
        named = [i for i in [ord(text.upper()) - ord("A")] if 0 <= i < len(choices)]
    if len(named) == 1:
        return named[0]
    if named:
        return None
    words = f" {normalise(text)} "
    texts = [f" {normalise(choice)} " for choice in choices]
    present = [i for i, choice in enumerate(texts) if choice.strip() and choice in words]
    outer = [i for i in present if not any(i != j and texts[i] in texts[j] for j in present)]
    return outer[0] if len(outer) == 1 else None


def normalise(text: str) -> str:
    """Return words in small letters with single spaces, without punctuation (NFKC)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def _first(text: str) -> Fraction | None:
    found = _NUMBER.search(text)
    return _fraction(found[0]) if found else None


def _fraction(text: str) -> Fraction | None:
    plain = text.replace(",", "").replace("\u2212", "-").replace(" ", "").lstrip("+")
    above, _, below = plain.partition("/")
    if below and not int(below):
        return None
    return Fraction(above) / int(below or 1)
