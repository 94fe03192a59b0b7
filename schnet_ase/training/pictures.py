"""Figure of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from schnet_ase.output.figures import save_figure


def learning_curve(
    steps: Sequence[int],
    training_loss: Sequence[float],
    validation_loss: Sequence[float],
    energy_mae: Sequence[float],
    force_mae: Sequence[float],
    stress_mae: Sequence[float],
    path: Path,
) -> None:
    """Plot losses, and validation errors in meV, meV/Å and meV/Å³, against the step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(steps, training_loss, label="training", color="0.6")
    left.semilogy(steps, validation_loss, label="validation", color="tab:blue")
    left.set(xlabel="step", ylabel="loss (of errors in eV and eV/Å)")
    left.legend(frameon=False)
    for values, label, color in (
        (energy_mae, "energy MAE (meV)", "tab:orange"),
        (force_mae, "force MAE (meV/Å)", "tab:green"),
        (stress_mae, "stress MAE (meV/Å³)", "tab:purple"),
    ):
        if np.isfinite(values).any():
            right.semilogy(steps, values, label=label, color=color)
    right.set(xlabel="step", ylabel="validation error")
    right.legend(frameon=False)
    save_figure(figure, path)
