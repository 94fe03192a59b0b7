"""Half-widths and thresholds: the coverage that is promised, on data of known truth, and what cannot be promised."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import beta, norm

from schnet_ase.errors import CalibrationError
from schnet_ase.uncertainty.calibration import Calibration, Intervals, check_coverage, forces_deviation
from schnet_ase.uncertainty.fit import calibrate_again
from tests.support.ensembles import calibrated, simulate

REPETITIONS = 200


def coverages(rng, *, coverage, repetitions=REPETITIONS, n_frames=50, **options):
    """Coverage of new frames, energy and forces, for many calibration sets."""
    rows = []
    for _ in range(repetitions):
        calibration = calibrated(simulate(rng, n_frames, **options), min(coverage, 0.9))
        new = simulate(rng, 500, **options)
        rows.append(
            [
                np.mean(np.abs(new.energy_error) <= calibration.energy.half_width(new.energy_std, coverage)),
                np.mean(new.force_error <= calibration.forces_half_width(new.deviation, new.numbers, coverage)),
            ]
        )
    return np.array(rows).T


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize(("shared", "scale", "oxygen"), [(0.0, 3.0, 1.0), (0.8, 0.3, 4.0)])
def test_mean_coverage_is_the_one_asked_for(coverage, shared, scale, oxygen):
    """Whatever the members' σ is off by, for an element too, and however the atoms of a frame go together."""
    energy, forces = coverages(np.random.default_rng(0), coverage=coverage, shared=shared, scale=scale, oxygen=oxygen)
    error = np.std([energy, forces], axis=1) / math.sqrt(REPETITIONS)
    # With 50 frames the smallest rank that promises a coverage gives up to 1/51 more, for energies.
    assert -4 * error[0] < energy.mean() - math.ceil(51 * coverage - 1e-9) / 51 < 4 * error[0]
    assert -4 * error[1] < forces.mean() - coverage < 0.007 + 4 * error[1]


