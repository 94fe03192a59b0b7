"""How much faster than GFN2-xTB a model is in dynamics: velocity Verlet of ASE, on one thread, in turns."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from schnet_ase import SchNetCalculator
from schnet_ase.output.progress import Progress
from schnet_ase.simulation.structures import from_smiles

MOLECULES = {
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "loratadine": "CCOC(=O)N1CCC(=C2c3ccc(Cl)cc3CCc3cccnc32)CC1",
}
TURNS = 15
OURS, THEIRS = 400, 5
"""Steps of a turn."""
FEMTOSECONDS, KELVIN = 0.5, 300.0


class Row(NamedTuple):
    """Processor time of one molecule, ms per step."""

    name: str
    atoms: int
    ours: float
    theirs: float
    ratio: float
    """Median of the turns' ratios."""


def speed(model: str) -> None:
    """Print the times of a step of a model and of tblite, which starts from the charges of the step before."""
    print(f"{model}: ms per step, one thread")
    print(f"{'':12} atoms      ours  GFN2-xTB  ratio")
    with threadpool_limits(1), Progress(TURNS * len(MOLECULES), model, "turn") as progress:
        for name, smiles in MOLECULES.items():
            row = _measure(name, from_smiles(smiles), model, progress)
            print(f"{row.name:12} {row.atoms:5} {row.ours:9.3f} {row.theirs:9.2f} {row.ratio:6.0f}", flush=True)


def _measure(name: str, atoms: Atoms, model: str, progress: Progress) -> Row:
    ours = _dynamics(atoms, SchNetCalculator(model, threads=1))
    theirs = _dynamics(atoms, TBLite(method="GFN2-xTB", verbosity=0))
    times = []
    for turn in range(TURNS + 1):
        times.append((_milliseconds(ours, OURS), _milliseconds(theirs, THEIRS)))
        if turn:  # the first compiles, and guesses the charges
            progress.update()
    found = np.array(times[1:])
    own, other = np.median(found, axis=0)
    return Row(name, len(atoms), float(own), float(other), float(np.median(found[:, 1] / found[:, 0])))


def _dynamics(atoms: Atoms, calculator: Calculator) -> VelocityVerlet:
    moving = atoms.copy()
    moving.calc = calculator
    MaxwellBoltzmannDistribution(moving, temperature_K=KELVIN, rng=np.random.default_rng(0))
    return VelocityVerlet(moving, timestep=FEMTOSECONDS * units.fs)


def _milliseconds(dynamics: VelocityVerlet, steps: int) -> float:
    start = time.process_time()
    dynamics.run(steps)
    return 1e3 * (time.process_time() - start) / steps
