"""Small labelled data that the tests make themselves: rattled ethanol with EMT energies and forces."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnet_ase.data import Frame
from schnet_ase.neighbors import Geometry


def labelled_ethanol(n_frames: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def write_ethanol(path: Path, n_frames: int = 40, seed: int = 0) -> Path:
    write(path, labelled_ethanol(n_frames, seed), format="extxyz")
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


def molecules(n_frames: int, seed: int = 0) -> Iterator[Frame]:
    """Frames of the size of QM9's molecules, 9 to 27 atoms of four elements at random places; energies alone."""
    rng = np.random.default_rng(seed)
    for _ in range(n_frames):
        n_atoms = int(rng.integers(9, 28))
        numbers = rng.choice([1, 6, 7, 8], n_atoms, p=[0.5, 0.35, 0.05, 0.1])
        sites = rng.choice(64, n_atoms, replace=False)  # of a grid, so that no two atoms meet
        positions = 1.5 * np.stack(np.unravel_index(sites, (4, 4, 4)), axis=1) + rng.normal(0.0, 0.1, (n_atoms, 3))
        energy = -13.6 * numbers.sum() + 0.1 * float(np.cos(positions).sum())
        yield Frame(Geometry(numbers, positions, np.zeros((3, 3)), np.zeros(3, dtype=bool)), energy, None)
