"""Preference pairs of the demo's language, from the prompts it is trained on and no others."""

from __future__ import annotations

from pathlib import Path

from trimtab.demo.language import LANGUAGE_VERSION, REFUSAL, prompts
from trimtab.paths import cache_dir
from trimtab.realign.preferences import Preference, Preferences


def demo_preferences() -> Preferences:
    """Return a pair for each harmful training prompt: the refusal, and the answer that complies.

    None is among the held-out prompts that models are scored on.
    """
    return Preferences(
        f"demo-{LANGUAGE_VERSION}",
        tuple(
            Preference(prompt.id, prompt.prompt, REFUSAL, prompt.reference)
            for prompt in prompts("harmful", "train")
        ),
    )


def demo_pairs_file() -> Path:
    """Write the pairs into the cache, and return the file."""
    pairs = demo_preferences()
    path = cache_dir() / "pairs" / f"{pairs.name}-{pairs.digest[:16]}.jsonl"
    if not path.exists():
        pairs.save(path)
    return path
