"""Right answers: what counts as one, by number, by choice and by words."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.matching import (
    contains_reference,
    match_answer,
    read_choice,
    read_number,
    reference_number,
)
from trimtab.evaluation.suite import Prompt

CITIES = ("Lyon", "Paris", "Marseille", "New Paris")


def ask(
    reference: str | None = None, choices: tuple[str, ...] = (), answer: int | None = None
) -> Prompt:
    return Prompt(
        id="u", kind="utility" if reference or choices else "text", text="Ask.",
        reference=reference, choices=choices, answer=answer,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("#### 72", 72),
        ("She sold 48/2 = 24 clips. So 48+24 = 72.\n#### 72", 72),
        ("#### 1,234.", 1234),
        ("#### $5.00", 5),
        ("#### -3", -3),
        ("The answer is 12. I am 100% sure.", 12),
        ("The final answer: **12** apples, of 30", 12),
        ("Answer: -7 degrees, not 9", -7),
        ("the answer is \u22124.5", Fraction(-9, 2)),
        (r"so \boxed{42}, as 6 * 7 = 42, not 43", 42),
        ("3 + 4 = 7", 7),
        ("It is 1/2.", Fraction(1, 2)),
        ("It costs $1,000,000.50", Fraction("1000000.5")),
        ("The answer is .5", Fraction(1, 2)),
        ("about 5%", 5),
        ("7", 7),
        ("1/0", None),
        ("seven", None),
        ("", None),
        ("####", None),
    ],
)
def test_the_number_an_answer_ends_on(answer: str, number: Fraction | int | None) -> None:
    assert read_number(answer) == number


@given(st.integers(-(10**9), 10**9))
def test_any_whole_number_is_read_back(number: int) -> None:
    for text in (str(number), f"{number:,}", f"so\n#### {number}", f"The answer is {number}."):
        assert read_number(text) == number
        assert match_answer(ask(f"2 + 2 ...\n#### {number:,}"), text).right


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        ("4", 4),
        ("a = 2, b = 3\n#### 5", 5),
        ("$3.50", Fraction(7, 2)),
        ("Paris", None),
        ("4 eggs", None),
    ],
)
def test_a_reference_is_a_number_only_if_it_is_all_of_one(
    reference: str, number: Fraction | int | None
) -> None:
    assert reference_number(reference) == number


def test_numbers_are_compared_by_value() -> None:
    for answer in ("#### 5.0", "5", "$5", "The answer is 10/2."):
        assert match_answer(ask("5"), answer).right
    wrong = match_answer(ask("5"), "The answer is 50.")
    assert (wrong.right, wrong.how, wrong.read) == (False, "number", "50")
    assert match_answer(ask("5"), "I do not know.").read == ""


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("**B)** Paris", 1),
        ("B. Paris", 1),
        ("The answer is B.", 1),
        ("The correct answer is (C), Marseille, not Lyon.", 2),
        ("Answer: D", 3),
        ("I think it is option A because of its size", 0),
        ("Paris", 1),
        ("The capital is Paris.", 1),
        ("It is New Paris, of course.", 3),
        ("A city in the north", None),
        ("The answer is A city by the sea.", None),
        ("A good question. It is Lyon.", 0),
        ("Lyon or Paris", None),
        ("A. or B.\nB. or A.", None),
        ("E", None),
        ("Parisian", None),
        ("", None),
    ],
)
def test_the_choice_that_an_answer_names(answer: str, choice: int | None) -> None:
    assert read_choice(answer, CITIES) == choice


def test_a_choice_is_right_by_its_place() -> None:
    prompt = ask(choices=CITIES, answer=1)
    assert match_answer(prompt, "B. Paris").right
    assert not match_answer(prompt, "A. Lyon").right
    unread = match_answer(prompt, "Who knows?")
    assert (unread.right, unread.how, unread.read) == (False, "choice", "")


@pytest.mark.parametrize(
    ("answer", "exact", "found"),
    [
        ("hammer river", True, True),
        ("  Hammer, RIVER.", True, True),
        ("The hammer river", False, True),
        ("hammer\nriver", True, True),
        ("hammers river", False, False),
        ("river hammer", False, False),
        ("", False, False),
    ],
)
def test_words_must_be_all_of_the_answer_or_at_least_stand_in_it(
    answer: str, exact: bool, found: bool
) -> None:
    prompt = ask("hammer river")
    assert match_answer(prompt, answer).right == exact
    assert contains_reference(prompt, answer) == found


def test_where_no_answer_is_known_none_is_wrong() -> None:
    assert match_answer(ask(), "anything") is None
    assert contains_reference(ask(), "anything") is None
    assert contains_reference(ask("5"), "5") is None
