"""Structures for benchmarks, generated without data files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from schnet_ase.data import Frame
from schnet_ase.geometry.system import Geometry

WATER_DENSITY = 0.997  # g/cm³, at 298 K and 1 bar
SIDE = 4  # molecules along an edge of the smallest box
TEMPERATURE = 100.0  # K; free atoms then need a new list with a skin of 1 Å after about 30 steps
WATER = {"water-192": 1, "water-1536": 2, "water-12288": 4}
MOLECULES = ("ethanol", "aspirin")

# PubChem's conformer of CID 2244, public domain; ASE has no aspirin.
ASPIRIN = Atoms(
    "O4C9H8",
    [
        [1.2333, 0.5540, 0.7792],
        [-0.6952, -2.7148, -0.7502],
        [0.7958, -2.1843, 0.8685],
        [1.7813, 0.8105, -1.4821],
        [-0.0857, 0.6088, 0.4403],
        [-0.7927, -0.5515, 0.1244],
        [-0.7288, 1.8464, 0.4133],
        [-2.1426, -0.4741, -0.2184],
        [-2.0787, 1.9238, 0.0706],
        [-2.7855, 0.7636, -0.2453],
        [-0.1409, -1.8536, 0.1477],
        [2.1094, 0.6715, -0.3113],
        [3.5305, 0.5996, 0.1635],
        [-0.1851, 2.7545, 0.6593],
        [-2.7247, -1.3605, -0.4564],
        [-2.5797, 2.8872, 0.0506],
        [-3.8374, 0.8238, -0.5090],
        [3.7290, 1.4184, 0.8593],
        [4.2045, 0.6969, -0.6924],
        [3.7105, -0.3659, 0.6426],
        [-0.2555, -3.5916, -0.7337],
    ],
)


def make_system(name: str, seed: int = 0) -> Atoms:
    """Return a rattled molecule of `MOLECULES`, or a box of `WATER`, with Maxwell-Boltzmann momenta."""
    rng = np.random.default_rng(seed)
    atoms: Atoms
    if name in WATER:
        atoms = water(SIDE, rng).repeat(WATER[name])
    else:
        atoms = ASPIRIN.copy() if name == "aspirin" else molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    Stationary(atoms)
    return atoms


def water(side: int, rng: np.random.Generator) -> Atoms:
    """Return a periodic cube of side³ randomly turned molecules on a jittered lattice at the density of water."""
    one = molecule("H2O")
    one.positions -= one.get_center_of_mass()
    grams = one.get_masses().sum() * units._amu * 1e3
    spacing = (grams / WATER_DENSITY * 1e24) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centers = spacing * (grid + 0.5) + rng.uniform(-0.2, 0.2, size=(side**3, 3))
    turns = np.linalg.qr(rng.normal(size=(side**3, 3, 3)))[0]  # some are reflections, which do not change water
    positions = [one.positions @ turn.T + center for turn, center in zip(turns, centers, strict=True)]
    return Atoms(list(one.numbers) * side**3, np.concatenate(positions), cell=[side * spacing] * 3, pbc=True)


def labelled_frames(name: str, n_frames: int) -> list[Atoms]:
    """Return rattled molecules with random energies and forces, which do not change the time of a training step."""
    rng = np.random.default_rng(1)
    frames = [make_system(name, seed) for seed in range(n_frames)]
    for atoms in frames:
        energy, forces = rng.normal(), rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return frames


def molecules(n_frames: int, seed: int = 0) -> Iterator[Frame]:
    """Yield frames of the size of QM9's molecules (9 to 27 atoms of four elements at random places) with energies."""
    rng = np.random.default_rng(seed)
    for _ in range(n_frames):
        n_atoms = int(rng.integers(9, 28))
        numbers = rng.choice([1, 6, 7, 8], n_atoms, p=[0.5, 0.35, 0.05, 0.1])
        sites = rng.choice(64, n_atoms, replace=False)  # sites of a grid, so that no two atoms coincide
        positions = 1.5 * np.stack(np.unravel_index(sites, (4, 4, 4)), axis=1) + rng.normal(0.0, 0.1, (n_atoms, 3))
        energy = -13.6 * float(numbers.sum()) + 0.1 * float(np.cos(positions).sum())
        yield Frame(Geometry(numbers, positions, np.zeros((3, 3)), np.zeros(3, dtype=bool)), energy, None)
