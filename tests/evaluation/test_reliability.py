"""Measures of an uncertainty: their values where they are known."""

import math

import numpy as np
import pytest
from scipy.special import erfinv
from sklearn.metrics import roc_auc_score
from uncertainty_toolbox.metrics_calibration import miscalibration_area, sharpness

from schnet_ase.evaluation.agreement import COVERAGES, Conformal, Gaussian, agreement, ence
from schnet_ase.evaluation.ranking import auroc, oracle_rho, spearman
from schnet_ase.evaluation.reliability import reliability
from tests.support.ensembles import calibrated, simulate


def test_spearman():
    x = np.random.default_rng(0).random(100)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
    assert math.isnan(spearman(x, np.ones(100)))


def test_auroc():
    rng = np.random.default_rng(1)
    error = rng.random(1000)
    assert auroc(error**2, error) == 1.0
    assert auroc(-error, error) == 0.0
    assert auroc(np.ones(1000), error) == pytest.approx(0.5)
    assert auroc(rng.random(1000), error) == pytest.approx(0.5, abs=0.15)
    assert math.isnan(auroc(error, np.ones(1000)))


def test_auroc_counts_pairs():
    """One worst error of ten, whose spread is above that of seven others and equal to one's."""
    error = np.arange(10.0)
    spread = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 7.0])
    assert auroc(spread, error) == pytest.approx((7 + 0.5) / 9)


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    error = rng.exponential(size=700)
    spread = np.round(error * rng.lognormal(sigma=0.7, size=700), 1)  # with ties
    assert auroc(spread, error) == pytest.approx(roc_auc_score(error > np.quantile(error, 0.95), spread))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_area_and_sharpness_are_those_of_uncertainty_toolbox(alpha):
    rng = np.random.default_rng(4)
    sigma = rng.lognormal(sigma=0.5, size=2000)
    error = sigma * rng.standard_t(4, size=2000)
    ours = agreement(Gaussian(alpha, 1), sigma, np.abs(error))
    theirs = miscalibration_area(error, alpha * sigma, np.zeros(2000), num_bins=len(ours.curve))
    assert ours.miscalibration_area == pytest.approx(theirs, abs=1e-4)
    assert ours.sharpness == pytest.approx(sharpness(alpha * sigma))


@pytest.mark.parametrize("n_members", [4, 5, 20])
@pytest.mark.parametrize("dim", [1, 3])
def test_a_perfect_ensemble_reaches_its_oracle(n_members, dim):
    errors = simulate(np.random.default_rng(2), 20000, n_members=n_members, n_atoms=2, own=0.0, shared=1.5)
    measured = reliability(errors, None)
    quantity = measured.energy if dim == 1 else measured.forces
    ratio = quantity.ranking.rho / quantity.ranking.rho_oracle
    # The spread scatters more than σ does, so the oracle is a little better than it could be.
    assert 0.85 < ratio < 1.01
    assert 0.95 < quantity.ranking.rho / oracle_rho_of_truth(n_members, dim) < 1.05


def oracle_rho_of_truth(n_members, dim):
    sigma = np.exp(np.random.default_rng(3).normal(0.0, 1.5, 100_000))
    return oracle_rho(sigma, n_members, dim, seed=4)


def test_oracle_does_not_know_what_sigma_does_not_say():
    assert oracle_rho(np.ones(1000), 5, 1) == pytest.approx(0.0, abs=0.02)
    assert oracle_rho(np.geomspace(1e-9, 1e9, 1000), 5, 1) > 0.99


def test_oracle_is_repeatable_and_free_of_units():
    sigma = np.random.default_rng(5).random(500)
    assert oracle_rho(sigma, 5, 3) == oracle_rho(sigma, 5, 3)
    assert oracle_rho(1000 * sigma, 5, 3) == pytest.approx(oracle_rho(sigma, 5, 3), abs=1e-6)


@pytest.mark.parametrize("dim", [1, 3])
def test_gaussian_errors_agree_with_their_sigma(dim):
    rng = np.random.default_rng(6)
    sigma = np.exp(rng.normal(0.0, 1.0, 200_000))
    error = np.linalg.norm(sigma[:, None] / math.sqrt(dim) * rng.standard_normal((len(sigma), dim)), axis=1)
    found = agreement(Gaussian(1.0, dim), sigma, error)
    np.testing.assert_allclose(found.coverage, COVERAGES, atol=0.005)
    assert found.miscalibration_area < 0.003
    assert found.ence < 0.02
    assert found.sharpness == pytest.approx(np.sqrt(np.mean(sigma**2)))
    if dim == 1:
        assert found.half_width == pytest.approx(1.6449 * sigma.mean(), rel=1e-4)


def test_gaussian_errors_twice_as_large():
    """Observed coverage is erf(z/2√2) where erf(z/√2) is expected; σ is half of the RMS error in every bin."""
    rng = np.random.default_rng(7)
    sigma = np.exp(rng.normal(0.0, 1.0, 200_000))
    error = np.abs(2.0 * sigma * rng.standard_normal(len(sigma)))
    found = agreement(Gaussian(1.0, 1), sigma, error)
    level = np.linspace(0.0, 1.0, 101)[1:-1]
    observed = [math.erf(z / 2) for z in erfinv(level)]
    np.testing.assert_allclose(found.curve[1:-1], observed, atol=0.005)
    assert found.miscalibration_area == pytest.approx(np.trapezoid(level - observed, level), abs=0.005)
    assert found.ence == pytest.approx(1.0, abs=0.03)
    assert agreement(Gaussian(2.0, 1), sigma, error).ence < 0.03


