"""How far the spread of an ensemble can be trusted: ranking, coverage and calibration against labelled frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import chdtri
from scipy.stats import mannwhitneyu, spearmanr

from schnet_ase.geometry.arrays import Floats
from schnet_ase.uncertainty.calibration import MIN_MEMBERS, Calibration, Intervals, by_number
from schnet_ase.uncertainty.fit import EnsembleErrors, linear_alpha
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, MEV

COVERAGES = (0.68, 0.90, 0.95)
WORST = 0.05
BINS = 10
LEVELS = np.linspace(0.0, 1.0, 101)
ORACLE_DRAWS = 100_000


class Predictor(Protocol):
    """What a spread is taken to say about the error."""

    def sigma(self, spread: Floats) -> Floats:
        """Root-mean-square error expected."""

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        """What holds the error with this coverage; infinite where that cannot be said."""


class Gaussian(NamedTuple):
    """Errors as vectors of `dim` components, each normal with the standard deviation α × spread / √dim."""

    alpha: float
    dim: int

    def sigma(self, spread: Floats) -> Floats:
        return self.alpha * spread

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        chi_square = float(chdtri(self.dim, 1.0 - coverage))
        return self.alpha * spread * math.sqrt(chi_square / self.dim)


class Conformal(NamedTuple):
    """The half-widths of a calibration."""

    intervals: Intervals

    def sigma(self, spread: Floats) -> Floats:
        return self.intervals.scale(spread) * _rms(np.array(self.intervals.scores))

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        return self.intervals.scale(spread) * self.intervals.quantile(coverage)


class Ranking(NamedTuple):
    """Whether large spreads go with large errors; unchanged by any calibration that grows with the spread."""

    rho: float
    """Spearman's, of spread and absolute error."""
    rho_oracle: float
    """What an ensemble as large reaches whose members and truth are draws of one Gaussian; see `oracle_rho`."""
    auroc: float
    """Of the spread, for telling the worst 5 % of errors."""


class Agreement(NamedTuple):
    """Whether errors are as large as predicted."""

    coverage: tuple[float, ...]
    """Share of errors within the half-widths, for each of `COVERAGES`."""
    miscalibration_area: float
    """Between the curve of observed against expected coverage and the diagonal; 0 to 0.5."""
    ence: float
    """Expected normalized calibration error."""
    sharpness: float
    """Root mean square of σ, in the unit of the spread."""
    half_width: float
    """Mean at 90 %, in the unit of the spread."""
    curve: Floats
    """(101,) observed coverage at the expected ones 0, 0.01, ..., 1."""


class Range(NamedTuple):
    """Of a spread over all frames, in its unit."""

    name: str
    minimum: float
    maximum: float
    mean: float


class Quantity(NamedTuple):
    """Energy (one value a frame) or force (one length an atom)."""

    spread: Floats
    """Over members."""
    by_element: Floats
    """The spread times the factors of the atoms' elements, where a calibration has them: `predictor` starts from it."""
    error: Floats
    """Absolute."""
    raw_ranking: Ranking
    """Of `spread`."""
    ranking: Ranking
    """Of `by_element`."""
    raw: Agreement
    """The spread as a Gaussian's standard deviation."""
    alpha: float | None
    """Imbalzano's factor: the calibration's, or fitted to these very errors where there is none."""
    scaled: Agreement | None
    """The spread times α as that; None for fewer than four members."""
    conformal: Agreement | None
    """The calibration's half-widths; None without calibration."""
    predictor: Predictor
    """Of the last of these three that there is."""

    @property
    def rankings(self) -> tuple[Ranking | None, Ranking | None, Ranking | None]:
        """Of what each of the three starts from."""
        raw = self.raw_ranking
        return raw, raw if self.scaled is not None else None, self.ranking if self.conformal is not None else None


