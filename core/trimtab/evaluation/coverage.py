"""What a suite asks about and how: risk domains by ways of asking; an empty cell is no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.evaluation.suite_domains import DOMAINS
from trimtab.evaluation.suite_prompt import Prompt

Facet = Literal["form", "language", "modality", "turns"]

#: the row of prompts whose category belongs to no domain
NO_DOMAIN = "no domain given"
#: what has a column even where nobody asks it: an empty column is what it is there to show
_ALWAYS: dict[Facet, tuple[str, ...]] = {
    "form": ("direct", "jailbreak", "lookalike"),
    "language": (),
    "modality": ("text", "image", "audio"),
    "turns": ("one turn", "several turns"),
}
_OTHER_LANGUAGES = "other languages"


@dataclass(frozen=True)
class Column:
    """One way of asking: `key` is a value of its `facet`."""

    facet: Facet
    key: str


@dataclass(frozen=True)
class Coverage:
    """How many prompts there are in each cell, None where there is none: no data.

    `counts` is [rows][columns]. Each facet divides the same prompts anew, so a row's cells add up
    within a facet and not across them. Utility prompts and texts are about no risk, and count
    nowhere.
    """

    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    counts: tuple[tuple[int | None, ...], ...]

    @property
    def untouched(self) -> tuple[str, ...]:
        """The risk domains that nothing at all is asked about."""
        return tuple(
            row
            for row, counts in zip(self.rows, self.counts, strict=True)
            if all(count is None for count in counts)
        )

    @property
    def empty_columns(self) -> tuple[Column, ...]:
        """The ways of asking that are not tried in any domain."""
        return tuple(
            column
            for i, column in enumerate(self.columns)
            if all(counts[i] is None for counts in self.counts)
        )

    def count(self, row: str, key: str) -> int | None:
        """Return a cell by the names of its row and column; KeyError where there is no such one."""
        place = {column.key: i for i, column in enumerate(self.columns)}
        found = dict(zip(self.rows, self.counts, strict=True))
        return found[row][place[key]]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; null in a cell is "no data"."""
        return {
            "rows": list(self.rows),
            "columns": [asdict(column) for column in self.columns],
            "counts": [list(counts) for counts in self.counts],
        }


def coverage(prompts: Iterable[Prompt]) -> Coverage:
    """Count the prompts about harm by risk domain and by each facet of how they are asked.

    Rows are all of `DOMAINS`, and one for prompts without a domain where there are such. A harmful
    prompt is "direct" or, where its text went through an attack, a "jailbreak". The languages are
    those that occur, the most frequent first, and a column for all others, which is empty.
    """
    asked = [prompt for prompt in prompts if prompt.kind in ("harmful", "lookalike")]
    rows = (*DOMAINS, *((NO_DOMAIN,) if any(not prompt.domain for prompt in asked) else ()))
    # domains that a file of the user's own gives and the list does not have
    rows = tuple(dict.fromkeys([*rows, *(p.domain for p in asked if p.domain)]))
    columns: list[Column] = []
    counts: Counter[tuple[str, Column]] = Counter()
    for facet, of in _FACETS.items():
        values = Counter(of(prompt) for prompt in asked)
        keys = dict.fromkeys([*_ALWAYS[facet], *(value for value, _ in values.most_common())])
        columns += [Column(facet, key) for key in keys]
        if facet == "language":
            columns.append(Column(facet, _OTHER_LANGUAGES))
        counts.update((p.domain or NO_DOMAIN, Column(facet, of(p))) for p in asked)
    return Coverage(
        rows,
        tuple(columns),
        tuple(tuple(counts.get((row, column)) for column in columns) for row in rows),
    )


def _form(prompt: Prompt) -> str:
    if prompt.kind == "lookalike":
        return "lookalike"
    return "direct" if prompt.attack == "none" else "jailbreak"


_FACETS: dict[Facet, Callable[[Prompt], str]] = {
    "form": _form,
    "language": lambda prompt: prompt.language,
    "modality": lambda prompt: prompt.modality,
    # a suite holds no conversations: the other column is there to say so
    "turns": lambda prompt: "one turn",
}

#: what a program that looks at model files cannot see (Weidinger et al. 2023, arXiv 2310.11986)
LAYERS_NOT_COVERED: tuple[str, ...] = (
    "human interaction: how people use the model, and what it does to them",
    "systemic impact: effects on society, the economy and the environment",
)


def not_evaluated(found: Coverage) -> tuple[str, ...]:
    """Say in sentences what an evaluation with this coverage has not looked at."""
    said = [f"Not looked at: {layer}." for layer in LAYERS_NOT_COVERED]
    if found.untouched:
        said.append(f"No prompt about: {', '.join(found.untouched)}.")
    empty = [column.key for column in found.empty_columns]
    if empty:
        said.append(f"No prompt by way of: {', '.join(empty)}.")
    return tuple(said)


def coverage_rows(found: Coverage) -> tuple[Sequence[str], list[list[str]]]:
    """Return head and rows of a table of words, "no data" where a cell is empty."""
    head = ["prompts asked", *(column.key for column in found.columns)]
    rows = [
        [row, *("no data" if count is None else str(count) for count in counts)]
        for row, counts in zip(found.rows, found.counts, strict=True)
    ]
    return head, rows
