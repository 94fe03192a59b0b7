"""LAMMPS's dispersion/d3 beside the pair style, as a model with this term in ASE."""

import numpy as np
import pytest
from ase.build import molecule

from schnet_ase import SchNetCalculator
from schnet_ase.export.lammps import write_model_file
from tests.support.lammps import lammps_input, pair_lines, printed, run_lammps, trained

D3 = "dispersion/d3 bj pbe 31.75 21.17"
"""The cutoffs, in Å, are those of the package dftd3."""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_network_and_dispersion_of_lammps(tmp_path, plugin, make_model, ranks):
    pytest.importorskip("dftd3")
    atoms = molecule("CH3CH2OH")
    atoms.center(vacuum=5.0)
    write_model_file(tmp_path / "model", [trained(make_model(0))], name="one", dtype="float64")
    load, _, coefficients = pair_lines(plugin, tmp_path / "model", atoms)
    species = coefficients.split()[4:]
    pair = [
        load,
        f"pair_style hybrid/overlay schnet {D3}",
        coefficients.replace("* * ", "* * schnet "),
        f"pair_coeff * * dispersion/d3 {' '.join(species)}",
    ]
    result = run_lammps(tmp_path, lammps_input(tmp_path, atoms, pair), ranks=ranks)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms)
    with_it = trained(make_model(0, dispersion="pbe"))
    atoms.calc = SchNetCalculator(with_it, dtype="float64")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    bare = SchNetCalculator(trained(make_model(0)), dtype="float64")
    assert energy - bare.get_potential_energy(atoms) < -0.05  # eV: the term is there
    # LAMMPS and dftd3 convert the unit of length and energy by constants that differ in the seventh digit.
    assert found.energy == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-7)
