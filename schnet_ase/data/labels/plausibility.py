"""Check on a sample of frames whether the numbers of a data set fit the units in which they were read.

Lengths: the nearest atoms are about as far apart as the sum of their covalent radii. All-electron energies: that of a
molecule is slightly larger in size than the sum of its atoms' (H to Ar). Forces: over a small step the energy changes
by minus the force times the step. Bonds to hydrogen are about equally stiff in all molecules, which also reveals
energies and forces that are both in another unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import units
from ase.data import covalent_radii

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.labels.stiffness import TYPICAL, stiffness
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, Kind, Unit, parse_unit
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import half_neighbor_list

_FRAMES, _PAIRS = 30, 200
"""Numbers of frames and of pairs of successive frames that are examined."""
_MOST_ATOMS = 500
_REACH = 6.0
"""Å; atoms without a neighbour within it are ignored."""
_LENGTHS = ("Å", "Bohr", "nm", "pm")
_ATOMS = np.array(
    [
        *(0.0, -0.5, -2.9037, -7.4781, -14.6674, -24.6539, -37.8450, -54.5892, -75.0673, -99.7339, -128.9376),
        *(-162.2546, -200.053, -242.346, -289.359, -341.259, -398.110, -460.148, -527.540),
    ]
)
"""Hartree by atomic number, all electrons, not relativistic: Chakravorty et al., Physical Review A 47, 3649 (1993)."""
_LEAST, _MOST = 0.985, 1.03
"""Bounds on a molecule's energy over the sum of its atoms': 1.000 to 1.017, less with LDA, more with relativity."""
_ENERGIES = ("eV", "Hartree", "kcal/mol", "kJ/mol")
_SOFT, _STIFF = 12.0, 100.0
"""eV/Å²; bounds on the stiffness of bonds to hydrogen."""
_FORCES = ("eV/Å", "Hartree/Bohr", "Hartree/Å", "eV/Bohr", "kcal/mol/Å", "kcal/mol/Bohr", "kJ/mol/nm", "kJ/mol/Å")


class _Steps(NamedTuple):
    """Energy changes between frames that are near each other: as labelled, and as the forces predict."""

    energies: Floats
    work: Floats


def suspicions(dataset: Dataset) -> tuple[str, ...]:
    """Return a sentence for each unit that is probably wrong; none if nothing is suspicious or there is too little
    data."""
    try:
        words = dataset.units.split(" (")[0].split(", ")
        length, energy, force = (
            parse_unit(word, kind, "") for word, kind in zip(words, (LENGTH, ENERGY, FORCE), strict=False)
        )
    except (DataError, ValueError):  # not from a file
        return ()
    n_frames = len(dataset.frames)
    chosen = sorted({round(k) for k in np.linspace(0, n_frames - 1, min(n_frames, _FRAMES))}) if n_frames else []
    sample = [frame for i in chosen if len((frame := dataset.frames[i]).geometry.numbers) <= _MOST_ATOMS]
    of_lengths, of_energies = _of_lengths(sample, length), _of_energies(sample, energy)
    of_forces = _of_forces(dataset.frames, energy, force)
    if not of_lengths and not of_forces:  # either makes bonds look soft or stiff
        of_forces = _of_bonds(sample, force)
    return tuple(line for line in (of_lengths, of_energies, of_forces) if line)


def _of_lengths(sample: Sequence[Frame], length: Unit) -> str:
    ratios = [ratio for frame in sample for ratio in _bond_ratios(frame)]
    if not ratios:
        return ""
    ratio = float(np.median(ratios))
    if 0.65 < ratio < 1.6:
        return ""
    fitting = [u.word for u in _units(_LENGTHS, LENGTH) if 0.8 < ratio * u.factor / length.factor < 1.4]
    if not fitting:
        return ""
    return (
        f"lengths are probably in {fitting[0]}, not {length.word}: nearest atoms are {ratio:.2f} times the sum of "
        "their covalent radii apart; give length_unit"
    )


def _bond_ratios(frame: Frame) -> Floats:
    """Return each atom's distance to its nearest neighbour over the sum of their covalent radii, if it has one."""
    numbers, positions, cell, pbc = frame.geometry
    first, second, shifts = half_neighbor_list(positions, cell, pbc, _REACH)
    distances = np.linalg.norm(positions[second] - positions[first] + shifts @ cell, axis=1)
    ratios = distances / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    nearest: Floats = np.full(len(numbers), np.inf)
    for atoms in (first, second):
        np.minimum.at(nearest, atoms, np.where(distances < _REACH, ratios, np.inf))
    near: Floats = nearest[np.isfinite(nearest)]
    return near


