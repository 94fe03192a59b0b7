"""What the tests of calculators do with atoms."""

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

DTYPES = ["float64", "float32"]
ENGINES = ["autograd", "compiled"]


def calculated(atoms: Atoms, calc: Calculator) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = calc
    atoms.get_forces()
    return atoms


def set_temperature(atoms: Atoms, kelvin: float, seed: int = 0) -> None:
    widths = np.sqrt(atoms.get_masses() * units.kB * kelvin)
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * widths[:, None])
