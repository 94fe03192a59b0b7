"""The repulsion of nuclei in LAMMPS against ASE."""

import numpy as np
import pytest

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.export.lammps import write_model_file
from tests.support.lammps import CONSTANTS, crowd, lammps_input, pair_lines, printed, run_lammps, trained


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pressed_atoms_repel_as_in_ase(tmp_path, plugin, make_model, ranks, dtype):
    """Pairs of all three elements, within a rank, across ranks and across the boundary, down to half an Ångström."""
    members = [trained(make_model(seed, prior="zbl")) for seed in range(2)]
    atoms = crowd((True, True, True))
    atoms.set_cell(0.45 * atoms.cell.array, scale_atoms=True)
    write_model_file(tmp_path / "model", members, name="test", dtype=dtype)
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms), members=2)
    result = run_lammps(tmp_path, text, ranks=ranks)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms, members=2)
    atoms.calc = SchNetEnsembleCalculator(members, dtype=dtype)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    bare = SchNetEnsembleCalculator([trained(make_model(seed)) for seed in range(2)], dtype=dtype)
    assert energy - bare.get_potential_energy(atoms) > 100.0  # the repulsion is large
    # Members that disagree by thousands of eV: single precision is exact to some 1e-7 of what is summed.
    of_energies, of_forces = (1e-9, 1e-8) if dtype == "float64" else (1e-6 * abs(energy), 1e-5 * abs(forces).max())
    of_stress = (CONSTANTS if dtype == "float64" else 1e-5) * abs(stress).max()
    assert found.energy == pytest.approx(energy, abs=of_energies)
    np.testing.assert_allclose(found.member_energies, atoms.calc.results["energy_ensemble"], rtol=0, atol=of_energies)
    np.testing.assert_allclose(found.energies, atoms.get_potential_energies(), rtol=0, atol=of_energies)
    np.testing.assert_allclose(found.forces, forces, rtol=0, atol=of_forces)
    np.testing.assert_allclose(found.stress, stress, rtol=0, atol=of_stress)
    np.testing.assert_allclose(found.peratom_virial / atoms.cell.volume, stress, rtol=0, atol=of_stress)
