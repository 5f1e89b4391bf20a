"""Every sentence of a comparison agrees with its own numbers, whatever the results are."""

import itertools
import math
import re
import statistics

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from keras_initx.experiments import Trial, TrialResult
from keras_initx.experiments._summarize import summarize

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

LOST = ("diverged", "stopped", "failed")


def made(label, seed, ending, rate=None, shift=0.0):
    """The result of a trial that ended with a number, or was lost in one of the ways."""
    trial = Trial(label, seed, rate, 1)
    if ending == "failed":
        return TrialResult(trial, failure="MemoryError: full")
    if ending in LOST:
        return TrialResult(trial, diverged=ending == "diverged", stopped=ending == "stopped")
    return TrialResult(trial, final=ending, best=ending, test=ending + shift)


def table(endings, **more):
    """Results of labels a, b, ... from one list of endings a label, by seed."""
    return [
        made(label, seed, ending, **more)
        for label, row in zip("abcdef", endings, strict=False)
        for seed, ending in enumerate(row)
    ]


def verdict(endings, minimize=False, reported="validation", **more):
    return summarize(table(endings), "accuracy", minimize, reported, **more)


@st.composite
def tables(draw):
    """Results with ties, noise, lost and missing seeds, at one rate or several."""
    values = draw(
        st.sampled_from(
            [
                st.integers(0, 4).map(lambda number: number / 4),  # ties
                st.floats(0, 1, allow_subnormal=False),
                st.sampled_from([0.1, 0.101, 0.9, 0.901]),  # two levels with little noise
            ]
        )
    )
    lost = st.sampled_from(LOST)
    one = st.one_of(values, values, values, values, lost) if draw(st.booleans()) else values
    rates = draw(st.sampled_from([[None], [None], [0.1, 0.01], [1.0, 0.1, 0.01]]))
    seeds = draw(st.integers(1, 8))
    shift = draw(st.sampled_from([0.0, 0.0, -0.05]))
    offsets = {label: draw(st.sampled_from([0.0, 0.0, 0.5])) for label in "abcd"[: draw(st.integers(1, 4))]}
    found = []
    for seed, rate, label in itertools.product(range(seeds), rates, offsets):
        ending = draw(one)
        ending = ending if ending in LOST else min(1.0, ending / 2 + offsets[label])
        if draw(st.integers(0, 9)):  # else the trial was never made
            found.append(made(label, seed, ending, rate, shift))
    hypothesis.assume(found)
    return found


CASES = st.tuples(
    tables(),
    st.booleans(),
    st.sampled_from(["test", "validation"]),
    st.sampled_from([None, {"accuracy": (-1.0, 1.0)}]),
    st.sampled_from([None, 0.25]),
)


def value_of(result, reported):
    if result.failure or result.diverged or result.stopped:
        return None
    return result.test if reported == "test" else result.final


def by_seed(results, row, reported):
    return {
        one.trial.seed: value_of(one, reported)
        for one in results
        if (one.trial.initializer, one.trial.learning_rate) == (row.initializer, row.learning_rate)
        and value_of(one, reported) is not None
    }


def check_rows(found, results):
    sign = -1 if found.minimize else 1
    for row in found.grid:
        values = list(by_seed(results, row, found.reported).values())
        assert row.ended == len(values)
        assert row.ended + row.diverged + row.stopped + row.failed == row.seeds
        assert (row.mean is None) == (not values)
        if values:
            assert row.mean == pytest.approx(statistics.fmean(values))
            assert row.low <= row.mean <= row.high
        if len(values) > 1:
            assert row.std == pytest.approx(np.std(values, ddof=1))
            if found.bounds:
                assert -1 <= row.low <= row.high <= 1
        if row.at_chance:
            assert all(sign * (value - found.chance) <= 1e-4 for value in values)
    means = [-math.inf if row.mean is None else sign * row.mean for row in found.rows]
    assert means == sorted(means, reverse=True)