def _of_energies(sample: Sequence[Frame], energy: Unit) -> str:
    ratios = np.array(
        [
            frame.energy / (units.Hartree * float(_ATOMS[frame.geometry.numbers].sum()))
            for frame in sample
            if frame.energy is not None and len(frame.geometry.numbers) and frame.geometry.numbers.max() < len(_ATOMS)
        ]
    )
    if not len(ratios):
        return ""

    def fits(unit: Unit) -> bool:
        """Return whether a unit fits nearly all frames; valence energies in eV may look like Hartree in a few of
        them."""
        scaled = ratios * (unit.factor / energy.factor)
        return float(np.mean((scaled > _LEAST) & (scaled < _MOST))) >= 0.9

    fitting = [unit.word for unit in _units(_ENERGIES, ENERGY) if fits(unit)]
    if not fitting or energy.word in fitting:
        return ""
    return (
        f"energies are probably in {fitting[0]}, not {energy.word}: they are {float(np.median(ratios)):.3g} times "
        "those of all electrons of the atoms; give energy_unit"
    )


def _of_forces(frames: Sequence[Frame], energy: Unit, force: Unit) -> str:
    steps = _steps(frames)
    if len(steps.energies) < 5 or not steps.work.any() or not steps.energies.any():
        return ""
    product = float(steps.energies @ steps.work)
    alike = product / float(np.linalg.norm(steps.energies) * np.linalg.norm(steps.work))
    slope = product / float(steps.work @ steps.work)
    if alike < -0.9:
        return "forces probably have the wrong sign, as gradients have: the energy rises where they point; correct them"
    if alike < 0.9 or 0.7 < slope < 1.4:
        return ""
    fits = [f"forces in {u.word}" for u in _units(_FORCES, FORCE) if abs(slope * force.factor / u.factor - 1.0) < 0.15]
    fits += [
        f"energies in {u.word}" for u in _units(_ENERGIES, ENERGY) if abs(slope * u.factor / energy.factor - 1.0) < 0.15
    ]
    if not fits and 0.4 < slope < 2.5:  # the frames are far from each other: no wrong unit gives so small a factor
        return ""
    would = f"; {' or '.join(fits)} would fit" if fits else ""
    return (
        f"the unit of energies ({energy.word}) or forces ({force.word}) is probably another one: between neighbouring "
        f"frames the energy changes by {slope:.3g} times what the forces say{would}; give energy_unit or force_unit"
    )


def _of_bonds(sample: Sequence[Frame], force: Unit) -> str:
    found = stiffness(sample)
    if found is None or _SOFT < found.slope < _STIFF:
        return ""
    if found.slope < 0.0:
        return "forces probably have the wrong sign, as gradients have: they stretch long bonds; correct them"
    fits = min(_units(_FORCES, FORCE), key=lambda u: abs(np.log(found.slope * u.factor / force.factor / TYPICAL)))
    would = found.slope * fits.factor / force.factor
    if not _SOFT < would < _STIFF:
        return ""
    other = fits.word.split("/")[0] + ("/mol" if "/mol/" in fits.word else "")
    return (
        f"forces are probably in {fits.word}, not {force.word}: bonds to hydrogen would be {found.slope:.3g} eV/Å² "
        f"stiff; in {fits.word} they are {would:.0f}, as in other molecules; give energy_unit if energies are in "
        f"{other} too, else force_unit"
    )


def _steps(frames: Sequence[Frame]) -> _Steps:
    found = list(_near_pairs(frames))
    return _Steps(np.array([energy for energy, _ in found]), np.array([work for _, work in found]))


def _near_pairs(frames: Sequence[Frame]) -> Iterator[tuple[float, float]]:
    """Yield the energy change, and minus the mean force times the step, of successive frames within half an Å."""
    n_pairs = len(frames) - 1
    for i in sorted({round(k) for k in np.linspace(0, n_pairs - 1, min(n_pairs, _PAIRS))}) if n_pairs > 0 else []:
        a, b = frames[i], frames[i + 1]
        if a.energy is None or b.energy is None or a.forces is None or b.forces is None:
            continue
        same_atoms = np.array_equal(a.geometry.numbers, b.geometry.numbers)
        if not same_atoms or not np.allclose(a.geometry.cell, b.geometry.cell):
            continue
        step = b.geometry.positions - a.geometry.positions
        if 0.0 < np.abs(step).max(initial=0.0) < 0.5:
            yield b.energy - a.energy, -0.5 * float(((a.forces + b.forces) * step).sum())


def _units(names: Sequence[str], kind: Kind) -> list[Unit]:
    return [parse_unit(name, kind, "") for name in names]
