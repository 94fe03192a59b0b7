"""Error against time per step of dynamics on one CPU thread, for ethanol and aspirin: our models and other packages'.

Our errors are those on the card. The other models are untrained, which takes as long as trained; their errors are
published ones. PEERS is the Python of an environment with other packages:

\b
    pip install schnetpack==2.1.1 mace-torch==0.3.14 torchani==2.9.0 tblite==0.8.0
    python benchmarks/pareto.py --peers environment/bin/python --output docs
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import exit_on_error, publish
from ase import Atoms
from ase.io import write
from matplotlib.figure import Figure

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.errors import SchNetError
from schnet_ase.registry.lookup import get_card
from schnet_ase.stability.times import start

ENTRIES = ("rmd17-ethanol", "rmd17-aspirin")
HEADER = ("molecule", "model", "ms a step", "force MAE (meV/Å)", "source of the error")
PUBLISHED = {
    "SchNetPack SchNet, 6 × 128": ((16.9, 58.5), "Schütt et al. 2017, MD17"),
    "MACE, size of its rMD17 paper": ((2.1, 6.6), "Batatia et al. 2022"),
    "ANI-2x architecture, 8 networks": ((13.4, 40.6), "Batatia et al. 2022, table 2"),
}
"""Force MAE of ethanol and of aspirin, meV/Å, with 1,000 training frames (arXiv:1706.08566, of MD17 instead of rMD17;
arXiv:2206.07697)."""
STEPS, ROUNDS = 200, 7


class Model(NamedTuple):
    """A model in the picture."""

    name: str
    milliseconds: float
    force_mae: float | None
    """meV/Å."""
    source: str

    @property
    def ours(self) -> bool:
        return self.source == CARD


CARD = "card"


def our_models(entry: str) -> list[Model]:
    """Time the student, the best member and all members of an entry in turns."""
    card = get_card(entry)
    best, all_members = card.best, len(card.members)
    calculators = {
        "best member": (SchNetCalculator(card.path / best.file, threads=1), best.test),
        f"mean of {all_members}": (SchNetEnsembleCalculator(card.path, threads=1), card.metrics.test),
    }
    if card.student is not None:
        calculators["student"] = SchNetCalculator(card.path / card.student.file, threads=1), card.student.test
    runs = [start(card.structure.atoms(), calculator) for calculator, _ in calculators.values()]
    times = np.empty((ROUNDS, len(runs)))
    for row in times:
        for k, dynamics in enumerate(runs):
            began = time.process_time()  # excludes other programs, as in the other environment
            dynamics.run(STEPS)
            row[k] = 1000.0 * (time.process_time() - began) / STEPS
    errors = [
        None if test is None or test.force_mae is None else 1000.0 * test.force_mae for _, test in calculators.values()
    ]
    return [
        Model(f"schnet_ase {name}", milliseconds, error, CARD)
        for name, milliseconds, error in zip(calculators, np.median(times, axis=0).tolist(), errors, strict=True)
    ]


def other_models(python: Path, atoms: Atoms, which: int) -> list[Model]:
    """Time the models of other packages; `which` selects the published errors."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "start.xyz"
        write(file, atoms)
        program = [str(python), str(Path(__file__).with_name("_peers.py")), str(file)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SchNetError(f"{program[1]} failed: {done.stderr.strip().splitlines()[-1]}")
    models = []
    for name, milliseconds in map(json.loads, done.stdout.splitlines()):
        errors, source = PUBLISHED.get(name, ((None, None), "–"))
        models.append(Model(name, milliseconds, errors[which], source))
    return models


def draw(models: dict[str, list[Model]]) -> Figure:
    """Return a panel for each molecule; models without a published error are marked on the axis of times."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    axes = figure.subplots(1, len(models))
    for ax, (entry, some) in zip(axes, models.items(), strict=True):
        known = [model.force_mae for model in some if model.force_mae is not None]
        floor = min(known) / 2.0
        for model in sorted(some, key=lambda model: model.milliseconds):
            error = floor if model.force_mae is None else model.force_mae
            color, marker = ("tab:red" if model.ours else "tab:blue"), ("|" if model.force_mae is None else "o")
            ax.plot(model.milliseconds, error, marker, color=color, markersize=12 if marker == "|" else 6)
            name = model.name.removeprefix("schnet_ase ").removeprefix("SchNetPack ").split(",")[0]
            left = model.milliseconds > 20.0
            ax.annotate(
                name,
                (model.milliseconds, error),
                (-7 if left else 7, -16 if marker == "|" and left else 6),
                ha="right" if left else "left",
                textcoords="offset points",
                fontsize=8,
            )
        ax.set(xscale="log", yscale="log", xlabel="ms per step of dynamics, one thread", title=entry)
        ax.set_xlim(0.05, 2.0 * max(model.milliseconds for model in some))
        ax.set_ylim(0.7 * floor, 1.6 * max(known))
    axes[0].set_ylabel("MAE of force components (meV/Å); |: no error for this data")
    return figure


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--peers", type=click.Path(path_type=Path, exists=True), help="Python of the other packages.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for pareto.md, .csv and .png.")
@exit_on_error
def main(peers: Path | None, output: Path | None) -> None:
    models = {}
    for which, entry in enumerate(ENTRIES):
        models[entry] = our_models(entry)
        if peers is not None:
            models[entry] += other_models(peers, get_card(entry).structure.atoms(), which)
    rows = [
        (
            entry.removeprefix("rmd17-"),
            m.name,
            f"{m.milliseconds:.3g}",
            "–" if m.force_mae is None else f"{m.force_mae:.1f}",
            m.source,
        )
        for entry, some in models.items()
        for m in some
    ]
    title = "Error against time per step"
    publish(
        "pareto", title, HEADER, rows, draw(models), output, "Processor time of velocity Verlet through ASE, medians."
    )


if __name__ == "__main__":
    main()
