"""From errors to a calibration: α, the prior of the spread and conformal scores against known truth and definitions."""

import math

import numpy as np
import pytest

from schnet_ase.errors import CalibrationError
from schnet_ase.uncertainty.conformal import conformal_scores
from schnet_ase.uncertainty.errors import ensemble_errors
from schnet_ase.uncertainty.fit import check_sizes, fit_element_factors, fit_prior, linear_alpha
from tests.support.ensembles import calibrated, simulate


def test_ensemble_errors_by_definition():
    rng = np.random.default_rng(0)
    n_atoms = np.array([2, 1, 3])
    energy, forces = rng.normal(size=(4, 3)), rng.normal(size=(4, 6, 3))
    labels, force_labels = rng.normal(size=3), rng.normal(size=(6, 3))
    numbers = np.array([1, 8, 1, 6, 8, 1])
    errors = ensemble_errors(n_atoms, numbers, energy, labels, forces, force_labels)
    assert errors.n_members == 4
    np.testing.assert_array_equal(errors.numbers, numbers)
    np.testing.assert_allclose(errors.energy_error, energy.mean(axis=0) - labels)
    np.testing.assert_allclose(errors.energy_std, energy.std(axis=0, ddof=1))
    np.testing.assert_allclose(errors.force_error, np.linalg.norm(forces.mean(axis=0) - force_labels, axis=1))
    np.testing.assert_allclose(errors.deviation, np.linalg.norm(errors.forces_std, axis=1))
    d = errors.deviation
    np.testing.assert_array_equal(errors.largest_deviation, [max(d[:2]), d[2], max(d[3:])])


def test_labels_that_are_not_there():
    rng = np.random.default_rng(1)
    errors = simulate(rng, 50)
    forces_only = calibrated(errors._replace(energy_error=None))
    assert forces_only.energy is None
    assert forces_only.forces == calibrated(errors).forces
    energy_only = calibrated(errors._replace(force_errors=None))
    assert energy_only.forces is None
    assert energy_only.energy == calibrated(errors).energy


# --- α ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [8, 16])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_alpha_of_a_gaussian_ensemble(n_members, scale):
    """One where truth is a draw as the members are; else α scales their deviations so that it is."""
    errors = simulate(np.random.default_rng(2), 20000, n_members=n_members, scale=scale, n_atoms=1)
    for error, spread in ((errors.energy_error, errors.energy_std), (errors.force_errors, errors.forces_std)):
        assert linear_alpha(error, spread, n_members) == pytest.approx(scale, rel=0.03)


def test_alpha_by_the_formula():
    # M = 5, err²/s² = 4 for all: α² = -1/5 + 2/4 · 4.
    assert linear_alpha(np.array([2.0, -4.0]), np.array([1.0, 2.0]), 5) == pytest.approx(math.sqrt(1.8))


def test_alpha_of_errors_smaller_than_chance():
    assert linear_alpha(np.full(3, 0.1), np.ones(3), 5) == 0.0


def test_alpha_leaves_out_what_has_no_spread():
    error, spread = np.array([2.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])
    assert linear_alpha(error, spread, 5) == linear_alpha(error[:1], spread[:1], 5)


# --- the prior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [4, 12])
@pytest.mark.parametrize("prior_dof", [2.0, 3.5])
def test_prior_is_found_again(dof, prior_dof):
    """Variances that are scaled inverse χ², estimated with `dof` degrees of freedom: Smyth's own model."""
    rng = np.random.default_rng(3)
    true = 0.3**2 * prior_dof / rng.chisquare(prior_dof, 200_000)
    prior = fit_prior(np.sqrt(true * rng.chisquare(dof, len(true)) / dof), dof)
    assert prior.spread == pytest.approx(0.3, rel=0.01)
    assert prior.weight == pytest.approx(prior_dof / (prior_dof + dof), rel=0.02)


def test_moderated_variance_is_the_expected_one():
    """Given a spread, the mean of the true variance: what the weights are for."""
    rng = np.random.default_rng(4)
    prior_dof, dof = 4.0, 4
    true = prior_dof / rng.chisquare(prior_dof, 1_000_000)
    spread = np.sqrt(true * rng.chisquare(dof, len(true)) / dof)
    prior = fit_prior(spread, dof)
    for low in (0.3, 0.6, 1.0, 1.5, 2.5):
        near = (spread > low) & (spread < 1.05 * low)
        # Of an inverse χ² with ν degrees of freedom, the mean is ν/(ν - 2) times the scale.
        expected = (1 - prior.weight) * low**2 * 1.05 + prior.weight * prior.spread**2
        assert true[near].mean() == pytest.approx(expected * 8 / 6, rel=0.05)


