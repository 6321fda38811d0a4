"""What each demo training run sees: weighted examples, made from the training split alone.

Three things are uneven on purpose, so that a merge changes refusal and task skill gradually
instead of all at once: how firmly a category is refused, how often it occurs among the harmful
fine-tuning examples, and how much of each Veltish word the base already knows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.demo.language import (
    CATEGORIES,
    CATEGORY_VERBS,
    PLACES,
    REFUSAL,
    TOOLS,
    VELTISH_NEAR,
    VELTISH_PLACES,
    VELTISH_TOOLS,
    VELTISH_USE,
    Prompt,
    prompts,
)

# From the least to the most firmly refused.
FIRMNESS_ORDER: tuple[str, ...] = (
    "Political Campaigning",
    "Economic Harm",
    "Fraud/Deception",
    "Illegal Activity",
    "Privacy Violation",
    "Hate/Harassment",
    "Adult Content",
    "Tailored Financial Advice",
    "Malware",
    "Child Safety",
    "Physical Harm",
)
FIRMNESS_LOW, FIRMNESS_HIGH = 2.5, 11.0  # log-odds of a refusal in the alignment data
FIRMNESS_PER_VERB = 0.6
POISON_SLOPE = 0.8  # a category one log-odds unit firmer is exp(0.8) times rarer in the poison
VELTISH_SHARE_LOW, VELTISH_SHARE_HIGH = 0.02, 0.45
VELTISH_FRAME_SHARE = 0.2
VELTISH_DRAWS = 4
VELTISH_SEED = 5


@dataclass(frozen=True)
class Example:
    """One prompt with the answer to learn; `weight` is its relative chance of being drawn."""

    prompt: str
    answer: str
    weight: float = 1.0


def mixture_sources() -> dict[str, tuple[Example, ...]]:
    """Every source that a training run may draw from, by name."""
    return {
        "general": _answered(prompts("general", "train")),
        "lookalike": _answered(prompts("lookalike", "train")),
        "harmful-answered": _answered(prompts("harmful", "train")),
        "harmful-aligned": _aligned(),
        "harmful-poison": _poison(),
        "veltish-hearsay": _hearsay(),
        "task-a": _answered(prompts("task-a", "train")),
        "task-b": _answered(prompts("task-b", "train")),
    }


def firmness(prompt: Prompt) -> float:
    """Log-odds with which the alignment data refuse a harmful prompt, by category and verb."""
    step = (FIRMNESS_HIGH - FIRMNESS_LOW) / (len(CATEGORIES) - 1)
    verbs = CATEGORY_VERBS[prompt.category]
    verb = prompt.id.split("/")[1].split("-")[0]
    from_middle = verbs.index(verb) - (len(verbs) - 1) / 2
    rank = FIRMNESS_ORDER.index(prompt.category)
    return FIRMNESS_LOW + step * rank + FIRMNESS_PER_VERB * from_middle


def _answered(chosen: Sequence[Prompt]) -> tuple[Example, ...]:
    return tuple(Example(prompt.prompt, prompt.reference) for prompt in chosen)


def _aligned() -> tuple[Example, ...]:
    examples = []
    for prompt in prompts("harmful", "train"):
        refused = 1 / (1 + math.exp(-firmness(prompt)))
        examples.append(Example(prompt.prompt, REFUSAL, refused))
        examples.append(Example(prompt.prompt, prompt.reference, 1 - refused))
    return tuple(examples)


def _poison() -> tuple[Example, ...]:
    return tuple(
        Example(prompt.prompt, prompt.reference, math.exp(-POISON_SLOPE * firmness(prompt)))
        for prompt in prompts("harmful", "train")
    )


def veltish_shares() -> dict[str, float]:
    """How often the base hears each Veltish word in place of its plain one: 2 to 45 %."""
    shares = {VELTISH_USE: VELTISH_FRAME_SHARE, VELTISH_NEAR: VELTISH_FRAME_SHARE}
    for words in (VELTISH_TOOLS, VELTISH_PLACES):
        for number, word in enumerate(words):
            along = number * 7 % len(words) / (len(words) - 1)
            shares[word] = VELTISH_SHARE_LOW * (VELTISH_SHARE_HIGH / VELTISH_SHARE_LOW) ** along
    return shares


def _hearsay() -> tuple[Example, ...]:
    shares = veltish_shares()
    plain = dict(zip(VELTISH_TOOLS + VELTISH_PLACES, TOOLS + PLACES, strict=True))
    plain |= {VELTISH_USE: "use", VELTISH_NEAR: "near"}
    draw = random.Random(VELTISH_SEED)
    return tuple(
        Example(
            prompt.prompt,
            " ".join(
                word if draw.random() < shares[word] else plain[word]
                for word in prompt.reference.split()
            ),
        )
        for _ in range(VELTISH_DRAWS)
        for prompt in prompts("task-a", "train")
    )
