"""Whether the numbers of a data set look as if they were in the units that they were read in: a sample of it is enough.

Lengths: the nearest atoms are about as far from each other as the sum of their covalent radii. Energies of all
electrons: an atom of number Z has about -Z^2.4 / 2 Hartree (Thomas-Fermi, with an exponent that fits H to Ar).
Forces: over a small step the energy changes by minus the force times the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import units
from ase.data import covalent_radii

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, Kind, Unit, parse_unit
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import half_neighbor_list

_FRAMES, _PAIRS = 30, 200
"""How many frames are looked at, and how many pairs of frames that follow each other."""
_MOST_ATOMS = 500
_REACH = 6.0
"""Å; an atom without another one within it says nothing of lengths."""
_LENGTHS = ("Å", "Bohr", "nm", "pm")
_ENERGIES = ("eV", "Hartree", "kcal/mol", "kJ/mol")
_FORCES = ("eV/Å", "Hartree/Bohr", "Hartree/Å", "eV/Bohr", "kcal/mol/Å", "kcal/mol/Bohr", "kJ/mol/nm", "kJ/mol/Å")


class _Steps(NamedTuple):
    """How energies change between frames that are near each other, and by the forces."""

    energies: Floats
    work: Floats


def suspicions(dataset: Dataset) -> tuple[str, ...]:
    """Units that are probably other ones, a sentence each; none where nothing is strange or too little can be seen."""
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
    found = (_of_lengths(sample, length), _of_energies(sample, energy), _of_forces(dataset.frames, energy, force))
    return tuple(line for line in found if line)


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
    """Of each atom that has a neighbour its distance to the nearest, by the sum of the covalent radii."""
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
    ratios = [
        frame.energy / (-0.5 * units.Hartree * float((frame.geometry.numbers**2.4).sum()))
        for frame in sample
        if frame.energy is not None and frame.geometry.numbers.max(initial=0) <= 18
    ]
    if not ratios:
        return ""
    ratio = float(np.median(ratios))
    # Molecules of H to Ar have between 0.98 and 1.07 of it: the sum leaves out what binds them.
    fitting = [u.word for u in _units(_ENERGIES, ENERGY) if 0.97 < ratio * u.factor / energy.factor < 1.09]
    if not fitting or energy.word in fitting:
        return ""
    return (
        f"energies are probably in {fitting[0]}, not {energy.word}: they are {ratio:.3g} times those of all electrons "
        "of the atoms; give energy_unit"
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
    would = f"; {' or '.join(fits)} would fit" if fits else ""
    return (
        f"the unit of energies ({energy.word}) or forces ({force.word}) is probably another one: between neighbouring "
        f"frames the energy changes by {slope:.3g} times what the forces say{would}; give energy_unit or force_unit"
    )


def _steps(frames: Sequence[Frame]) -> _Steps:
    found = list(_near_pairs(frames))
    return _Steps(np.array([energy for energy, _ in found]), np.array([work for _, work in found]))


def _near_pairs(frames: Sequence[Frame]) -> Iterator[tuple[float, float]]:
    """The change of energy, and minus the mean force times the step, of frames that follow within half an Å."""
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