def check_rates(found, results):
    """No rate that trains is better on the seeds that all of those which train share."""
    sign = -1 if found.minimize else 1
    for row in found.rows:
        others = [one for one in found.grid if one.initializer == row.initializer]
        trains = [one for one in others if one.ended > one.diverged]
        assert row in (trains or others)
        finals = {one.learning_rate: by_seed(results, one, "validation") for one in trains or others}
        shared = set.intersection(*map(set, finals.values()))
        if shared:
            means = {rate: sign * statistics.fmean(f[s] for s in shared) for rate, f in finals.items()}
            assert means[row.learning_rate] >= max(means.values()) - 1e-12


def check_differences(found, results):
    rows = {row.initializer: row for row in found.rows}
    for pair in found.differences:
        first, second = (by_seed(results, rows[label], found.reported) for label in (pair.first, pair.second))
        assert pair.corrected >= pair.p
        assert pair.real == (pair.corrected < 0.05)
        if pair.kind == "endings":
            counts = [(rows[label].ended, rows[label].judged) for label in (pair.first, pair.second)]
            assert counts[0][0] / counts[0][1] >= counts[1][0] / counts[1][1]
            losses = [[ended, judged - ended] for ended, judged in counts]
            assert pair.p == pytest.approx(scipy.stats.fisher_exact(losses).pvalue)
            continue
        seeds = sorted(first.keys() & second.keys())
        assert pair.seeds == len(seeds)
        if not seeds:
            assert pair.mean is None
            continue
        apart = [first[seed] - second[seed] for seed in seeds]
        assert pair.mean == pytest.approx(statistics.fmean(apart))
        assert pair.mean <= 1e-12 if found.minimize else pair.mean >= -1e-12
        assert pair.low <= pair.mean <= pair.high
        assert pair.real == (not pair.low <= 0 <= pair.high)
        if len(seeds) > 1 and np.ptp(apart) > 1e-6:
            again = scipy.stats.ttest_rel([first[s] for s in seeds], [second[s] for s in seeds])
            assert pair.p == pytest.approx(again.pvalue)


def check_recommendation(found, results):
    if found.recommendation is None:
        return
    row = next(row for row in found.rows if row.initializer == found.recommendation)
    own, sign = by_seed(results, row, found.reported), -1 if found.minimize else 1
    assert not row.at_chance
    assert row.ended > row.diverged
    compared = [other for other in found.rows if other is not row and other.judged]
    assert compared
    for other in compared:
        values = by_seed(results, other, found.reported)
        if values:  # not worse in the mean, neither of all nor of the shared seeds
            assert sign * statistics.fmean(own.values()) >= sign * statistics.fmean(values.values()) - 1e-12
        if shared := own.keys() & values.keys():
            apart = statistics.fmean(sign * (own[seed] - values[seed]) for seed in shared)
            assert apart >= -1e-12
        assert any(
            pair.real and (pair.first, pair.second) == (row.initializer, other.initializer)
            for pair in found.differences
        )


NUMBER = r"([+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf))"
SIZE = rf"{NUMBER} \[{NUMBER}, {NUMBER}\] \(p (<|=) {NUMBER}, (\d+) seeds\)"


def check_words(found):
    sign = -1 if found.minimize else 1
    told = 0
    for line in found.summary.splitlines():
        if match := re.fullmatch(rf"(\w) (beats|against) (\w)(?: may be noise)?: {SIZE}\.", line):
            _, verb, _, mean, low, high, _, p, seeds = match.groups()
            mean, low, high, p = map(float, (mean, low, high, p))
            assert low <= mean <= high
            assert sign * mean >= 0
            assert (verb == "beats") == (p < 0.05) == (sign * (low if sign > 0 else high) > 0)
            assert int(seeds) >= 2
        elif match := re.fullmatch(
            rf"(\w) (ends well more often than|may end well as often as) (\w): (\d+) of (\d+) seeds against "
            rf"(\d+) of (\d+) \(p (<|=) {NUMBER}\)\.",
            line,
        ):
            _, verb, _, *counts, _, p = match.groups()
            ended, judged, other, of_other = map(int, counts)
            assert ended / judged >= other / of_other
            assert ("more often" in verb) == (float(p) < 0.05)
        elif match := re.fullmatch(r"Recommended: (\w)(, although .*)?\.", line):
            assert match[1] == found.recommendation
            row = found.rows[0]
            assert row.initializer == match[1]
            assert f"{row.diverged} of {row.seeds} seeds diverged" in line or not row.diverged
            assert f"{row.stopped} of {row.seeds} seeds stopped early" in line or not row.stopped
            assert bool(match[2]) == bool(row.diverged or row.stopped)
            told += 1
        elif line.startswith(("No recommendation: ", "No initializer ended well")):
            assert found.recommendation is None
            told += 1
        else:
            assert re.match(
                r"Of \d|At learning rate |\w stayed at chance|Learning rates were|\w and \w can", line
            )
    assert told == 1