def test_five_members_are_few():
    """±1 spread of five members about their mean, taken as σ of a Gaussian, holds 58.7 % of the truth, not 68.3 %."""
    errors = simulate(np.random.default_rng(8), 100_000, n_atoms=1)
    assert np.mean(np.abs(errors.energy_error) <= errors.energy_std) == pytest.approx(0.587, abs=0.005)


def test_ence_of_bins():
    sigma = np.repeat(np.arange(1.0, 11.0), 7)
    assert ence(sigma, sigma) == pytest.approx(0.0)
    assert ence(sigma, 1.5 * sigma) == pytest.approx(0.5)
    assert ence(sigma, 0.0 * sigma) == pytest.approx(1.0)
    assert math.isinf(ence(0.0 * sigma, sigma))


def test_calibrated_ensemble():
    """Truth three times as far off as members are: coverage is right with the calibration and wrong without."""
    rng = np.random.default_rng(9)
    calibration = calibrated(simulate(rng, 1000, scale=3.0))
    measured = reliability(simulate(rng, 4000, scale=3.0), calibration)
    for quantity in (measured.energy, measured.forces):
        np.testing.assert_allclose(quantity.conformal.coverage, COVERAGES, atol=0.04)
        assert quantity.raw.coverage[1] < 0.6
        assert quantity.conformal.miscalibration_area < 0.03 < 0.15 < quantity.raw.miscalibration_area
        assert quantity.conformal.ence < 0.2 < quantity.raw.ence
    assert measured.energy.alpha == calibration.energy.alpha
    assert isinstance(measured.energy.predictor, Conformal)


def test_the_factors_of_elements_order_errors():
    """Where oxygen's errors are three times what its spread says: ρ nears its oracle, which knows the factors."""
    rng = np.random.default_rng(15)
    errors = simulate(rng, 4000, oxygen=3.0)
    forces = reliability(errors, calibrated(simulate(rng, 200, oxygen=3.0))).forces
    raw, known = forces.raw_ranking, forces.ranking
    assert known.auroc > raw.auroc + 0.02
    assert raw.rho / raw.rho_oracle < 0.85 < known.rho / known.rho_oracle < 1.05  # see the perfect ensemble above
    assert forces.rankings == (raw, raw, known)
    same = reliability(errors, None).forces
    assert same.rankings == (same.ranking, same.ranking, None)
    assert same.ranking == raw


def test_range_of_the_spread():
    errors = simulate(np.random.default_rng(10), 30)
    ranges = reliability(errors, None).ranges
    assert [r.name for r in ranges] == ["energy", "force x", "force y", "force z"]
    assert ranges[0][1:] == (errors.energy_std.min(), errors.energy_std.max(), errors.energy_std.mean())
    y = errors.forces_std[:, 1]
    assert ranges[2][1:] == (y.min(), y.max(), y.mean())


@pytest.mark.parametrize(
    ("n_members", "missing", "dashes"),
    [(2, None, 4), (2, "energy_error", 5), (5, None, 0), (5, "energy_error", 3), (5, "force_errors", 3)],
)
def test_table(n_members, missing, dashes):
    """As many columns in every line, whatever is missing."""
    errors = simulate(np.random.default_rng(11), 30, n_members=n_members)
    if missing is not None:
        errors = errors._replace(**{missing: None})
    lines = reliability(errors, calibrated(errors) if n_members == 5 else None).lines()
    labels = ["Spearman", "ρ / ρ_oracle", "AUROC", *(f"coverage at {c}%" for c in (68, 90, 95))]
    for label in (*labels, "miscalibration area", "ENCE", "sharpness"):
        (line,) = [line for line in lines if label in line]
        assert len(line) == 32 + 6 * 11
        assert line[32:].count("–") == dashes


def test_table_in_kcal_per_mol():
    errors = simulate(np.random.default_rng(12), 30)
    line = next(line for line in reliability(errors, None).lines() if "energy (meV)" in line)
    values = [float(v) for v in line.split()[2:]]
    np.testing.assert_allclose(values[:3], np.round(1000 * np.array(reliability(errors, None).ranges[0][1:]), 3))
    np.testing.assert_allclose(values[3:], np.array(values[:3]) * 0.0230605, atol=2e-3)


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_a_few_frames(n_frames):
    assert len(reliability(simulate(np.random.default_rng(13), n_frames), None).lines()) > 10


def test_members_that_agree_exactly():
    """No spread says nothing: no error is within it, and none of the measures fails."""
    errors = simulate(np.random.default_rng(14), 10)
    zero = np.zeros_like
    measured = reliability(
        errors._replace(
            energy_std=zero(errors.energy_std), forces_std=zero(errors.forces_std), deviation=zero(errors.deviation)
        ),
        None,
    )
    assert measured.energy.raw.coverage == (0.0, 0.0, 0.0)
    assert measured.energy.alpha is None
    assert math.isinf(measured.energy.raw.ence)
    assert math.isnan(measured.energy.ranking.rho)
    assert measured.energy.ranking.auroc == 0.5
    assert "nan" in "".join(measured.lines())
