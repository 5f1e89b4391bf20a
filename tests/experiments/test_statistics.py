"""The statistics hold what they promise: coverage, false positives, the family-wise level."""

import math

import numpy as np
import pytest
import scipy.stats

from keras_initx.experiments._statistics import counts_p, holm, levels, mean_interval, paired

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


def test_equal_initializers_are_told_apart_as_rarely_as_the_level_says():
    rng, repeats = np.random.default_rng(0), 1000
    found = [paired(rng.normal(size=5)).p < 0.05 for _ in range(repeats)]
    assert abs(np.mean(found) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / repeats)


def test_pairing_takes_out_what_the_seeds_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=5)
    better = shared + 0.1 + rng.normal(0, 0.01, 5)
    assert paired(better - shared).p < 0.001
    assert scipy.stats.ttest_ind(better, shared).pvalue > 0.5


def test_differences_without_a_spread_prove_no_more_than_their_signs():
    assert paired([0.9] * 5) == (0.9, -math.inf, math.inf, 2 / 2**5)
    assert paired([0.9] * 5, bounds=(-1.0, 1.0)) == (0.9, -1.0, 1.0, 2 / 2**5)
    assert paired([0.9] * 6) == (0.9, 0.9, 0.9, 2 / 2**6)
    assert paired([0.9]) == (0.9, -math.inf, math.inf, 1.0)


def test_the_interval_of_differences_leaves_out_zero_exactly_if_p_is_below_the_level():
    rng, sides = np.random.default_rng(0), set()
    for confidence in (0.9, 0.95, 0.995):
        for count in (2, 3, 5, 9, 20):
            for mean in (0.0, 0.5, 2.0):
                found = paired(rng.normal(mean, 1, count), confidence)
                outside = not found.low <= 0 <= found.high
                assert outside == (found.p < 1 - confidence)
                sides.add(outside)
    assert sides == {True, False}


def test_an_interval_keeps_to_the_bounds_that_the_values_keep_to():
    accuracies = [0.05, 0.1, 0.2, 0.56]
    _, low, high = mean_interval(accuracies)
    assert low < 0  # an accuracy that cannot be
    mean, low, high = mean_interval(accuracies, bounds=(0.0, 1.0))
    assert 0 < low < mean < high < 1
    assert mean == pytest.approx(np.mean(accuracies))
    mirrored = mean_interval([1 - value for value in accuracies], bounds=(0.0, 1.0))
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high))
    _, low, high = mean_interval([0.1, 0.2, 3.0], bounds=(0.0, None))
    assert 0 < low < high
    mirrored = mean_interval([0.9, 0.8, -2.0], bounds=(None, 1.0))
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high))
    assert mean_interval([0.9, 1.5, 0.7], bounds=(0.0, 1.0)) == mean_interval([0.9, 1.5, 0.7])
    assert mean_interval([0.5, 0.6], bounds=(None, None)) == mean_interval([0.5, 0.6])
    for values in ([1.0, 1.0], [0.0, 1.0], [1.0, 1 - 1e-16], [1e-300, 1.0], [0.0, 0.0, 1e-12]):
        mean, low, high = mean_interval(values, bounds=(0.0, 1.0))
        assert 0 <= low <= mean <= high <= 1


NEAR_BOUNDS = {  # draws of (repeats, seeds), their true mean, and the bounds
    "accuracies": (lambda rng, size: rng.beta(45, 5, size), 0.9, (0.0, 1.0)),
    "accuracies near 1": (lambda rng, size: rng.beta(99, 1, size), 0.99, (0.0, 1.0)),
    "accuracies near 0": (lambda rng, size: rng.beta(1, 9, size), 0.1, (0.0, 1.0)),
    "spread all over": (lambda rng, size: rng.beta(2, 2, size), 0.5, (0.0, 1.0)),
    "correlations": (lambda rng, size: 1 - 2 * rng.beta(1, 19, size), 0.9, (-1.0, 1.0)),
    "losses": (lambda rng, size: rng.lognormal(0, 0.5, size), math.exp(0.125), (0.0, None)),
    "scores": (lambda rng, size: 1 - rng.lognormal(0, 0.5, size), 1 - math.exp(0.125), (None, 1.0)),
}


def coverage(case, seeds, repeats, bounded=True):
    draw, true, bounds = NEAR_BOUNDS[case]
    draws = draw(np.random.default_rng(seeds), (repeats, seeds))
    found = [mean_interval(values, bounds=bounds if bounded else (None, None)) for values in draws]
    return float(np.mean([low <= true <= high for _, low, high in found]))


def test_near_a_bound_the_interval_holds_the_mean_more_often_than_students():
    repeats = 600
    noise = 4 * math.sqrt(0.95 * 0.05 / repeats)
    assert abs(coverage("accuracies near 1", 3, repeats) - 0.95) < noise
    assert coverage("accuracies near 1", 3, repeats, bounded=False) < 0.95 - noise


@pytest.mark.slow
@pytest.mark.parametrize("case", NEAR_BOUNDS)
def test_coverage_near_bounds(case):
    """Of 2 to 20 seeds at most 3 of 100 short of what it says; Student's lack up to 7."""
    repeats = 3000
    noise = 4 * math.sqrt(0.95 * 0.05 / repeats)
    for seeds in (2, 3, 5, 8, 20):
        assert 0.92 - noise < coverage(case, seeds, repeats) < 0.96 + noise


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


def test_a_p_value_is_below_its_level_exactly_if_it_is_below_the_familys_once_corrected():
    rng, sides = np.random.default_rng(2), set()
    for _ in range(200):
        values = list(rng.uniform(0, 0.06, rng.integers(1, 7)))
        for p, own, corrected in zip(values, levels(values, 0.05), holm(values), strict=True):
            assert (p < own) == (corrected < 0.05)
            sides.add(p < own)
    assert sides == {True, False}
    assert levels([], 0.05) == []


def test_counts_are_compared_by_fishers_test():
    assert counts_p(5, 0, 5, 5) == pytest.approx(2 / 252)  # of the 252 ways to choose 5 of 10
    assert counts_p(3, 3, 5, 5) == 1.0