@hypothesis.settings(max_examples=120, deadline=None, derandomize=True)
@hypothesis.given(CASES)
def test_rows_tests_words_and_recommendation_agree(case):
    results, minimize, reported, bounds, chance = case
    found = summarize(results, "accuracy", minimize, reported, bounds, chance)
    check_rows(found, results)
    check_rates(found, results)
    check_differences(found, results)
    check_recommendation(found, results)
    check_words(found)


def negated(result):
    turned = {
        name: None if (v := getattr(result, name)) is None else -v for name in ("final", "best", "test")
    }
    return TrialResult(
        **{**vars(result), **turned},
    )


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(tables())
def test_less_of_the_negative_is_more(results):
    found = summarize(results, "accuracy", False, "test")
    turned = summarize([negated(result) for result in results], "accuracy", True, "test")
    assert turned.recommendation == found.recommendation
    assert [row.initializer for row in turned.rows] == [row.initializer for row in found.rows]
    assert [(d.first, d.second, d.real) for d in turned.differences] == [
        (d.first, d.second, d.real) for d in found.differences
    ]


def test_recommendations_do_occur():
    """What the property is about: clear, noisy, tied and lost tables end in both ways."""
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0.9, 0.01, 5), rng.normal(0.5, 0.01, 5)
    for minimize, best in ((False, "a"), (True, "b")):
        found = verdict([good, bad], minimize)
        assert (found.recommendation, found.rows[0].initializer) == (best, best)
        assert f"Recommended: {best}." in found.summary
    assert verdict([good, good]).recommendation is None


@pytest.mark.parametrize("way", LOST)
def test_one_lost_seed_does_not_make_the_worse_one_better(way):
    good = [0.9, 0.91, 0.92, 0.9, way]
    found = verdict([[0.5] * 5, good])
    assert found.recommendation == "b"
    assert found.rows[0].initializer == "b"
    # Of a seed that says something there are two tests, so that intervals are wider.
    interval = "[0.392, 0.423]" if way == "failed" else "[0.388, 0.427]"
    assert f"b beats a: +0.407 {interval} (p < 0.001, 4 seeds)." in found.summary
    assert "Its mean is over the other 4." in found.summary
    assert ("Recommended: b." in found.summary) == (way == "failed")
    told = {
        "diverged": "Recommended: b, although 1 of 5 seeds diverged.",
        "stopped": "Recommended: b, although 1 of 5 seeds stopped early.",
        "failed": "Of 5 seeds b failed in 1, which says nothing about it.",
    }
    assert told[way] in found.summary


def test_divergence_speaks_against_an_initializer_and_a_failure_does_not():
    good = [0.9, 0.91, 0.92, 0.93, 0.9, 0.92]
    found = verdict([good, ["diverged"] * 6])
    assert found.recommendation == "a"
    assert "a ends well more often than b: 6 of 6 seeds against 0 of 6 (p = 0.0022)." in found.summary
    found = verdict([good, ["failed"] * 6])
    assert found.recommendation is None
    assert "there is nothing to compare a with" in found.summary
    assert "Of 6 seeds b failed in 6, which says nothing about it." in found.summary
    found = verdict([good, [value - 0.2 + seed / 99 for seed, value in enumerate(good)], ["failed"] * 6])
    assert found.recommendation == "a"


def test_what_diverges_as_often_as_it_trains_is_not_recommended():
    lucky = [0.99, 0.98, 0.97, *["diverged"] * 3]
    steady = [0.50, 0.49, 0.48, 0.5, 0.51, 0.5]
    found = verdict([steady, lucky])
    assert found.rows[0].initializer == "b"
    assert found.recommendation is None
    assert "No recommendation: b has the best mean, but it diverged in 3 of 6 seeds." in found.summary


