"""The trials of a search; write them as a table, and the best settings as a configuration."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from schnet_ase.output.files import atomic_write
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config import RunConfig, absolute
from schnet_ase.training.config.tune import Value
from schnet_ase.training.history import describe
from schnet_ase.uncertainty.metrics import MEV

State = Literal["complete", "pruned", "failed"]


class Trial(NamedTuple):
    """A finished trial."""

    number: int
    """Number, counted from 0, as in Optuna."""
    values: dict[str, Value]
    """Values of the searched keys."""
    state: State
    """``"pruned"``: ended early, worse than the others at the same step. ``"failed"``: the loss became NaN or infinite,
    or the values are not valid together."""
    last: Row | None
    """Its last validation; None: it failed before the first."""
    best: Row | None
    """Its validation with the smallest loss."""
    folder: str
    """Folder of its training. Trials with the same values share one training, which the first of them began."""
    reason: str = ""
    """Reason of the failure."""

    def describe(self) -> str:
        """Describe the trial in a line."""
        outcome = "no validation" if self.best is None else describe(self.best)
        if self.state == "pruned" and self.last is not None:
            outcome = f"pruned at step {self.last.step}, {outcome}"
        if self.state == "failed":
            outcome = f"failed, {self.reason}"
        settings = ", ".join(f"{key} = {_short(value)}" for key, value in self.values.items())
        return f"trial {self.number}: {settings}: {outcome}"


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the smallest validation loss; None if none is complete."""
    losses = [(t.best.validation_loss, t.number, t) for t in trials if t.state == "complete" and t.best is not None]
    return min(losses)[2] if losses else None


def write_trials(trials: Sequence[Trial], file: Path) -> None:
    """Write all trials as a table, atomically: losses as the trainings have them, errors in meV and meV/Å."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(trials[0].values)
    columns = ("validation_loss", "energy_mae_meV", "force_mae_meV", "best_step", "last_step", "seconds")
    writer.writerow(["trial", "state", *columns, *keys, "folder", "reason"])
    for t in trials:
        numbers = [""] * len(columns)
        if t.best is not None and t.last is not None:
            errors = [None if e is None else MEV * e for e in (t.best.errors.energy_mae, t.best.errors.force_mae)]
            numbers = [
                f"{t.best.validation_loss:.6g}",
                *("" if e is None else f"{e:.4f}" for e in errors),
                str(t.best.step),
                str(t.last.step),
                f"{t.last.seconds:.1f}",
            ]
        writer.writerow([t.number, t.state, *numbers, *(t.values[key] for key in keys), t.folder, t.reason])
    atomic_write(file, text.getvalue())


def write_best(config: RunConfig, best: Trial, file: Path) -> None:
    """Write `config` with the values of a trial as TOML, atomically; paths in it are absolute."""
    import tomli_w  # the extra 'tune' installs it with Optuna

    config = config.with_values(best.values)
    training = asdict(config.training)
    if training["clip"] is None:  # TOML has no null, and a key left out means the default
        training["clip"] = math.inf
    tables = {
        "name": config.name,
        "folds": config.folds,
        "seed": config.seed,
        "data": _given(asdict(absolute(config.data))),
        "model": _given(config.model.to_dict()),
        "training": _given(training),
    }
    atomic_write(file, f"# {best.describe()}\n\n{tomli_w.dumps(tables)}")


def _given(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
