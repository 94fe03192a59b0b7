"""One side of `watched_speed.py`: a process that runs dynamics with the `schnet_ase` that its PYTHONPATH leads to.

It may be an old one, so only names that have always been there are used.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _worker import TIMESTEP_FS, serve
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

import schnet_ase

INTERVAL = 10
"""Number of steps between looks of the ensemble where another network moves the atoms."""


def main(entry: str, way: str, folder: Path) -> None:
    """Serve the dynamics of an entry: ``"member"``, unwatched, ``"ensemble"`` or ``"student"``, watched."""
    card = next(card for card in schnet_ase.list_models() if card.name == entry)
    atoms = card.structure.atoms()
    if way == "ensemble":
        atoms.calc = schnet_ase.SchNetEnsembleCalculator(entry, threads=1)
    else:
        atoms.calc = schnet_ase.SchNetCalculator(card.path / card.best.file if way == "member" else entry, threads=1)
    thermalize_momenta(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    if way != "member":
        looks = {} if way == "ensemble" else {"ensemble": entry, "interval": INTERVAL}
        files = {"file": folder / "flagged.extxyz", "log": folder / "log.csv"}
        dynamics.attach(schnet_ase.UncertaintyMonitor(atoms, **looks, **files))
    dynamics.run(2 * INTERVAL)  # compiles the engine and builds a neighbour list

    def where() -> dict[str, Any]:
        return {"package": str(Path(schnet_ase.__file__).parents[1])}

    def run(steps: int) -> dict[str, Any]:
        began = time.process_time()
        dynamics.run(steps)
        return {"seconds": time.process_time() - began}

    serve({"where": where, "run": run})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(*sys.argv[1:], Path(name))