class Reliability(NamedTuple):
    """An ensemble's uncertainty against labelled frames; None where there is no such label."""

    n_members: int
    n_frames: int
    energy: Quantity | None
    """eV."""
    forces: Quantity | None
    """eV/Å."""
    ranges: tuple[Range, ...]
    """Of the standard deviation over members: energy (eV), force components x, y, z (eV/Å)."""

    def lines(self) -> list[str]:
        """The table, for a terminal or a monospaced font; meV, meV/Å and kcal/mol."""
        both = (self.energy, self.forces)
        columns = [a for q in both for a in ((None, None, None) if q is None else (q.raw, q.scaled, q.conformal))]
        rankings = [r for q in both for r in ((None, None, None) if q is None else q.rankings)]
        heads = [h for q in both for h in ("raw", _scaled(q), "conformal")]
        return [
            f"uncertainty of {self.n_members} members, {self.n_frames} frames",
            f"{'':36s}{'energy':29s}    length of force error",
            " " * 32 + "".join(f"{head:>11s}" for head in heads),
            _row("Spearman ρ, spread and error", [r and r.rho for r in rankings]),
            _row("ρ / ρ_oracle", [r and r.rho / r.rho_oracle for r in rankings]),
            _row("AUROC, worst 5 % of errors", [r and r.auroc for r in rankings]),
            *(_row(f"coverage at {c:.0%}", [a and a.coverage[k] for a in columns]) for k, c in enumerate(COVERAGES)),
            _row("miscalibration area", [a and a.miscalibration_area for a in columns]),
            _row("ENCE", [a and a.ence for a in columns]),
            _row("sharpness, RMS σ (meV, meV/Å)", [a and MEV * a.sharpness for a in columns]),
            _row("half-width at 90% (meV, meV/Å)", [a and MEV * a.half_width for a in columns]),
            f"{'spread over members':32s}{'minimum':>11s}{'maximum':>11s}{'mean':>11s}{'(kcal/mol, kcal/mol/Å)':>33s}",
            *(
                _row(
                    f"{r.name} ({'meV' if r.name == 'energy' else 'meV/Å'})",
                    [*(MEV * v for v in r[1:]), *(KCAL_PER_MOL * v for v in r[1:])],
                )
                for r in self.ranges
            ),
        ]


def reliability(errors: EnsembleErrors, calibration: Calibration | None) -> Reliability:
    """Measure the uncertainty of an ensemble on labelled frames.

    Parameters
    ----------
    errors
        Of the ensemble on these frames.
    calibration
        The one of the ensemble, made on other frames; None where it has none.
    """
    m = errors.n_members
    energy = forces = None
    if (known := errors.labelled_energies).any():
        assert errors.energy_error is not None
        intervals = calibration.energy if calibration else None
        energy = _quantity(errors.energy_std[known], errors.energy_error[known], m, intervals)
    if (known := errors.labelled_forces).any():
        assert errors.force_errors is not None
        intervals = calibration.forces if calibration else None
        factors = by_number(calibration.element_factors)[errors.numbers[known]] if calibration else 1.0
        forces = _quantity(errors.forces_std[known], errors.force_errors[known], m, intervals, factors)
    columns = [("energy", errors.energy_std), *zip(("force x", "force y", "force z"), errors.forces_std.T, strict=True)]
    ranges = tuple(Range(name, float(s.min()), float(s.max()), float(s.mean())) for name, s in columns)
    return Reliability(m, len(errors.n_atoms), energy, forces, ranges)


def _quantity(
    stds: Floats, errors: Floats, n_members: int, intervals: Intervals | None, factors: Floats | float = 1.0
) -> Quantity:
    """From standard deviations and signed errors, (K,) or with a column for each component, and factors of elements."""
    dim = 1 if stds.ndim == 1 else stds.shape[1]
    spread = np.linalg.norm(stds.reshape(-1, dim), axis=1)
    error = np.linalg.norm(errors.reshape(-1, dim), axis=1)
    alpha = None
    if intervals is not None:
        alpha = intervals.alpha
    elif n_members >= MIN_MEMBERS and spread.any():
        alpha = linear_alpha(errors, stds, n_members)
    by_element = spread * factors
    gaussian = Gaussian(1.0, dim)
    linear = None if alpha is None else Gaussian(alpha, dim)
    conformal = None if intervals is None else Conformal(intervals)
    return Quantity(
        spread,
        by_element,
        error,
        ranking(spread, error, n_members, dim),
        ranking(by_element, error, n_members, dim),
        agreement(gaussian, spread, error),
        alpha,
        linear and agreement(linear, spread, error),
        conformal and agreement(conformal, by_element, error),
        conformal or linear or gaussian,
    )


