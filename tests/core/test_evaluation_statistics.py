"""Statistics: each is what scipy or statsmodels computes, and says what it does not know."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from trimtab.evaluation.statistics import (
    Confusion,
    bootstrap_mean,
    clopper_pearson,
    confusion,
    holm,
    kappa,
    mcnemar,
    paired_difference,
    paired_table,
    rate,
    rule_of_three,
    wilson,
)

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
LEVELS = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(COUNTS, LEVELS)
def test_wilson_is_statsmodels_wilson(counts: tuple[int, int], level: float) -> None:
    k, n = counts
    wanted = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert wilson(k, n, level) == pytest.approx(wanted, abs=1e-12)
    low, high = wilson(k, n, level)
    assert 0 <= low <= k / n <= high <= 1


@given(COUNTS, LEVELS)
@settings(max_examples=40)
def test_clopper_pearson_is_scipys_exact_interval(counts: tuple[int, int], level: float) -> None:
    k, n = counts
    wanted = stats.binomtest(k, n).proportion_ci(level, method="exact")
    assert clopper_pearson(k, n, level) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_the_ends_of_intervals_are_exact() -> None:
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1
    assert clopper_pearson(0, 20)[0] == 0
    assert clopper_pearson(20, 20)[1] == 1


def test_without_trials_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert rule_of_three(0) == 1
    empty = rate(0, 0)
    assert (empty.value, empty.low, empty.high, empty.n) == (None, None, None, 0)
    assert bootstrap_mean([]).value is None
    assert paired_difference([], []).value is None
    assert paired_table([], []).p_value() is None
    assert kappa(confusion([], [])).value is None


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    for interval in (wilson, clopper_pearson, rate):
        with pytest.raises(ValueError, match="0 <= k <= n"):
            interval(k, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, level)


def test_the_rule_of_three_needs_a_count() -> None:
    with pytest.raises(ValueError, match="negative"):
        rule_of_three(-1)


@pytest.mark.parametrize("n", [20, 100, 330])
def test_the_rule_of_three_is_close_above_the_exact_one_sided_bound(n: int) -> None:
    exact = 1 - 0.05 ** (1 / n)
    assert exact < rule_of_three(n) < exact * 1.1


def test_a_rate_of_nothing_or_everything_has_the_bound_of_the_rule_of_three() -> None:
    assert rate(0, 330).bound == pytest.approx(3 / 330)
    assert rate(330, 330).bound == pytest.approx(1 - 3 / 330)
    assert rate(1, 330).bound is None


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_bootstrap_is_scipys_bit_by_bit_of_its_draws(method: str, seed: int) -> None:
    values = np.random.default_rng(7).choice([1.0, 1.0, 1.0, 3.0, 5.0], size=60)
    wanted = stats.bootstrap(
        (values,), np.mean, method=method, n_resamples=2000, rng=np.random.default_rng(seed)
    ).confidence_interval
    got = bootstrap_mean(values, seed=seed, resamples=2000, method=method.lower())
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert got.value == pytest.approx(values.mean())


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_bootstrap_by_prompt_is_scipys_of_prompts_with_all_their_answers(method: str) -> None:
    random = np.random.default_rng(3)
    prompts = np.repeat(np.arange(25), random.integers(1, 6, 25))
    values = random.normal(size=len(prompts)) + prompts % 3
    sums = np.bincount(prompts, weights=values)
    sizes = np.bincount(prompts).astype(float)
    wanted = stats.bootstrap(
        (sums, sizes),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        method=method,
        n_resamples=2000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    got = bootstrap_mean(values, list(prompts), 5, resamples=2000, method=method.lower())
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    shuffled = random.permutation(len(values))
    again = bootstrap_mean(values[shuffled], list(prompts[shuffled]), 5, resamples=2000)
    assert again.value == pytest.approx(got.value)


def test_answers_to_one_prompt_do_not_count_as_many_prompts() -> None:
    values = [1.0, 5.0, 3.0, 5.0, 1.0, 2.0]
    ten_times = [value for value in values for _ in range(10)]
    prompts = [prompt for prompt in range(6) for _ in range(10)]
    by_prompt = bootstrap_mean(ten_times, prompts, 0, method="percentile")
    once = bootstrap_mean(values, None, 0, method="percentile")
    naive = bootstrap_mean(ten_times, None, 0, method="percentile")
    assert (by_prompt.low, by_prompt.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < (by_prompt.high - by_prompt.low) / 2


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    values = list(np.random.default_rng(1).normal(size=40))
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


def test_many_prompts_are_drawn_piece_by_piece_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = list(np.random.default_rng(1).normal(size=40))
    whole = bootstrap_mean(values, seed=4)
    monkeypatch.setattr("trimtab.evaluation.statistics._DRAWN_AT_ONCE", 40 * 3)
    assert bootstrap_mean(values, seed=4) == whole


def test_a_bootstrap_without_spread_says_so() -> None:
    one = bootstrap_mean([2.0, 4.0], ["a", "a"])
    assert (one.value, one.low, one.high) == (3.0, None, None)
    assert "one prompt" in one.note
    # 0.1 three times is not 0.3 in binary; these prompts agree all the same
    flat = bootstrap_mean([0.1, 0.1, 0.1, 0.1], ["a", "b", "b", "b"])
    assert flat.low == flat.high == pytest.approx(0.1)
    assert "no spread" in flat.note


def test_values_and_groups_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="groups"):
        bootstrap_mean([1.0, 2.0], ["a"])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_test_of_statsmodels_and_scipy(b: int, c: int) -> None:
    wanted = statsmodels_mcnemar([[5, b], [c, 7]], exact=True).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(wanted, abs=1e-12)
    if b + c:
        assert mcnemar(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_takes_half_of_the_observed_tables_probability_away(b: int, c: int) -> None:
    n, m = b + c, min(b, c)
    seen = stats.binom.pmf(m, n, 0.5)
    wanted = 1 - seen / 2 if b == c else 2 * stats.binom.cdf(m - 1, n, 0.5) + seen
    assert mcnemar(b, c, mid_p=True) == pytest.approx(wanted, abs=1e-12)
    assert mcnemar(b, c, mid_p=True) <= mcnemar(b, c)


def test_mcnemar_holds_for_counts_at_which_powers_of_two_underflow() -> None:
    assert mcnemar(900, 1000) == pytest.approx(stats.binomtest(900, 1900).pvalue, rel=1e-9)
    assert 0 < mcnemar(0, 1000) < 1e-290


def test_a_paired_table_counts_each_way_of_changing() -> None:
    before = [True, True, False, False, True, False]
    after = [True, False, True, False, False, False]
    table = paired_table(before, after)
    assert (table.both, table.only_before, table.only_after, table.neither) == (1, 2, 1, 2)
    assert table.n == 6
    assert table.p_value() == mcnemar(2, 1)


def test_the_paired_difference_is_after_minus_before_with_an_interval_by_prompt() -> None:
    random = np.random.default_rng(2)
    before = random.random(80) < 0.2
    after = before | (random.random(80) < 0.4)
    got = paired_difference(list(before), list(after), seed=9, resamples=2000)
    steps = after.astype(float) - before
    wanted = stats.bootstrap(
        (steps,), np.mean, n_resamples=2000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert got.value == pytest.approx(after.mean() - before.mean())
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high))
    back = paired_difference(list(after), list(before), seed=9)
    assert back.value == pytest.approx(-got.value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
@settings(max_examples=25)
def test_holm_is_statsmodels_holm(p_values: list[float]) -> None:
    wanted = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(wanted), abs=1e-12)


def test_what_was_not_tested_does_not_count_for_holm() -> None:
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([]) == []
    assert holm([None]) == [None]


TABLES = st.integers(2, 4).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 30), min_size=size, max_size=size), min_size=size, max_size=size
    )
)


@given(TABLES)
def test_kappa_and_its_interval_are_statsmodels(table: list[list[int]]) -> None:
    counts = np.array(table)
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    got = kappa(Confusion(tuple("abcd"[: len(table)]), tuple(map(tuple, table))))
    n = counts.sum()
    if n == 0 or (rows * columns).max() == n * n:
        assert got.value is None
        return
    wanted = cohens_kappa(counts)
    assert got.value == pytest.approx(wanted.kappa, abs=1e-12)
    z = stats.norm.ppf(0.975)
    # statsmodels takes the root of a variance that rounding may have made negative
    error = math.sqrt(max(0.0, wanted.var_kappa))
    assert got.low == pytest.approx(max(-1, wanted.kappa - z * error), abs=1e-6)
    assert got.high == pytest.approx(min(1, wanted.kappa + z * error), abs=1e-6)


def test_kappa_of_two_judges_who_say_one_thing_only_is_undefined_and_not_1() -> None:
    one = kappa(confusion(["refused"] * 9, ["refused"] * 9, ["refused", "complied"]))
    assert (one.value, one.agreement, one.expected) == (None, 1.0, 1.0)


def test_a_confusion_matrix_has_the_first_judge_in_its_rows() -> None:
    table = confusion(["a", "a", "b", "c"], ["a", "b", "b", "a"], ["c", "b", "a"])
    assert table.labels == ("c", "b", "a")
    assert table.counts == ((0, 0, 1), (0, 1, 0), (0, 1, 1))
    assert table.n == 4
    assert confusion(["x"], ["y"]).labels == ("x", "y")
    with pytest.raises(ValueError, match="without a place"):
        confusion(["a"], ["z"], ["a"])
    with pytest.raises(ValueError, match="unequal length"):
        confusion(["a"], [])
