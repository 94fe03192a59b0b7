"""The structure that a new entry offers."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnet_ase.data import read_dataset
from schnet_ase.training.entry import _lowest

FRAMES = (("NF3", -500.0), ("H", -13.0), ("H2O", -70.0), ("H2O", -72.0), ("H2O", -71.0), ("CH4", -90.0))


@pytest.mark.parametrize(("frames", "formula", "energy"), [(FRAMES, "H2O", -72.0), (FRAMES[1:2], "H", -13.0)])
def test_it_is_of_the_most_frequent_composition_not_of_the_heaviest_atoms(tmp_path, frames, formula, energy):
    written = []
    for number, (symbols, label) in enumerate(frames):
        atoms = Atoms(symbols, [(1.2 * k, 0.01 * number, 0.0) for k in range(len(Atoms(symbols)))])
        atoms.calc = SinglePointCalculator(atoms, energy=label, forces=[(0.0, 0.0, 0.0)] * len(atoms))
        written.append(atoms)
    write(tmp_path / "frames.extxyz", written)
    dataset = read_dataset(tmp_path / "frames.extxyz")
    found = _lowest(dataset)
    assert found.get_chemical_formula() == formula
    (frame,) = (frame for frame in dataset.frames if frame.energy == energy)
    assert (found.positions == frame.geometry.positions).all()
