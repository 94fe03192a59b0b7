"""Reliability of an ensemble's spread: ranking, coverage and calibration against labelled frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schnet_ase.evaluation.agreement import COVERAGES, Agreement, Conformal, Gaussian, Predictor, agreement
from schnet_ase.evaluation.ranking import Ranking, ranking
from schnet_ase.geometry.arrays import Floats
from schnet_ase.uncertainty.calibration import MIN_MEMBERS, Calibration, Intervals, by_number
from schnet_ase.uncertainty.errors import EnsembleErrors
from schnet_ase.uncertainty.fit import linear_alpha
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, MEV


class Range(NamedTuple):
    """Range of a spread over all frames, in the unit of the spread."""

    name: str
    minimum: float
    maximum: float
    mean: float


class Quantity(NamedTuple):
    """Reliability of the energy (one value per frame) or of the forces (one length per atom)."""

    spread: Floats
    """Spread over members."""
    by_element: Floats
    """Spread times the calibration's factors for the atoms' elements, if any; `predictor` takes it as its input."""
    error: Floats
    """Absolute error."""
    raw_ranking: Ranking
    """Ranking by `spread`."""
    ranking: Ranking
    """Ranking by `by_element`."""
    raw: Agreement
    """Agreement if the spread is taken as the standard deviation of a Gaussian."""
    alpha: float | None
    """Imbalzano's factor α from the calibration; without a calibration, fitted to these errors."""
    scaled: Agreement | None
    """Agreement if α times the spread is that standard deviation; None for fewer than four members."""
    conformal: Agreement | None
    """Agreement of the calibration's half-widths; None without a calibration."""
    predictor: Predictor
    """Predictor of `conformal` if available, else of `scaled`, else of `raw`."""

    @property
    def rankings(self) -> tuple[Ranking | None, Ranking | None, Ranking | None]:
        """Rankings for `raw`, `scaled` and `conformal`; None where that agreement is None."""
        raw = self.raw_ranking
        return raw, raw if self.scaled is not None else None, self.ranking if self.conformal is not None else None


class Reliability(NamedTuple):
    """Reliability of an ensemble's uncertainty on labelled frames; a quantity without labels is None."""

    n_members: int
    n_frames: int
    energy: Quantity | None
    """Reliability of the energy, eV."""
    forces: Quantity | None
    """Reliability of the forces, eV/Å."""
    ranges: tuple[Range, ...]
    """Ranges of the standard deviation over members for the energy (eV) and force components x, y, z (eV/Å)."""

    def lines(self) -> list[str]:
        """Return the lines of a table for a terminal or a monospaced font, in meV, meV/Å and kcal/mol."""
        columns = [*_columns(self.energy), *_columns(self.forces)]
        rankings, agreements = [c.ranking for c in columns], [c.agreement for c in columns]
        return [
            f"uncertainty of {self.n_members} members, {self.n_frames} frames",
            f"{'':36s}{'energy':29s}    length of force error",
            " " * 32 + "".join(f"{column.head:>11s}" for column in columns),
            _row("Spearman ρ, spread and error", [r and r.rho for r in rankings]),
            _row("ρ / ρ_oracle", [r and r.rho / r.rho_oracle for r in rankings]),
            _row("AUROC, worst 5 % of errors", [r and r.auroc for r in rankings]),
            *(_row(f"coverage at {c:.0%}", [a and a.coverage[k] for a in agreements]) for k, c in enumerate(COVERAGES)),
            _row("miscalibration area", [a and a.miscalibration_area for a in agreements]),
            _row("ENCE", [a and a.ence for a in agreements]),
            _row("sharpness, RMS σ (meV, meV/Å)", [a and MEV * a.sharpness for a in agreements]),
            _row("half-width at 90% (meV, meV/Å)", [a and MEV * a.half_width for a in agreements]),
            f"{'spread over members':32s}{'minimum':>11s}{'maximum':>11s}{'mean':>11s}{'(kcal/mol, kcal/mol/Å)':>33s}",
            *(_range_row(spread) for spread in self.ranges),
        ]


def reliability(errors: EnsembleErrors, calibration: Calibration | None) -> Reliability:
    """Measure the uncertainty of an ensemble on labelled frames.

    Parameters
    ----------
    errors
        Spread and errors of the ensemble on these frames.
    calibration
        Calibration of the ensemble, made on other frames; None if it has none.
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
    """Compute a quantity from standard deviations and signed errors, (K,) or (K, components), and element factors."""
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


class _Column(NamedTuple):
    """Column of the table: one way to predict the error from the spread; None where it is not available."""

    head: str
    ranking: Ranking | None
    agreement: Agreement | None


def _columns(quantity: Quantity | None) -> tuple[_Column, _Column, _Column]:
    """Return the columns for the raw spread, the spread times α, and the calibration's half-widths."""
    if quantity is None:
        return _Column("raw", None, None), _Column("α × raw", None, None), _Column("conformal", None, None)
    raw, scaled, conformal = quantity.rankings
    alpha = "α × raw" if quantity.alpha is None else f"{quantity.alpha:.2f} × raw"
    return (
        _Column("raw", raw, quantity.raw),
        _Column(alpha, scaled, quantity.scaled),
        _Column("conformal", conformal, quantity.conformal),
    )


def _row(label: str, values: Sequence[float | None]) -> str:
    """Return a line of the table."""
    return f"  {label:30s}" + "".join(f"{'–' if v is None else f'{v:.3f}':>11s}" for v in values)


def _range_row(spread: Range) -> str:
    """Return the line of one range, in meV and in kcal/mol."""
    unit = "meV" if spread.name == "energy" else "meV/Å"
    values = (spread.minimum, spread.maximum, spread.mean)
    return _row(f"{spread.name} ({unit})", [*(MEV * v for v in values), *(KCAL_PER_MOL * v for v in values)])
