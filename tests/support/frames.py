"""Small labelled data that the tests make themselves: rattled ethanol with EMT energies and forces."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


def labelled_ethanol(n_frames: int, seed: int = 0, amplitude: float = 0.05, name: str = "CH3CH2OH") -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        atoms = molecule(name)
        atoms.rattle(amplitude, rng=rng)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def write_ethanol(path: Path, n_frames: int = 40, seed: int = 0, amplitude: float = 0.05) -> Path:
    write(path, labelled_ethanol(n_frames, seed, amplitude), format="extxyz")
    return path


TOML = """
name = "ethanol-emt"
folds = 4
seed = 3
[data]
file = "ethanol.extxyz"
test = "test.extxyz"
calibration = 10
[model]
n_features = 16
n_interactions = 2
n_rbf = 12
[training]
steps = 60
batch_size = 5
learning_rate = 5e-3
warmup = 5
ema = 0.9
validate_every = 10
"""


def write_run(folder: Path, toml: str = TOML) -> Path:
    """A folder with data and a configuration; returns the configuration."""
    write_ethanol(folder / "ethanol.extxyz")
    write_ethanol(folder / "test.extxyz", 8, seed=1)
    config = folder / "run.toml"
    config.write_text(toml)
    return config
