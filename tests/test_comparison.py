"""Comparing methods: each statistic against scipy, a closed form, a published table, or numbers worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dimum_core.metrics import (
    MetricError,
    average_ranks,
    holm,
    least_difference,
    least_p,
    letter_groups,
    paired_difference,
    pairs_needed,
    pairwise_comparisons,
    power,
    sign_flip_interval,
    sign_flip_test,
)

GENERATOR = np.random.default_rng(0)


def test_pairing_removes_what_a_pair_has_in_common():
    common = GENERATOR.normal(0, 10, 40)
    first, second = common + 1 + GENERATOR.normal(0, 0.1, 40), common + GENERATOR.normal(0, 0.1, 40)
    interval = paired_difference(first, second)
    assert interval.low > 0.9 and interval.high < 1.1 and interval.n == 40
    scipys = stats.ttest_rel(first, second).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((scipys.low, scipys.high))


def test_the_interval_of_few_pairs_covers_what_it_says():
    hits = [paired_difference(x, np.zeros(6)) for x in GENERATOR.normal(0, 1, (1000, 6))]
    assert np.mean([i.low <= 0 <= i.high for i in hits]) == pytest.approx(0.95, abs=0.025)


def test_the_sign_flip_test_counts_every_pattern_of_signs():
    first, second = GENERATOR.normal(size=(2, 7))
    difference = first - second
    means = [abs(np.mean(difference * s)) for s in itertools.product((1, -1), repeat=7)]
    expected = np.mean([m >= abs(difference.mean()) - 1e-12 for m in means])
    assert sign_flip_test(first, second) == pytest.approx(expected)
    scipys = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(first, second) == pytest.approx(scipys.pvalue)
    assert sign_flip_test(first, first) == 1 and sign_flip_test(np.arange(1.0, 7), np.zeros(6)) == least_p(6) == 2 / 64
    assert sign_flip_test(np.arange(1.0, 41), np.zeros(40)) == least_p(40) == 1e-4
    many = GENERATOR.normal(0.4, 1, 60)
    assert sign_flip_test(many, np.zeros(60)) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)


def test_the_sign_flip_interval_holds_what_the_test_does_not_reject():
    first, second = GENERATOR.normal(0.3, 1, size=(2, 8))
    interval = sign_flip_interval(first, second)
    for end, out in ((interval.low, -1e-6), (interval.high, 1e-6)):
        assert sign_flip_test(first - (end + out), second) <= 0.05 < sign_flip_test(first - (end - out), second)
    six = sign_flip_interval([0.1, 0.2, 0.3, 0.4, 0.5, 0.9], np.zeros(6))  # 64 subsets, so k = 1: the least and the largest
    assert (six.low, six.high, six.n) == (0.1, 0.9, 6) and six.value == pytest.approx(0.4)
    assert np.isinf(sign_flip_interval(np.arange(5.0), np.zeros(5)).low)  # with five pairs no p lies below 0.0625
    many = GENERATOR.normal(0.4, 1, 400)
    students = stats.ttest_1samp(many, 0).confidence_interval()
    found = sign_flip_interval(many, np.zeros(400))
    assert (found.low, found.high) == pytest.approx((students.low, students.high), abs=0.02)


def test_the_sign_flip_interval_covers_means_that_are_all_or_nothing():
    drawn = GENERATOR.choice([-0.9, -0.8, 0.8, 0.9], size=(1000, 9))
    hits = [interval.low <= 0 <= interval.high for interval in (sign_flip_interval(x, np.zeros(9)) for x in drawn)]
    assert np.mean(hits) >= 0.95 - 0.02


def test_a_difference_is_distinguishable_or_equivalent_or_open():
    base = np.linspace(0, 1, 12)
    table = pd.DataFrame({"a": base, "near": base + np.tile([0.02, -0.02], 6), "far": base + 0.5, "loose": base[::-1]})
    verdicts = pairwise_comparisons(table).set_index(["first", "second"])["verdict"]
    assert verdicts["a", "near"] == "equivalent" and verdicts["a", "far"] == "distinguishable" and verdicts["a", "loose"] == "open"
    few = pairwise_comparisons(table.head(5)[["a", "near"]])
    assert few["verdict"].tolist() == ["open"]  # five pairs bound nothing


def test_holms_worked_example():
    # Holm 1979's procedure by hand: 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1 lifted to what came before
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([]).tolist() == []
    with pytest.raises(MetricError, match="in \\[0, 1\\]"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_rejects_what_stepping_down_rejects(p):
    rejected, threshold = set(), 0.05
    for k, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - k) > threshold:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p) <= threshold).tolist()) == rejected


def test_ranks_share_ties():
    table = pd.DataFrame({"a": [0.1, 0.0, 0.2], "b": [0.1, 0.3, 0.1], "c": [0.9, 0.3, 0.4]})
    expected = {"a": (1.5 + 1 + 2) / 3, "b": (1.5 + 2.5 + 1) / 3, "c": (3 + 2.5 + 3) / 3}
    assert average_ranks(table).to_dict() == pytest.approx(expected)
    assert average_ranks(table).sum() == pytest.approx(1 + 2 + 3)
    with pytest.raises(MetricError, match="gaps"):
        average_ranks(table.replace(0.0, np.nan))


def test_all_pairs_are_compared_and_corrected_together():
    base = GENERATOR.normal(size=10)
    table = pd.DataFrame({"low": base, "same": base[::-1].copy(), "high": base + 1 + 0.01 * GENERATOR.normal(size=10)})
    found = pairwise_comparisons(table).set_index(["first", "second"])
    row = found.loc[("low", "high")]
    assert len(found) == 3 and row["difference"] == pytest.approx(-1, abs=0.02) and row["low"] <= row["difference"] <= row["high"]
    assert row["p"] == least_p(10) and row["p (Holm)"] == pytest.approx(3 * least_p(10))
    assert found["p (Holm)"].tolist() == holm(found["p"]).tolist()


def test_letters_of_a_worked_example():
    pairs = {frozenset(p) for p in (("A", "C"), ("A", "D"), ("B", "D"))}
    assert letter_groups(["A", "B", "C", "D"], pairs) == {"A": "a", "B": "ab", "C": "bc", "D": "c"}
    assert letter_groups(["A", "B"], set()) == {"A": "a", "B": "a"}


@given(st.sets(st.sampled_from([frozenset(p) for p in itertools.combinations("ABCDEF", 2)])))
@settings(max_examples=60, deadline=None)
def test_two_names_share_a_letter_exactly_if_they_do_not_differ(different):
    letters = letter_groups(list("ABCDEF"), different)
    for pair in itertools.combinations("ABCDEF", 2):
        assert bool(set(letters[pair[0]]) & set(letters[pair[1]])) == (frozenset(pair) not in different)


def test_power_against_the_table_and_a_simulation():
    # Cohen 1988, paired t-test, two-sided 5 %, power 80 %: effects 0.5, 0.8 and 1.0 take 34, 15 and 10 pairs
    assert [pairs_needed(d, 1.0) for d in (0.5, 0.8, 1.0)] == [34, 15, 10]
    drawn = np.random.default_rng(1).normal(0.3, 0.4, (20_000, 9))
    found = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert power(0.3, 0.4, 9) == pytest.approx(found, abs=0.015) and power(0, 1, 9) == pytest.approx(0.05)
    assert power(least_difference(0.4, 9), 0.4, 9) == pytest.approx(0.8)
    for wrong in ((0, 1), (1e-6, 1), (1, 0)):
        with pytest.raises(MetricError):
            pairs_needed(*wrong)


def test_what_is_not_paired_is_refused():
    for first, second in (([1], [2]), ([1, 2], [1, 2, 3]), ([1, np.nan], [1, 2])):
        with pytest.raises(MetricError, match="lists of one length"):
            paired_difference(first, second)
