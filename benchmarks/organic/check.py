"""Whether labels are what they are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from schnet_ase.errors import SchNetError

from .blocks import blocks, shards
from .xtb import Xtb

STEP = 2e-3  # Å
TOLERANCE = 1e-3  # eV/Å
COORDINATES = 12
"""Of a frame, drawn at random."""


def finite_difference_error(xtb: Xtb, positions: np.ndarray, rng: np.random.Generator, coordinates: int) -> float:
    """Largest deviation in eV/Å of forces from differences of the energy, exact to fourth order in the step.

    Parameters
    ----------
    xtb
        Of the molecule.
    positions
        (N, 3) Å.
    rng
        Draws the coordinates.
    coordinates
        How many.
    """
    forces = xtb.label(positions).forces.ravel()
    errors = []
    for k in rng.permutation(forces.size)[:coordinates]:
        energies = {}
        for steps in (-2, -1, 1, 2):
            moved = positions.ravel().copy()
            moved[k] += steps * STEP
            energies[steps] = xtb.label(moved.reshape(-1, 3)).energy
        slope = (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12 * STEP)
        errors.append(abs(forces[k] + slope))
    return max(errors)


def check(output: Path, n_shards: int) -> None:
    """Print the largest errors over a frame of each of some shards.

    Raises
    ------
    SchNetError
        Forces differ by more than 1e-3 eV/Å from finite differences or from those in the file.
    """
    files = shards(output)
    rng = np.random.default_rng(0)
    chosen = [files[k] for k in sorted(rng.permutation(len(files))[:n_shards])]
    worst_difference = worst_again = 0.0
    for file in chosen:
        frames = list(blocks(file))
        if not frames:
            continue
        block = frames[int(rng.integers(len(frames)))]
        positions, forces = block.values[:, :3], block.values[:, 3:]
        xtb = Xtb(np.array([atomic_numbers[s] for s in block.symbols]))
        again = float(np.abs(xtb.label(positions).forces - forces).max())
        difference = finite_difference_error(xtb, positions, rng, COORDINATES)
        print(
            f"{file.stem} {block.info['config_type']}: {len(forces)} atoms, largest force {np.abs(forces).max():.2f}, "
            f"from finite differences {difference:.1e}, from the file {again:.1e} eV/Å",
            flush=True,
        )
        worst_difference, worst_again = max(worst_difference, difference), max(worst_again, again)
    print(f"largest: {worst_difference:.1e} from finite differences, {worst_again:.1e} from the files, eV/Å")
    if max(worst_difference, worst_again) > TOLERANCE:
        raise SchNetError(f"{output}: forces are off by more than {TOLERANCE:g} eV/Å; expected labels of GFN2-xTB")