def test_coverage_of_one_calibration_set_fluctuates_as_an_order_statistic():
    """Beta(46, 5) for 50 energies at 90 %: a standard deviation of 4 %."""
    energy, forces = coverages(np.random.default_rng(1), coverage=0.9, shared=0.3, repetitions=400)
    assert energy.std() == pytest.approx(math.hypot(beta(46, 5).std(), math.sqrt(0.9 * 0.1 / 500)), rel=0.12)
    assert forces.std() < 0.7 * energy.std()


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_coverage_holds_for_small_and_large_spreads(quantity):
    """Where all there is to know of the error is its σ, coverage does not depend on the spread by much."""
    rng = np.random.default_rng(2)
    intervals = getattr(calibrated(simulate(rng, 2000)), quantity)
    new = simulate(rng, 20000)
    spread, error = (
        (new.energy_std, np.abs(new.energy_error)) if quantity == "energy" else (new.deviation, new.force_error)
    )
    held = error <= intervals.half_width(spread, 0.9)
    tenths = [held[part].mean() for part in np.array_split(np.argsort(spread), 10)]
    assert np.abs(np.array(tenths) - 0.9).max() < 0.05
    # A constant half-width of the same coverage does not do that.
    constant = error <= np.quantile(error, 0.9)
    assert constant[np.argsort(spread)][-len(spread) // 10 :].mean() < 0.75


def test_the_smallest_coverage_is_that_of_the_smallest_score():
    intervals = calibrated(simulate(np.random.default_rng(2), 50)).forces
    assert intervals.quantile(1e-12) == intervals.scores[0]


def test_a_spread_without_information_still_widens_the_interval():
    """Members whose σ is the same everywhere: half of the spread counts, since elsewhere it may not be."""
    calibration = calibrated(simulate(np.random.default_rng(3), 500, shared=0.0, own=0.0))
    for intervals in (calibration.energy, calibration.forces):
        assert intervals.prior_weight == pytest.approx(0.5)
        near, far = intervals.half_width(np.array([1.0, 100.0]) * intervals.prior_spread, 0.9)
        assert far > 50 * near


def test_coverage_of_each_element():
    """The truth is three times as far off for oxygen as for hydrogen, from a mean of five that is off itself."""
    rng = np.random.default_rng(12)
    calibration, new = calibrated(simulate(rng, 4000, oxygen=3.0)), simulate(rng, 5000, oxygen=3.0)
    factors = calibration.element_factors
    assert factors["O"] / factors["H"] == pytest.approx(math.sqrt((3**2 + 1 / 5) / (1 + 1 / 5)), rel=0.05)
    for one_for_all in (False, True):
        used = replace(calibration, element_factors={}) if one_for_all else calibration
        held = new.force_error <= used.forces_half_width(new.deviation, new.numbers, 0.9)
        oxygen, hydrogen = held[new.numbers == 8].mean(), held[new.numbers == 1].mean()
        assert (abs(oxygen - 0.9) < 0.02 and abs(hydrogen - 0.9) < 0.02) != one_for_all
    carbon = np.full(len(new.numbers), 6)
    np.testing.assert_array_equal(
        calibration.forces_half_width(new.deviation, carbon, 0.9),
        calibration.forces_half_width(new.deviation, np.full(len(new.numbers), 8), 0.9),
        err_msg="what is not known of an element is not thought better than the worst",
    )


def test_no_forces_were_calibrated():
    calibration = replace(calibrated(simulate(np.random.default_rng(13), 50)), forces=None)
    with pytest.raises(CalibrationError, match="the calibration frames had no forces"):
        calibration.forces_half_width(np.ones(1), np.ones(1, dtype=int), 0.9)


def test_half_width_grows_with_spread_and_coverage():
    calibration = calibrated(simulate(np.random.default_rng(4), 50))
    spread = np.geomspace(1e-6, 1e3, 50)
    widths = np.array([calibration.forces.half_width(spread, c) for c in (0.3, 0.6, 0.9, 0.95, 0.98)])
    assert (np.diff(widths, axis=1) >= 0).all()
    assert (np.diff(widths, axis=0) > 0).all()
    assert widths[0, 0] > 0


def test_half_width_has_the_unit_of_the_spread():
    """Everything in other units: half-widths and threshold in those."""
    errors = simulate(np.random.default_rng(5), 50)
    factor = 23.06
    scaled = errors._replace(
        energy_std=factor * errors.energy_std,
        forces_std=factor * errors.forces_std,
        deviation=factor * errors.deviation,
        energy_error=factor * errors.energy_error,
        force_errors=factor * errors.force_errors,
    )
    one, other = calibrated(errors), calibrated(scaled)
    assert other.energy.half_width(factor * 0.01, 0.9) == pytest.approx(factor * one.energy.half_width(0.01, 0.9))
    assert other.forces.half_width(factor * 0.01, 0.9) == pytest.approx(factor * one.forces.half_width(0.01, 0.9))
    assert other.threshold() == pytest.approx(factor * one.threshold())
    assert other.forces.alpha == pytest.approx(one.forces.alpha)


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 2), (0.68, 3), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_too_few_frames_for_a_coverage(coverage, needed):
    check_coverage(coverage, needed)
    with pytest.raises(CalibrationError, match=f"which needs {needed};"):
        check_coverage(coverage, needed - 1)


def test_too_few_frames_for_a_coverage_asked_later():
    calibration = calibrated(simulate(np.random.default_rng(6), 50))
    calibration.energy.half_width(0.01, 0.98)
    with pytest.raises(CalibrationError, match="50 calibration frames are too few for a coverage of 0.99") as caught:
        calibration.energy.half_width(0.01, 0.99)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90, math.nan])
def test_coverage_that_is_none(coverage):
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        check_coverage(coverage, 1000)


# --- threshold ----------------------------------------------------------------------------------------------------


def false_flags(draw, tail, n, rate, repetitions=1000):
    """Probabilities of a new frame above the threshold, for many sets of n frames."""
    calibration = calibrated(simulate(np.random.default_rng(7), 50))
    rates = []
    for _ in range(repetitions):
        threshold = replace(calibration, largest_deviations=tuple(np.sort(draw(n)).tolist())).threshold(rate)
        rates.append(tail(threshold))
    return np.array(rates)


def pareto(rng, exponent=4.0):
    return (lambda n: 0.05 * (1.0 + rng.pareto(exponent, n))), (lambda d: (d / 0.05) ** -exponent)


def lognormal(rng, sd=0.4):
    return (lambda n: 0.05 * np.exp(rng.normal(0.0, sd, n))), (lambda d: norm.sf(np.log(d / 0.05) / sd))


