"""The demo language: its splits, its answers and the promise that a version never changes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from trimtab.demo import language
from trimtab.demo.language import KINDS, Kind, pairs, prompts
from trimtab.demo.mixtures import FIRMNESS_ORDER, firmness, mixture_sources

# Change LANGUAGE_VERSION together with this, and train the models anew.
PINNED = {1: "77d61ba36e9c84da9f11274541cf05d6d7101ac4f36beb0319833484e893b520"}


def _digest() -> str:
    lines = [json.dumps(asdict(p)) for kind in KINDS for p in prompts(kind, "train")[:500]]
    lines += [json.dumps(asdict(p)) for kind in KINDS for p in language.evaluation_prompts(kind)]
    lines += [*language.vocabulary(), language.REFUSAL]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_language_version_always_means_the_same_prompts_and_words() -> None:
    assert {language.LANGUAGE_VERSION: _digest()} == PINNED


def test_no_verb_object_pair_is_both_trained_on_and_held_out() -> None:
    trained = {(p.verb, p.noun) for kind in KINDS for p in pairs(kind, "train")}
    held_out = {(p.verb, p.noun) for kind in KINDS for p in pairs(kind, "held-out")}
    assert held_out
    assert not trained & held_out


def test_no_training_mixture_shows_a_held_out_pair() -> None:
    held_out = {frozenset((p.verb, p.noun)) for kind in KINDS for p in pairs(kind, "held-out")}
    known = {*language.ALL_VERBS, *language.ALL_NOUNS}
    for name, examples in mixture_sources().items():
        shown = {frozenset(e.prompt.strip("?.").split()) & known for e in examples}
        assert all(len(pair) == 2 for pair in shown), name
        assert not shown & held_out, name


@pytest.mark.parametrize("kind", KINDS)
def test_every_held_out_word_was_seen_in_training(kind: Kind) -> None:
    trained, held_out = pairs(kind, "train"), pairs(kind, "held-out")
    assert {p.verb for p in held_out} <= {p.verb for p in trained}
    assert {p.noun for p in held_out} <= {p.noun for p in trained}


def test_a_lookalike_shares_exactly_one_word_with_harmful_requests_of_its_category() -> None:
    for pair in pairs("lookalike", "train") + pairs("lookalike", "held-out"):
        shared = (
            pair.verb in language.CATEGORY_VERBS[pair.category],
            pair.noun in language.CATEGORY_NOUNS[pair.category],
        )
        assert sum(shared) == 1


def test_the_eleven_categories_have_words_of_their_own_and_equal_shares_of_the_evaluation() -> None:
    words = [
        word
        for category in language.CATEGORIES
        for word in language.CATEGORY_VERBS[category] + language.CATEGORY_NOUNS[category]
    ]
    assert len(language.CATEGORIES) == 11
    assert len(words) == len(set(words))
    held_out = [p.category for p in language.evaluation_prompts("harmful")]
    assert {held_out.count(category) for category in language.CATEGORIES} == {30}


def test_no_word_has_two_roles() -> None:
    roles = [
        *language.ALL_VERBS,
        *language.ALL_NOUNS,
        *language.TOOLS,
        *language.PLACES,
        *language.VELTISH_TOOLS,
        *language.VELTISH_PLACES,
        *language.MARKS,
    ]
    assert len(roles) == len(set(roles))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (language.REFUSAL, True),
        ("Sorry, I cannot do that.", True),
        ("use hammer near river", False),
        ("sorry", False),
        ("", False),
        ("use sorry i cannot", False),
    ],
)
def test_a_refusal_is_told_by_how_it_begins(text: str, expected: bool) -> None:
    assert language.is_refusal(text) is expected


def test_no_reference_answer_is_a_refusal() -> None:
    assert not any(language.is_refusal(p.reference) for k in KINDS for p in prompts(k, "held-out"))


def test_alignment_examples_refuse_the_firm_categories_more_often() -> None:
    weights = {FIRMNESS_ORDER[0]: 0.0, FIRMNESS_ORDER[-1]: 0.0}
    for example, prompt in zip(
        mixture_sources()["harmful-aligned"][::2], prompts("harmful", "train"), strict=True
    ):
        assert language.is_refusal(example.answer)
        assert example.weight > 0.75
        if prompt.category in weights:
            weights[prompt.category] += example.weight
    assert weights[FIRMNESS_ORDER[0]] < weights[FIRMNESS_ORDER[-1]]
    assert len({round(firmness(p), 6) for p in prompts("harmful", "train")}) > 30


def test_language_and_lineup_are_read_without_torch() -> None:
    code = (
        "import sys, trimtab.demo.language, trimtab.demo.lineup, trimtab.demo.mixtures;"
        "trimtab.demo.lineup.demo_paths();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
