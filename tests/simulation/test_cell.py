"""Relaxation of a cell: the stress becomes that of the pressure, and what the mask holds stays."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read

from schnet_ase.errors import SchNetError, StructureError
from schnet_ase.simulation.relaxation import CellChange, check_cell, run_relax


@pytest.fixture
def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array @ np.diag([1.03, 0.98, 1.01]), scale_atoms=True)
    atoms.rattle(0.02, seed=0)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("pressure", [0.0, 5.0, -2.0])
def test_the_stress_becomes_that_of_the_pressure(copper, tmp_path, pressure):
    rows = run_relax(copper, tmp_path / "out", cell=CellChange(pressure))
    stress = copper.get_stress(voigt=False) / units.GPa
    assert stress == pytest.approx(-pressure * np.eye(3), abs=0.011)
    assert rows[-1].volume_A3 == pytest.approx(copper.get_volume())
    assert read(tmp_path / "out.xyz").get_volume() == pytest.approx(copper.get_volume(), rel=1e-6)
    # The pressure is minus the derivative of the energy with respect to the volume.
    energies, volumes = [], []
    for scale in (0.999, 1.001):
        scaled = copper.copy()
        scaled.set_cell(copper.cell * scale, scale_atoms=True)
        scaled.calc = EMT()
        energies.append(scaled.get_potential_energy())
        volumes.append(scaled.get_volume())
    assert -np.diff(energies)[0] / np.diff(volumes)[0] / units.GPa == pytest.approx(pressure, abs=0.05)


def test_a_masked_component_stays(copper, tmp_path):
    before = copper.cell.array.copy()
    run_relax(copper, tmp_path / "out", cell=CellChange(mask=(True, False, False, False, False, False)))
    strain = np.linalg.solve(before, copper.cell.array) - np.eye(3)
    assert abs(strain[0, 0]) > 1e-3
    strain[0, 0] = 0.0
    assert strain == pytest.approx(np.zeros((3, 3)), abs=1e-9)
    stress = copper.get_stress(voigt=False) / units.GPa
    assert abs(stress[0, 0]) < 0.01
    assert abs(stress[1, 1]) > 0.5


def test_a_cell_that_is_not_relaxed_in_time_is_said_so(copper, tmp_path):
    with pytest.raises(SchNetError, match=r"not relaxed after 2 steps: largest force .*, stress off by"):
        run_relax(copper, tmp_path / "out", cell=CellChange(), steps=2)
    assert not (tmp_path / "out.xyz").exists()


def test_fixed_atoms_stay_while_the_cell_relaxes(copper, tmp_path):
    copper.set_constraint(FixAtoms([0]))
    place = copper.get_scaled_positions()[0]
    run_relax(copper, tmp_path / "out", cell=CellChange(), fmax=0.05)
    assert copper.get_scaled_positions()[0] == pytest.approx(place, abs=1e-6)


def test_a_molecule_has_no_cell_to_relax(copper):
    with pytest.raises(StructureError, match=r"pbc \[False, False, False\].*leave out --cell"):
        check_cell(molecule("H2O"), CellChange())
    slab = copper.copy()
    slab.pbc = (True, True, False)
    with pytest.raises(StructureError, match="periodic in 2 of 3 directions.*--mask"):
        check_cell(slab, CellChange())
    check_cell(slab, CellChange(mask=(True, True, False, False, False, True)))