@pytest.mark.parametrize("distribution", [pareto, lognormal])
@pytest.mark.parametrize("rate", [0.5, 0.1, 0.02])
def test_false_flag_rate_of_order_statistics(distribution, rate):
    """Whatever the distribution: k of n + 1, the rate asked for or up to 1/51 less."""
    rates = false_flags(*distribution(np.random.default_rng(8)), 50, rate)
    error = rates.std() / math.sqrt(len(rates))
    assert -4 * error < rates.mean() - math.floor(51 * rate + 1e-9) / 51 < 4 * error


def test_false_flag_rate_beyond_the_frames():
    """A power law is what is fitted, so it is met; a log-normal tail is shorter, so there are fewer flags."""
    rates = false_flags(*pareto(np.random.default_rng(9)), 800, 1e-4, repetitions=300)
    assert np.median(rates) == pytest.approx(1e-4, rel=0.15)
    assert np.median(false_flags(*lognormal(np.random.default_rng(10)), 800, 1e-4, repetitions=300)) < 1e-4


@pytest.mark.parametrize("distribution", [pareto, lognormal])
def test_false_flag_rate_of_one_in_a_thousand_from_fifty_frames(distribution):
    rates = false_flags(*distribution(np.random.default_rng(11)), 50, 1e-3)
    assert 1e-3 / 3 < rates.mean() < 3e-3


def test_threshold_falls_with_the_rate():
    calibration = calibrated(simulate(np.random.default_rng(8), 50))
    thresholds = [calibration.threshold(rate) for rate in np.geomspace(1e-6, 0.999, 200)]
    assert (np.diff(thresholds) <= 0).all()
    assert thresholds[0] > calibration.largest_deviations[-1]
    assert thresholds[-1] == calibration.largest_deviations[0]


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, 5, math.nan])
def test_false_flag_rate_that_is_none(rate):
    with pytest.raises(CalibrationError, match="false-flag rate"):
        calibrated(simulate(np.random.default_rng(9), 20)).threshold(rate)


def test_forces_deviation_of_simulated_members_is_the_length_of_the_deviations():
    forces = np.random.default_rng(10).normal(size=(5, 7, 3))
    expected = np.sqrt(forces.var(axis=0, ddof=1).sum(axis=1))
    np.testing.assert_allclose(forces_deviation(forces), expected, rtol=1e-12)


# --- what is not a calibration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"scores": (1.0, 0.5)},
        {"scores": ()},
        {"scores": (1.0, math.nan)},
        {"scores": (-1.0, 1.0)},
        {"prior_spread": 0.0},
        {"prior_weight": 1.5},
        {"alpha": -0.1},
        {"alpha": math.inf},
        {"n_frames": 0},
    ],
    ids=str,
)
def test_intervals_that_are_none(fields):
    with pytest.raises(ValidationError):
        Intervals(**{"n_frames": 2, "prior_spread": 1.0, "prior_weight": 0.5, "alpha": 1.0, "scores": (1.0,), **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"coverage": 1.0},
        {"coverage": 0.99},
        {"members": ("0", "1", "2")},
        {"largest_deviations": (0.2, 0.1)},
        {"largest_deviations": (0.0, 0.1)},
        {"largest_deviations": (0.1,)},
        {"element_factors": {"H": -1.0}},
        {"element_factors": {"H": math.inf}},
        {"element_factors": {"Unobtainium": 1.0}},
    ],
    ids=str,
)
def test_calibrations_that_are_none(fields):
    calibration = calibrated(simulate(np.random.default_rng(11), 50))
    with pytest.raises(ValidationError):
        Calibration(**{**{name: getattr(calibration, name) for name in calibration.__dataclass_fields__}, **fields})


def test_threshold_of_the_rate_that_a_calibration_states():
    calibration = calibrated(simulate(np.random.default_rng(12), 200))
    other = replace(calibration, false_flag_rate=0.01)
    assert other.threshold() == calibration.threshold(0.01) < calibration.threshold()
    assert (calibration.exceeded_by, other.exceeded_by) == ("1 in 1,000", "1 in 100")
    assert calibrate_again(simulate(np.random.default_rng(13), 200), other).false_flag_rate == 0.01
