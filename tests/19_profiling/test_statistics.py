"""What may be said of samples, checked by counting how often it is right, and by the tables of the books."""

import math

import numpy as np
import pytest

from tinytorch.profiling.timing.statistics import (
    Estimate,
    Outliers,
    Rate,
    binomial_cdf,
    drift,
    median_interval,
    outliers,
    quantile_interval,
    ranks,
    samples_needed,
)


@pytest.mark.parametrize("n", [6, 9, 20, 101])
def test_the_interval_covers_the_true_median_at_least_95_times_in_100(n):
    rng = np.random.default_rng(n)
    skewed = np.exp(rng.normal(size=(4000, n)))  # true median 1, mean 1.65
    intervals = [median_interval(samples) for samples in skewed]
    assert np.mean([e.low <= 1.0 <= e.high for e in intervals]) > 0.94
    assert all(e.low <= e.value <= e.high for e in intervals)


@pytest.mark.parametrize(("p", "n"), [(0.95, 93), (0.99, 473), (0.05, 93), (0.75, 40), (0.9, 400)])
def test_the_interval_of_a_percentile_covers_the_true_one_and_is_not_needlessly_wide(p, n):
    rng = np.random.default_rng(n)
    intervals = [quantile_interval(samples, p) for samples in rng.random((2000, n))]  # the true one is p
    covered = np.mean([e.low <= p <= e.high for e in intervals])
    assert 0.94 < covered < 0.995


def test_the_interval_of_known_numbers_is_that_of_the_tables():
    """Ten samples: the second smallest and the second largest (David & Nagaraja, 97.9 %)."""
    assert median_interval([3, 1, 2, 10, 9, 8, 4, 7, 6, 5]) == Estimate(5.5, 2, 9)


@pytest.mark.parametrize(
    ("p", "confidence", "needed"),
    [
        (0.99, 0.95, 473),  # the second orders of the tables of Wilks' method
        (0.95, 0.95, 93),
        (0.90, 0.95, 46),
        (0.99, 0.99, 662),
        (0.95, 0.99, 130),
        (0.5, 0.95, 6),
        (0.5, 0.99, 8),
    ],
)
def test_a_quantile_takes_exactly_as_many_samples_as_the_tables_say(p, confidence, needed):
    assert samples_needed(p, confidence) == needed
    assert samples_needed(1 - p, confidence) == needed
    quantile_interval(np.arange(needed), p, confidence)
    with pytest.raises(ValueError, match=f"{needed - 1} samples are too few for .* it takes {needed}"):
        quantile_interval(np.arange(needed - 1), p, confidence)


@pytest.mark.parametrize(("p", "confidence"), [(0, 0.95), (1, 0.95), (99, 0.95), (0.99, 1), (0.5, 95), (math.nan, 0.9)])
def test_shares_that_no_number_of_samples_is_enough_for_are_refused(p, confidence):
    for call in (lambda: samples_needed(p, confidence), lambda: quantile_interval(np.arange(1000), p, confidence)):
        with pytest.raises(ValueError, match="lie between 0 and 1"):
            call()


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.49, 0.5, 0.51, 0.7, 0.9, 0.999])
def test_where_there_are_samples_enough_there_is_an_interval_of_two_sides(p, confidence):
    n = samples_needed(p, confidence)
    e = quantile_interval(np.arange(n), p, confidence)
    assert 0 <= e.low <= e.value <= e.high <= n - 1


def test_a_sample_that_is_no_number_is_found():
    with pytest.raises(ValueError, match="not a finite number"):
        median_interval([1.0] * 9 + [math.nan])


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.3), (473, 0.99), (2000, 0.01)])
def test_the_binomial_distribution_is_that_of_exact_whole_numbers(n, p):
    exact, total = [], 0.0
    for k in range(n + 1):
        total += math.exp(math.log(math.comb(n, k)) + k * math.log(p) + (n - k) * math.log1p(-p))
        exact.append(total)
    np.testing.assert_allclose(binomial_cdf(n, p), np.minimum(exact, 1.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0)],
)
def test_the_interval_of_a_rate_is_that_of_clopper_and_pearsons_tables(hits, trials, low, high):
    e = Rate(hits, trials).interval()
    assert e.value == hits / trials
    assert (e.low, e.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_tails_of_a_rate_are_both_with_what_was_seen():
    rate = Rate(2, 3)
    assert rate.at_least(0.5) == pytest.approx(4 / 8)
    assert rate.at_most(0.5) == pytest.approx(7 / 8)
    assert Rate(0, 3).at_least(0.2) == pytest.approx(1.0)
    assert Rate(3, 3).at_most(0.2) == pytest.approx(1.0)


def test_outliers_are_counted_by_how_far_beyond_the_quartiles_they_lie():
    even = np.arange(101.0)  # quartiles 25 and 75: fences at -50 and 150, -125 and 225
    assert outliers(even) == Outliers(0, 0, 0, 0)
    assert outliers([*even, *np.full(4, 50.0), -100, 170, 200, 999]) == Outliers(0, 1, 2, 1)
    assert outliers([*even, *np.full(4, 50.0), -999, -998, -100, 170]) == Outliers(2, 1, 1, 0)


def test_a_trend_is_found_and_its_size_told_in_either_direction():
    rng = np.random.default_rng(0)
    rising = np.linspace(1.0, 1.3, 300) * np.exp(0.05 * rng.normal(size=300))
    assert drift(rising) == pytest.approx(1.25 / 1.05 - 1, abs=0.03)
    assert drift(rising[::-1]) == pytest.approx(1.05 / 1.25 - 1, abs=0.03)


def test_equal_numbers_share_the_mean_of_their_ranks():
    np.testing.assert_array_equal(ranks(np.array([20.0, 10.0, 30.0, 20.0])), [2.5, 1.0, 4.0, 2.5])


def test_noise_without_a_trend_is_seldom_called_one():
    rng = np.random.default_rng(0)
    assert np.mean([drift(np.exp(0.1 * rng.standard_t(2, 100))) != 0 for _ in range(1000)]) < 0.02


def test_a_trend_of_less_than_one_percent_is_none_however_sure():
    assert drift(np.linspace(1.0, 1.012, 300)) == 0.0
    assert drift(np.linspace(1.0, 1.02, 300)) > 0.01


@pytest.mark.parametrize("samples", [[1.0], [1.0, 2.0], np.ones(50)])
def test_few_or_equal_samples_have_no_trend(samples):
    assert drift(samples) == 0.0


def test_an_estimate_changes_its_unit_as_a_whole():
    assert Estimate(2.0, 1.0, 4.0).scaled(1e3) == Estimate(2e3, 1e3, 4e3)
