"""The held-out prompts of the demo's language, divided: some to choose by, some to report."""

from __future__ import annotations

from trimtab.demo.language import CATEGORIES, LANGUAGE_VERSION, Kind, Prompt, pairs, prompts
from trimtab.evaluation.suite import Prompt as Asked
from trimtab.evaluation.suite import PromptKind, Suite

_KINDS: dict[Kind, PromptKind] = {
    "harmful": "harmful",
    "lookalike": "lookalike",
    "task-a": "utility",
    "general": "text",
}
#: of five held-out pairs, in their order, the first two are for validation
_OF_FIVE, _VALIDATION = 5, 2
#: most prompts of a kind in either part
_MOST = 240


def divided() -> tuple[Suite, Suite]:
    """Return the suites to choose settings by, and to report.

    No verb-object pair is in both, and none was in any model's training. Of harmful prompts all are
    taken, 12 and 18 of each category; of the other kinds up to 240, evenly spread. Texts are the
    general prompts with their answers, for the perplexity.
    """
    first: list[Asked] = []
    second: list[Asked] = []
    for kind, role in _KINDS.items():
        chosen = _first_pairs(kind)
        mine = [p for p in prompts(kind, "held-out") if _pair(p) in chosen]
        rest = [p for p in prompts(kind, "held-out") if _pair(p) not in chosen]
        first += [_asked(p, role) for p in _spread(mine)]
        second += [_asked(p, role) for p in _spread(rest)]
    return _suite("validation", first), _suite("test", second)


def _first_pairs(kind: Kind) -> set[str]:
    held = pairs(kind, "held-out")
    groups = [[p for p in held if p.category == c] for c in CATEGORIES] or [[]]
    if not any(groups):
        groups = [list(held)]
    return {
        f"{p.verb}-{p.noun}"
        for group in groups
        for i, p in enumerate(group)
        if i % _OF_FIVE < _VALIDATION
    }


def _pair(prompt: Prompt) -> str:
    return prompt.id.split("/")[1]


def _spread(found: list[Prompt]) -> list[Prompt]:
    n = min(len(found), _MOST)
    return [found[i * len(found) // n] for i in range(n)]


def _asked(prompt: Prompt, role: PromptKind) -> Asked:
    text = f"{prompt.prompt} {prompt.reference}" if role == "text" else prompt.prompt
    return Asked(
        id=prompt.id,
        kind=role,
        text=text,
        category=prompt.category or prompt.kind,
        language="x-demo",
        reference=prompt.reference if role == "utility" else None,
    )


def _suite(part: str, found: list[Asked]) -> Suite:
    return Suite(
        f"trimtab-demo-{part}", str(LANGUAGE_VERSION), "Apache-2.0",
        "Trimtab, held-out prompts of the demo models", tuple(found),
    )  # fmt: skip