def ranking(spread: Floats, error: Floats, n_members: int, dim: int) -> Ranking:
    """From (K,) spreads of some members, in `dim` components, and absolute errors."""
    return Ranking(spearman(spread, error), oracle_rho(spread, n_members, dim), auroc(spread, error))


def agreement(predictor: Predictor, spread: Floats, error: Floats) -> Agreement:
    r"""Coverage, miscalibration area, ENCE and sharpness.

    Parameters
    ----------
    predictor
        What the spread is taken to say.
    spread, error
        (K,) spreads and absolute errors.

    Notes
    -----
    Miscalibration area and sharpness as in Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020). ENCE (Levi et
    al., Sensors 22, 5540 (2022)): the mean over ten bins of equally many, by σ, of

    .. math:: \frac{|\mathrm{RMS}(\sigma) - \mathrm{RMS}(\mathrm{error})|}{\mathrm{RMS}(\sigma)}.
    """
    curve = np.array([np.mean(error <= predictor.half_width(spread, level)) for level in LEVELS[1:-1]])
    curve = np.concatenate([[0.0], curve, [1.0]])
    sigma = predictor.sigma(spread)
    return Agreement(
        tuple(float(np.mean(error <= predictor.half_width(spread, c))) for c in COVERAGES),
        float(np.trapezoid(np.abs(curve - LEVELS), LEVELS)),
        ence(sigma, error),
        _rms(sigma),
        float(np.mean(predictor.half_width(spread, 0.9))),
        curve,
    )


def ence(sigma: Floats, error: Floats) -> float:
    """Expected normalized calibration error of (K,) standard deviations; see `agreement`."""
    parts = [p for p in np.array_split(np.argsort(sigma, kind="stable"), BINS) if len(p)]
    predicted = np.array([_rms(sigma[p]) for p in parts])
    if not predicted.all():
        return float("inf")
    return float(np.mean(np.abs(predicted - [_rms(error[p]) for p in parts]) / predicted))


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def auroc(spread: Floats, error: Floats) -> float:
    """Probability that the spread of one of the worst 5 % of errors is larger than that of another one.

    The area under the receiver operating characteristic, as Mann and Whitney's U (Hanley and McNeil, Radiology 143,
    29 (1982)); NaN where no error is larger than the others.
    """
    worst = error > np.quantile(error, 1.0 - WORST)
    if not worst.any():
        return float("nan")
    u = mannwhitneyu(spread[worst], spread[~worst]).statistic
    return float(u / (worst.sum() * (~worst).sum()))


def oracle_rho(sigma: Floats, n_members: int, dim: int, seed: int = 0) -> float:
    """Spearman's ρ that a perfect Gaussian ensemble would reach, by simulation.

    Parameters
    ----------
    sigma
        (K,) true standard deviations: the spreads found.
    n_members
        Of the ensemble.
    dim
        Components of the quantity, 1 or 3; members and truth are normal in each, about one mean.
    seed
        Of the simulation, which repeats the K values until there are a hundred thousand or more.

    Notes
    -----
    The spreads found scatter more than the true σ, by the noise of a few members, which makes the oracle a little
    better than it could be and ρ/ρ_oracle rather too low.
    """
    rng = np.random.default_rng(seed)
    repeated = np.tile(sigma, -(-ORACLE_DRAWS // len(sigma)))
    draws = repeated[:, None] * rng.standard_normal((n_members + 1, len(repeated), dim))
    members, truth = draws[:-1], draws[-1]
    spread = np.linalg.norm(members.std(axis=0, ddof=1), axis=1)
    return spearman(spread, np.linalg.norm(members.mean(axis=0) - truth, axis=1))


def _row(label: str, values: Sequence[float | None]) -> str:
    """A line of the table."""
    return f"  {label:30s}" + "".join(f"{'–' if v is None else f'{v:.3f}':>11s}" for v in values)


def _scaled(quantity: Quantity | None) -> str:
    return "α × raw" if quantity is None or quantity.alpha is None else f"{quantity.alpha:.2f} × raw"


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
