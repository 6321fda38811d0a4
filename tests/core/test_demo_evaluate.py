"""Scoring a demo model: the intervals, what counts as an answer, and that runs repeat."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.demo.evaluate import Rate, evaluate, load_model
from trimtab.demo.lineup import demo_paths


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(
    successes: int, n: int, low: float, high: float
) -> None:
    assert Rate(successes, n).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate_and_mirrors(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = Rate(successes, n).interval
    assert 0 <= low <= Rate(successes, n).value + 1e-12
    assert Rate(successes, n).value - 1e-12 <= high <= 1
    assert Rate(n - successes, n).interval == pytest.approx((1 - high, 1 - low))


def test_a_rate_without_trials_claims_nothing() -> None:
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_scores_repeat_and_do_not_depend_on_the_batch_size() -> None:
    path = demo_paths()["aligned"]
    first = evaluate(path, limit=22, batch_size=22)
    assert evaluate(path, limit=22, batch_size=5) == first
    assert first.refusal.n == 22
    assert first.over_refusal.n == 22
    assert sum(rate.n for rate in first.refusal_by_category.values()) == 22


def test_a_model_in_memory_scores_as_its_folder_does() -> None:
    path = demo_paths()["task-clean"]
    assert evaluate(load_model(path), limit=22) == evaluate(path, limit=22)


def test_a_model_that_never_refuses_scores_no_refusal() -> None:
    model = load_model(demo_paths()["aligned"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    scores = evaluate(model, limit=11)
    assert scores.refusal == Rate(0, 11)
    assert scores.task_token_accuracy == replace(scores.task_token_accuracy, successes=0)
