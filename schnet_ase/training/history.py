"""History of a training, one row per validation, as CSV and as a learning curve."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from schnet_ase.output.files import atomic_write
from schnet_ase.registry.provenance import Row
from schnet_ase.uncertainty.metrics import GPA, KCAL_PER_MOL, MEV

_ERRORS = ("energy_mae", "energy_rmse", "energy_per_atom_mae", "energy_per_atom_rmse", "force_mae", "force_rmse")
_STRESSES = ("stress_mae", "stress_rmse")


def write_metrics(rows: Sequence[Row], folder: Path) -> None:
    """Write ``metrics.csv`` atomically: losses, and errors in meV and kcal/mol (for forces, per Å).

    If there are stresses, further columns have their errors in meV/Å³ and GPa.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = Row._fields[:5]
    stresses = _STRESSES if any(row.errors.stress_mae is not None for row in rows) else ()
    writer.writerow(
        [
            *plain,
            *(f"{e}_meV" for e in _ERRORS),
            *(f"{e}_kcal_per_mol" for e in _ERRORS),
            *(f"{e}_meV_per_A3" for e in stresses),
            *(f"{e}_GPa" for e in stresses),
            "seconds",
        ]
    )
    for row in rows:
        errors = [getattr(row.errors, name) for name in _ERRORS]
        stress_errors = [getattr(row.errors, name) for name in stresses]
        writer.writerow(
            [
                *(f"{value:.6g}" for value in row[:5]),
                *("" if e is None else f"{MEV * e:.4f}" for e in errors),
                *("" if e is None else f"{KCAL_PER_MOL * e:.5f}" for e in errors),
                *("" if e is None else f"{MEV * e:.5f}" for e in stress_errors),
                *("" if e is None else f"{GPA * e:.5f}" for e in stress_errors),
                f"{row.seconds:.1f}",
            ]
        )
    atomic_write(folder / "metrics.csv", text.getvalue())


def draw_history(rows: Sequence[Row], folder: Path) -> None:
    """Draw ``learning_curve.png``, atomically."""
    from schnet_ase.training.pictures import learning_curve  # loads matplotlib, hence only here

    learning_curve(
        [r.step for r in rows],
        [r.training_loss for r in rows],
        [r.validation_loss for r in rows],
        [MEV * _or_nan(r.errors.energy_mae) for r in rows],
        [MEV * _or_nan(r.errors.force_mae) for r in rows],
        [MEV * _or_nan(r.errors.stress_mae) for r in rows],
        folder / "learning_curve.png",
    )


def describe(row: Row) -> str:
    """Describe a validation in one line, for logs and progress bars."""
    parts = [f"validation loss {row.validation_loss:.3g}"]
    if row.errors.energy_mae is not None:
        parts.append(f"E {MEV * row.errors.energy_mae:.2f} meV")
    if row.errors.force_mae is not None:
        mae = row.errors.force_mae
        parts.append(f"F {MEV * mae:.2f} meV/Å ({KCAL_PER_MOL * mae:.3f} kcal/mol/Å) MAE")
    if row.errors.stress_mae is not None:
        mae = row.errors.stress_mae
        parts.append(f"stress {MEV * mae:.3f} meV/Å³ ({GPA * mae:.3f} GPa) MAE")
    return ", ".join(parts)


def _or_nan(error: float | None) -> float:
    return math.nan if error is None else error


def out_of_patience(rows: Sequence[Row], patience: int | None) -> bool:
    """Return whether the last `patience` validations brought no improvement; False if `patience` is None."""
    if patience is None or not rows:
        return False
    losses = [row.validation_loss for row in rows]
    return len(losses) - 1 - losses.index(min(losses)) >= patience
