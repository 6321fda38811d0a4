"""Divides a suite into prompts to search on and prompts that the search never sees."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.errors import UserError
from trimtab.evaluation.suite import KINDS, Prompt, Suite
from trimtab.evaluation.suite_overlap import find_overlap, normalise

#: words in more than this share of a suite's prompts say nothing of what a prompt is about
_COMMON = 0.05


@dataclass(frozen=True)
class Split:
    """The two parts of a suite, and how many groups of prompts were kept together."""

    search: Suite
    held_out: Suite
    seed: int
    share: float
    groups: int


def split(suite: Suite, seed: int, share: float = 0.5) -> Split:
    """Divide a suite so that `share` of each kind and category is held out.

    Prompts that are the same or nearly so (`find_overlap`) stay on one side, and so do those of
    one kind that have all their rare words in common: phrasings of one question. Which side is a
    lot drawn by `seed` and the prompts' ids. Raises `UserError` with `suite_not_divisible` where a
    kind that is asked has prompts on one side only, and with `prompts_overlap` should the two sides
    have a prompt in common all the same.
    """
    groups = _groups(suite.prompts)
    strata: defaultdict[tuple[str, str], list[list[Prompt]]] = defaultdict(list)
    for group in groups:
        strata[group[0].kind, group[0].category].append(group)
    held: set[str] = set()
    # what rounding takes from one category it gives back in the next
    owed: dict[str, float] = defaultdict(float)
    for (kind, _), members in sorted(strata.items()):
        owed[kind] += share * sum(map(len, members))
        for group in sorted(members, key=lambda g: _lot(g, seed)):
            if owed[kind] >= len(group) / 2:
                held |= {prompt.id for prompt in group}
                owed[kind] -= len(group)
    parts = [
        Suite(
            f"{suite.name} ({name})",
            f"{suite.version} {name} {share:g} seed {seed}".strip(),
            suite.licence,
            suite.source,
            tuple(p for p in suite.prompts if (p.id in held) == (name == "held out")),
        )
        for name in ("search", "held out")
    ]
    for kind in KINDS:
        counts = [len(part.by_kind(kind)) for part in parts]
        if max(counts) and not min(counts):
            raise UserError(
                "suite_not_divisible",
                f"The {kind} prompts of {suite.name} cannot be divided.",
                f"There are {max(counts)}, and all of them belong together.",
                "Choose a suite with more prompts, or hold out another share of them.",
            )
    find_overlap(parts[0].prompts, parts[1].prompts, strict=True)
    return Split(parts[0], parts[1], seed, share, len(groups))


def _groups(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """Return prompts that must not be parted, in the order of the suite."""
    place = {prompt.id: i for i, prompt in enumerate(prompts)}
    parent = list(range(len(prompts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        low, high = sorted((root(i), root(j)))
        parent[high] = low

    words = [frozenset(normalise(prompt.asked).split()) for prompt in prompts]
    frequency = Counter(word for found in words for word in found)
    most = max(1, math.floor(_COMMON * len(prompts)))
    first: dict[tuple[str, frozenset[str]], int] = {}
    for i, (prompt, found) in enumerate(zip(prompts, words, strict=True)):
        rare = frozenset(word for word in found if frequency[word] <= most)
        if rare:
            join(first.setdefault((prompt.kind, rare), i), i)
    for pair in find_overlap(prompts, prompts):
        join(place[pair.calibration.id], place[pair.evaluation.id])
    groups: defaultdict[int, list[Prompt]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        groups[root(i)].append(prompt)
    return list(groups.values())


def _lot(group: Sequence[Prompt], seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{group[0].id}".encode(), digest_size=8).digest()