def test_of_two_that_are_as_good_the_one_that_ends_well_is_recommended():
    steady = [0.9 + seed / 1000 for seed in range(20)]
    apart = [(-1) ** seed / 100 for seed in range(9)]
    lost = [steady[seed] + apart[seed] - 0.002 if seed < 9 else "diverged" for seed in range(20)]
    found = verdict([lost, steady])
    assert found.rows[0].initializer == found.recommendation == "b"
    assert "b ends well more often than a: 20 of 20 seeds against 9 of 20 (p < 0.001)." in found.summary
    better = [steady[seed] + apart[seed] + 0.05 if seed < 9 else "diverged" for seed in range(20)]
    found = verdict([better, steady])
    assert found.recommendation is None
    assert "No recommendation: a has the best mean, but it diverged in 11 of 20 seeds" in found.summary


def test_a_mean_that_rests_on_other_seeds_is_no_reason():
    """On the seeds of both b is better, but a has the best mean, since it has not the hard seed."""
    found = verdict([[0.88, 0.89, 0.90, 0.91, "failed"], [0.901, 0.91, 0.921, 0.93, 0.5]])
    assert [row.initializer for row in found.rows] == ["a", "b"]
    assert (found.differences[0].first, found.differences[0].real) == ("b", True)
    assert found.recommendation is None
    assert "No recommendation: a has the best mean, but b is better where both ended well." in found.summary


def test_a_learning_rate_is_not_chosen_for_a_seed_that_was_lost():
    for way in ("failed", "diverged"):
        results = table([[0.9, 0.91, 0.92, 0.93, way]], rate=0.1)
        results += table([[0.3, 0.31, 0.32, 0.33, 0.34]], rate=0.001)
        found = summarize(results, "accuracy", False, "validation")
        assert found.rows[0].learning_rate == 0.1
        told = (
            "At learning rate 0.001 instead of 0.1, a diverged in no seeds, with a validation accuracy of "
            "0.32 instead of 0.915."
        )
        assert (told in found.summary) == (way == "diverged")
    results = table([[0.99, *["diverged"] * 4]], rate=1.0) + table([[0.9, 0.9, 0.9, 0.9, 0.9]], rate=0.1)
    assert summarize(results, "accuracy", False, "validation").rows[0].learning_rate == 0.1
    # The seed that one of them lost is a hard one: on those of both, 0.01 is the better one.
    results = table([[0.9, 0.9, 0.9, "failed"]], rate=0.1) + table([[0.92, 0.92, 0.92, 0.1]], rate=0.01)
    assert summarize(results, "accuracy", False, "validation").rows[0].learning_rate == 0.01


def test_what_stayed_at_chance_is_flagged_and_not_recommended():
    found = verdict([[0.5] * 5, [0.41, 0.4, 0.42, 0.4, 0.41]], chance=0.5)
    assert [row.at_chance for row in found.rows] == [True, True]
    assert found.recommendation is None
    assert "No recommendation: a has the best mean, but it stayed at chance." in found.summary
    assert "a stayed at chance: in none of 5 seeds is it better than one prediction" in found.summary
    assert [row.at_chance for row in verdict([[0.5, 0.5, 0.52]], chance=0.5).rows] == [False]
    assert [row.at_chance for row in verdict([[0.5, 0.5, 0.48]], True, chance=0.5).rows] == [False]
    assert [row.at_chance for row in verdict([["diverged"]], chance=0.5).rows] == [False]
    assert [row.at_chance for row in verdict([[0.5]]).rows] == [False]


def test_a_p_value_is_printed_on_its_side_of_the_level():
    """0.0498 would be 0.05 with two digits."""
    apart = np.array([0.1, 0.2, 0.3, 0.4])

    def p_of(shift):
        return scipy.stats.ttest_1samp(apart + shift, 0).pvalue

    low, high = -0.2, 0.2
    for _ in range(60):
        low, high = (low, (low + high) / 2) if p_of((low + high) / 2) < 0.0498 else ((low + high) / 2, high)
    found = verdict([list(apart + high), [0.0] * 4])
    assert 0.049 < found.differences[0].corrected < 0.05
    assert "(p = 0.0498, 4 seeds)" in found.summary
    assert found.recommendation == "a"
