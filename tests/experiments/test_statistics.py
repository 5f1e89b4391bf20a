"""The statistics hold what they promise: coverage, false positives, the family-wise level."""

import math

import numpy as np
import pytest
import scipy.stats

from keras_initx.experiments._statistics import counts_p, holm, mean_interval, paired_p

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


@pytest.mark.parametrize("seeds", [3, 5, 8, 20])
def test_the_intervals_of_few_seeds_hold_the_mean_as_often_as_they_say(seeds):
    rng, repeats = np.random.default_rng(seeds), 400
    draws = rng.normal(0.9, 0.02, (repeats, seeds))
    held = sum(low <= 0.9 <= high for _, low, high in map(mean_interval, draws))
    allowed = 4 * math.sqrt(0.95 * 0.05 / repeats) + (0.01 if seeds >= 8 else 0)  # the bootstrap's own error
    assert abs(held / repeats - 0.95) < allowed


def test_of_many_values_the_interval_is_students():
    values = np.random.default_rng(0).normal(size=200)
    low, high = scipy.stats.t.interval(0.95, 199, values.mean(), scipy.stats.sem(values))
    mean, found_low, found_high = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    assert (found_low, found_high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_the_same_values_have_the_same_interval_and_one_value_has_none():
    assert mean_interval([0.1, 0.5, 0.2]) == mean_interval([0.1, 0.5, 0.2])
    assert mean_interval([0.4]) == (0.4, -math.inf, math.inf)


def test_equal_schemes_are_told_apart_as_rarely_as_the_level_says():
    rng, repeats = np.random.default_rng(0), 1000
    found = [paired_p(*rng.normal(size=(2, 5))) < 0.05 for _ in range(repeats)]
    assert abs(np.mean(found) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / repeats)


def test_pairing_takes_out_what_the_seeds_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=5)
    better = shared + 0.1 + rng.normal(0, 0.01, 5)
    assert paired_p(better, shared) < 0.001
    assert scipy.stats.ttest_ind(better, shared).pvalue > 0.5


def test_differences_without_a_spread_prove_no_more_than_their_signs():
    assert paired_p([1.0] * 5, [0.1] * 5) == 2 / 2**5
    assert paired_p([0.9], [0.1]) == 1.0


def test_holm_follows_its_definition_and_keeps_the_family_at_its_level():
    values = np.random.default_rng(0).uniform(0, 0.2, 8)
    # Step by step from the definition: the k-th smallest times (n - k), made monotone.
    order = np.argsort(values)
    expected = np.maximum.accumulate(np.minimum(1, (8 - np.arange(8)) * values[order]))
    np.testing.assert_allclose(np.array(holm(list(values)))[order], expected)
    rng, repeats = np.random.default_rng(1), 1000
    wrong = [min(holm(list(rng.uniform(size=10)))) < 0.05 for _ in range(repeats)]
    assert np.mean(wrong) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)
    assert holm([]) == []


def test_counts_are_compared_by_fishers_test():
    assert counts_p(5, 0, 5, 5) == pytest.approx(2 / 252)  # of the 252 ways to choose 5 of 10
    assert counts_p(3, 3, 5, 5) == 1.0
