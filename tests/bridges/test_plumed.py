"""PLUMED's bias beside a model's forces, by ASE's calculator and where the library is found."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.plumed import Plumed

from schnet_ase import SchNetEnsembleCalculator, save_model

pytest.importorskip("plumed", reason="pip install plumed")

NEAR, KAPPA = 0.1, 5000.0  # PLUMED's units: nm and kJ/mol per square nm


@pytest.mark.skipif(not Path(os.environ.get("PLUMED_KERNEL", "")).is_file(), reason="PLUMED_KERNEL names no library")
def test_restraint_of_a_bond_is_added(make_model, ethanol, tmp_path):
    for seed in range(2):
        save_model(make_model(seed), tmp_path / "models" / f"fold-{seed}.safetensors")
    calculator = SchNetEnsembleCalculator(tmp_path / "models", dtype="float64")
    alone, forces = calculator.get_potential_energy(ethanol), calculator.get_forces(ethanol)
    lines = ["d: DISTANCE ATOMS=1,2 NOPBC", f"RESTRAINT ARG=d AT={NEAR} KAPPA={KAPPA}"]
    ethanol.calc = Plumed(calculator, lines, 0.5 * units.fs, atoms=ethanol, log=str(tmp_path / "log"))
    bond = ethanol.positions[1] - ethanol.positions[0]
    length = np.linalg.norm(bond)
    kappa = KAPPA * units.kJ / units.mol / units.nm**2  # eV/Å²
    stretch = length - NEAR * units.nm
    assert ethanol.get_potential_energy() == pytest.approx(alone + 0.5 * kappa * stretch**2, abs=1e-8)
    forces[0] += kappa * stretch * bond / length
    forces[1] -= kappa * stretch * bond / length
    np.testing.assert_allclose(ethanol.get_forces(), forces, rtol=0.0, atol=1e-7)