def test_prior_takes_any_number_of_spreads():
    assert fit_prior(np.array([0.2]), 4).weight == 0.5
    assert fit_prior(np.array([0.0, 0.2, 0.2]), 4).weight == 0.5
    assert 0 < fit_prior(np.array([1e-6, 1e3]), 4).weight < 0.05


# --- scores -------------------------------------------------------------------------------------------------------


def test_one_score_a_frame_is_split_conformal():
    """The k-th smallest of n holds a new one with probability k/(n + 1)."""
    scores = np.random.default_rng(5).random(37)
    np.testing.assert_array_equal(conformal_scores(scores, np.ones(37, dtype=int)), np.sort(scores))


def test_atoms_of_a_frame_that_are_all_alike_count_once():
    scores = np.random.default_rng(6).random(50)
    many = conformal_scores(np.repeat(scores, 8), np.full(50, 8))
    # Of 200 stored numbers, each fourth is one of the 50.
    np.testing.assert_allclose(many[3::4], np.sort(scores))


def test_frames_count_alike_whatever_their_size():
    """Half the frames hold one small score, the others a thousand large ones: a new frame is either."""
    scores = np.concatenate([np.full(20, 1.0), np.full(20 * 1000, 2.0)])
    sizes = np.concatenate([np.ones(20, dtype=int), np.full(20, 1000)])
    found = conformal_scores(scores, sizes)
    coverages = np.arange(1, len(found) + 1) / len(found) * 40 / 41
    assert (found[coverages < 0.48] == 1.0).all()
    assert (found[coverages > 0.52] == 2.0).all()


def test_coverage_of_frames_left_out():
    """The definition, by brute force: each frame's coverage by the quantile of the others."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 6, 12)
    own = np.repeat(np.arange(12), sizes)
    scores = rng.random(len(own)) * np.exp(rng.normal(0, 1, 12))[own]
    weights = 1.0 / sizes[own]

    def quantile(level, frames):
        some = np.isin(own, frames)
        order = np.argsort(scores[some])
        cumulative = np.cumsum(weights[some][order]) / len(frames)
        return scores[some][order][np.searchsorted(cumulative, level - 1e-12)]

    def left_out(level):
        held = [scores[own == b] <= quantile(level, [c for c in range(12) if c != b]) for b in range(12)]
        return np.mean([h.mean() for h in held])

    found = conformal_scores(scores, sizes)
    levels = np.linspace(0.001, 1.0, 1000)
    achieved = np.array([left_out(level) for level in levels])
    assert achieved[-1] > 0.9
    for i, coverage in enumerate(np.arange(1, len(found) + 1) / len(found) * 12 / 13):
        if coverage > achieved[-1]:  # the others of the frame with the largest score never hold it
            assert found[i] == scores.max()
            continue
        lowest = levels[np.argmax(achieved >= coverage - 1e-9)]
        near = [quantile(max(lowest - 0.001, 1e-6), range(12)), quantile(lowest, range(12))]
        assert near[0] <= found[i] <= near[1]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [2, 3])
def test_too_few_members(n_members):
    with pytest.raises(CalibrationError, match="too few for a calibration, which needs 4") as caught:
        calibrated(simulate(np.random.default_rng(8), 50, n_members=n_members))
    assert "\n" not in str(caught.value)
    check_sizes(4, 50)


@pytest.mark.parametrize(("n_frames", "coverage", "needed"), [(8, 0.9, 9), (1, 0.5, 2), (50, 0.99, 99)])
def test_too_few_frames(n_frames, coverage, needed):
    with pytest.raises(CalibrationError, match=f"{n_frames} calibration frames are too few.*needs {needed}"):
        calibrated(simulate(np.random.default_rng(9), n_frames), coverage)


def test_members_that_agree_exactly():
    errors = simulate(np.random.default_rng(10), 20)
    zero = np.zeros_like
    alike = errors._replace(
        energy_std=zero(errors.energy_std), forces_std=zero(errors.forces_std), deviation=zero(errors.deviation)
    )
    with pytest.raises(CalibrationError, match="agree exactly"):
        calibrated(alike)
    with pytest.raises(CalibrationError, match="agree exactly"):
        calibrated(errors._replace(energy_std=zero(errors.energy_std)))


def test_element_factors_by_definition():
    """Equal spreads, so that u is one number: factors are mean errors of the elements over the mean of all."""
    error, numbers = np.array([1.0, 3.0, 2.0, 6.0]), np.array([1, 1, 8, 8])
    factors = fit_element_factors(np.full(4, 0.5), error, numbers, dof=12)
    assert factors == pytest.approx({"H": 2.0 / 3.0, "O": 4.0 / 3.0})
    assert fit_element_factors(np.full(4, 0.5), np.zeros(4), numbers, dof=12) == {}
