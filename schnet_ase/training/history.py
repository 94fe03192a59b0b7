"""What a training reports: a row per validation, as CSV and as a learning curve."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from schnet_ase.files import atomic_write
from schnet_ase.metrics import KCAL_PER_MOL, MEV
from schnet_ase.plots import learning_curve


class Row(NamedTuple):
    """One validation; energies in eV, forces in eV/Å."""

    step: int
    epoch: float
    learning_rate: float
    training_loss: float
    """Mean over the steps since the last validation, weights as they were at each."""
    validation_loss: float
    energy_mae: float
    energy_rmse: float
    energy_per_atom_mae: float
    energy_per_atom_rmse: float
    force_mae: float
    force_rmse: float
    seconds: float
    """Of training since it was first started, interruptions left out."""


_PLAIN = ("step", "epoch", "learning_rate", "training_loss", "validation_loss")
_ERRORS = ("energy_mae", "energy_rmse", "energy_per_atom_mae", "energy_per_atom_rmse", "force_mae", "force_rmse")


def write_metrics(rows: Sequence[Row], folder: Path) -> None:
    """Write ``metrics.csv``, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_PLAIN, *(f"{e}_meV" for e in _ERRORS), *(f"{e}_kcal_per_mol" for e in _ERRORS), "seconds"])
    for row in rows:
        errors = [getattr(row, name) for name in _ERRORS]
        writer.writerow(
            [
                *(f"{getattr(row, name):.6g}" for name in _PLAIN),
                *(f"{MEV * e:.4f}" for e in errors),
                *(f"{KCAL_PER_MOL * e:.5f}" for e in errors),
                f"{row.seconds:.1f}",
            ]
        )
    atomic_write(folder / "metrics.csv", text.getvalue())


def draw_history(rows: Sequence[Row], folder: Path) -> None:
    """Draw ``learning_curve.png``, atomically."""
    learning_curve(
        [r.step for r in rows],
        [r.training_loss for r in rows],
        [r.validation_loss for r in rows],
        [MEV * r.energy_mae for r in rows],
        [MEV * r.force_mae for r in rows],
        folder / "learning_curve.png",
    )


def describe(row: Row) -> str:
    """A validation in a line, for logs and bars."""
    parts = [f"validation loss {row.validation_loss:.3g}"]
    if not math.isnan(row.energy_mae):
        parts.append(f"E {MEV * row.energy_mae:.2f} meV")
    if not math.isnan(row.force_mae):
        parts.append(f"F {MEV * row.force_mae:.2f} meV/Å ({KCAL_PER_MOL * row.force_mae:.3f} kcal/mol/Å) MAE")
    return ", ".join(parts)
