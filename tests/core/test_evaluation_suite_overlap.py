"""Overlap of calibration and evaluation prompts: found whatever the spelling, and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import UserError
from trimtab.evaluation.suite import Prompt, core_suite, demo_suite
from trimtab.evaluation.suite_overlap import find_overlap, normalise

TEXT = "Please explain how a wooden sailing boat is built"


def _prompts(*texts: str) -> list[Prompt]:
    return [Prompt(str(number), "text", text) for number, text in enumerate(texts)]


def _pairs(calibration: list[Prompt], evaluation: list[Prompt], threshold: float = 0.8) -> set[str]:
    found = find_overlap(calibration, evaluation, threshold=threshold)
    return {f"{pair.calibration.id}-{pair.evaluation.id}" for pair in found}


@pytest.mark.parametrize(
    "other",
    [
        TEXT,
        TEXT.upper(),
        f"  {TEXT}?!\n",
        TEXT.replace(" ", "\u00a0\t"),
        "«Please, explain: how a wooden (sailing) boat is built…»",
        TEXT.replace("a", "\uff41"),  # full width
        TEXT.replace("e", "e\u200b"),  # a space without width
    ],
)
def test_spelling_does_not_hide_that_two_prompts_are_the_same(other: str) -> None:
    (pair,) = find_overlap(_prompts(TEXT), _prompts(other))
    assert pair.similarity == 1.0
    assert (pair.calibration.text, pair.evaluation.text) == (TEXT, other)


@pytest.mark.parametrize(
    "other",
    [
        "Please explain how a steel sailing boat is built",
        "Please explain how a wooden sailing boat is sunk",
        "Explain a boat",
        "",
    ],
)
def test_other_prompts_are_not_taken_for_the_same(other: str) -> None:
    assert not find_overlap(_prompts(TEXT), _prompts(other or "?"))


def test_signs_without_words_are_compared_as_they_are() -> None:
    assert _pairs(_prompts("?!", "…"), _prompts("?!", "??")) == {"0-0"}


def test_letters_that_fold_together_are_the_same() -> None:
    assert normalise("Straße") == normalise("STRASSE")
    assert normalise("ﬁne") == "fine"
    assert normalise("e\u0301tude") == normalise("étude") != normalise("etude")


def test_a_text_without_spaces_is_cut_into_its_characters() -> None:
    calibration = "請說明如何建造一艘木製的帆船並且讓它下水"
    (pair,) = find_overlap(_prompts(calibration), _prompts(calibration + "吧"))
    assert 0.8 <= pair.similarity < 1


def test_near_duplicates_are_found_from_the_threshold_on() -> None:
    words = [f"word{number}" for number in range(13)]
    calibration = _prompts(" ".join(words[:12]))  # 8 shingles, all of them among the other's 9
    evaluation = _prompts(" ".join(words))
    (pair,) = find_overlap(calibration, evaluation)
    assert pair.similarity == 8 / 9
    assert find_overlap(calibration, evaluation, threshold=8 / 9)
    assert not find_overlap(calibration, evaluation, threshold=0.9)
    # exactly on it: 4 of 5 shingles
    four, five = _prompts(" ".join(words[:8])), _prompts(" ".join(words[:9]))
    assert _pairs(four, five) == {"0-0"} == _pairs(five, four)


def test_choices_are_part_of_a_question() -> None:
    def question(*choices: str) -> list[Prompt]:
        return [Prompt("q", "utility", "Which is true?", choices=choices, answer=0)]

    assert find_overlap(question("this one", "that one"), question("This one.", "That one."))
    assert not find_overlap(question("this one", "that one"), question("the first", "the second"))


def test_strict_raises_and_names_every_pair() -> None:
    calibration, evaluation = _prompts("One.", "Two."), _prompts("two", "three", "ONE")
    with pytest.raises(UserError) as caught:
        find_overlap(calibration, evaluation, strict=True)
    error = caught.value
    assert error.code == "prompts_overlap"
    assert error.what.startswith("2 of 3 evaluation prompts")
    assert error.details.splitlines() == ["0 and 1 (100%): two", "2 and 0 (100%): ONE"]


def test_strict_shows_no_more_pairs_than_can_be_read() -> None:
    prompts = _prompts(*(f"Number {number}" for number in range(25)))
    with pytest.raises(UserError) as caught:
        find_overlap(prompts, prompts, strict=True)
    lines = caught.value.details.splitlines()
    assert (len(lines), lines[-1]) == (21, "and 5 more pairs")


def test_strict_lets_separate_sets_pass() -> None:
    assert find_overlap(_prompts("One."), _prompts("Two."), strict=True) == ()
    assert find_overlap([], _prompts("Two."), strict=True) == ()


@pytest.mark.parametrize("threshold", [0.0, 1.1, -1, float("nan")])
def test_a_threshold_is_a_similarity(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        find_overlap(_prompts("One."), _prompts("One."), threshold=threshold)


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)} or {tuple(words)}


_sentences = st.lists(st.sampled_from("a b c".split()), min_size=1, max_size=12).map(" ".join)


@given(
    st.lists(_sentences, max_size=8),
    st.lists(_sentences, max_size=8),
    st.sampled_from([0.2, 0.5, 0.6, 0.75, 0.8, 0.9, 1.0]),
)
def test_no_pair_is_missed_that_comparing_all_with_all_finds(
    calibration: list[str], evaluation: list[str], threshold: float
) -> None:
    expected = {
        f"{i}-{j}"
        for i, one in enumerate(calibration)
        for j, other in enumerate(evaluation)
        if len(_grams(one) & _grams(other)) / len(_grams(one) | _grams(other)) >= threshold
    }
    assert _pairs(_prompts(*calibration), _prompts(*evaluation), threshold) == expected


def test_the_shipped_suites_have_nothing_in_common() -> None:
    core, demo = core_suite(), demo_suite()
    assert not find_overlap(core.prompts, demo.prompts)
    assert len(find_overlap(core.prompts, core.prompts)) == len(core.prompts)
