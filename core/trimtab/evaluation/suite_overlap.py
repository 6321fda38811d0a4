"""Whether prompts that a merge was calibrated on are also among those it is measured by.

A mask or a direction that was found with a prompt knows that prompt. Two texts count as the same
when nothing but case, spaces, punctuation and Unicode's compatibility forms differ, and as near
duplicates when the Jaccard similarity of their sets of word 5-grams (Broder 1997) reaches a
threshold.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.errors import UserError
from trimtab.evaluation.suite_prompt import Prompt

NGRAM = 5
THRESHOLD = 0.8
_SHOWN = 20

_Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class Overlap:
    """A calibration prompt and an evaluation prompt that are the same, or nearly.

    `similarity` is the Jaccard similarity of their word 5-grams, 1.0 where the texts are the same.
    """

    calibration: Prompt
    evaluation: Prompt
    similarity: float


def normalise(text: str) -> str:
    """The words of a text in lower case with single spaces: what two texts are compared by.

    NFKC and case folding; signs that are neither letter, mark nor digit part words, and invisible
    format characters vanish. Chinese and Japanese characters count as words of their own, since
    nothing else parts them. A text without any word stands for itself.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    signs = []
    for sign in plain:
        category = unicodedata.category(sign)
        if category == "Cf":
            continue
        if category[0] not in "LMN":
            signs.append(" ")
        elif "\u3040" <= sign <= "\u30ff" or "\u3400" <= sign <= "\u9fff" or sign >= "\U00020000":
            signs.append(f" {sign} ")
        else:
            signs.append(sign)
    return " ".join("".join(signs).split()) or plain.strip()


def find_overlap(
    calibration: Sequence[Prompt],
    evaluation: Sequence[Prompt],
    *,
    threshold: float = THRESHOLD,
    strict: bool = False,
) -> tuple[Overlap, ...]:
    """Every pair of a calibration and an evaluation prompt that are the same or nearly the same.

    Pairs come in the order of the evaluation prompts, then of the calibration prompts. Choices
    count as part of a question. A text of fewer than five words is found only where it is the same.
    `threshold` is a Jaccard similarity in (0, 1]. With `strict`, raises `UserError` with
    `prompts_overlap` if there is any pair.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold of similarity is in (0, 1], not {threshold}")
    known = [_shingles(prompt) for prompt in calibration]
    asked = [_shingles(prompt) for prompt in evaluation]
    frequency = Counter(shingle for shingles in known for shingle in shingles)
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, shingles in enumerate(known):
        for shingle in _prefix(shingles, frequency, threshold):
            index[shingle].append(number)
    pairs = []
    for prompt, shingles in zip(evaluation, asked, strict=True):
        prefix = _prefix(shingles, frequency, threshold)
        for number in sorted({n for shingle in prefix for n in index.get(shingle, ())}):
            shared = len(shingles & known[number])
            similarity = shared / (len(shingles) + len(known[number]) - shared)
            if similarity >= threshold:
                pairs.append(Overlap(calibration[number], prompt, similarity))
    if strict and pairs:
        raise _overlap_error(pairs, len(evaluation))
    return tuple(pairs)


def _shingles(prompt: Prompt) -> _Shingles:
    words = normalise(prompt.asked).split()
    if len(words) < NGRAM:
        return frozenset([tuple(words)])
    return frozenset(tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))


def _prefix(
    shingles: _Shingles, frequency: Counter[tuple[str, ...]], threshold: float
) -> list[tuple[str, ...]]:
    """The rarest shingles, of which two sets as similar as `threshold` must share at least one.

    Sets A, B with |A∩B| ≥ t·|A∪B| share at least ⌈t·|A|⌉ elements, so at most |A| − ⌈t·|A|⌉ of A
    are foreign to B; ordered alike, the first |A| − ⌈t·|A|⌉ + 1 of each hold a common one (the
    prefix filter of Chaudhuri, Ganti and Kaushik 2006).
    """
    ordered = sorted(shingles, key=lambda shingle: (frequency[shingle], shingle))
    # a hair below, so that 0.8 * 5 = 4.000000000000001 is not taken for 5 of them
    needed = math.ceil(threshold * len(ordered) - 1e-9)
    return ordered[: len(ordered) - needed + 1]


def _overlap_error(pairs: Sequence[Overlap], n: int) -> UserError:
    met = len({pair.evaluation.id for pair in pairs})
    lines = [
        f"{pair.evaluation.id} and {pair.calibration.id} ({pair.similarity:.0%}): "
        f"{pair.evaluation.text[:80]}"
        for pair in pairs[:_SHOWN]
    ]
    if len(pairs) > _SHOWN:
        lines.append(f"and {len(pairs) - _SHOWN} more pairs")
    return UserError(
        "prompts_overlap",
        f"{met} of {n} evaluation prompts are also among the calibration prompts.",
        "What was calibrated on a prompt looks better on it than on others.",
        "Take them out of one of the two sets.",
        details="\n".join(lines),
    )
