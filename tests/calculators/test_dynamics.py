"""Relaxations, thermostats and barostats of ASE, driven by both calculators."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import NPTBerendsen
from ase.optimize import BFGS, FIRE

from tests.support.calculations import calculated, set_temperature
from tests.support.factories import CalculatorFactory


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation_lowers_the_energy(make_calculator: CalculatorFactory, ethanol: Atoms, optimizer: type) -> None:
    atoms = calculated(ethanol, make_calculator(dtype="float64"))
    before = atoms.get_potential_energy()
    optimizer(atoms, logfile=None).run(fmax=0.01, steps=10)
    assert atoms.get_potential_energy() < before - 1e-4


def test_fixed_atoms_stay(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    atoms = calculated(ethanol, make_calculator(dtype="float64"))
    atoms.set_constraint(FixAtoms([0, 2]))
    assert (atoms.get_forces()[[0, 2]] == 0.0).all()
    assert np.abs(atoms.get_forces(apply_constraint=False)[[0, 2]]).max() > 1e-3
    BFGS(atoms, logfile=None).run(steps=3)
    np.testing.assert_array_equal(atoms.positions[[0, 2]], ethanol.positions[[0, 2]])
    assert np.abs(atoms.positions[1] - ethanol.positions[1]).max() > 1e-3


def langevin(atoms: Atoms) -> Langevin:
    return Langevin(
        atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=np.random.default_rng(0)
    )


def melchionna(atoms: Atoms) -> MelchionnaNPT:
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    return MelchionnaNPT(
        atoms, 0.5 * units.fs, temperature_K=300, externalstress=0.0, ttime=25 * units.fs, pfactor=100.0
    )


def berendsen(atoms: Atoms) -> NPTBerendsen:
    return NPTBerendsen(atoms, 0.5 * units.fs, temperature_K=300, pressure_au=0.0, compressibility_au=0.5)


def martyna_tobias_klein(atoms: Atoms) -> MTKNPT:
    return MTKNPT(atoms, 0.5 * units.fs, temperature_K=300, pressure_au=0.0, tdamp=50 * units.fs, pdamp=100 * units.fs)


@pytest.mark.parametrize("barostat", [melchionna, berendsen, martyna_tobias_klein])
def test_barostats_follow_the_stress(
    make_calculator: CalculatorFactory, cube: Atoms, barostat: Callable[[Atoms], Any]
) -> None:
    atoms = calculated(cube, make_calculator(dtype="float64"))
    set_temperature(atoms, 300.0)
    pressure = -atoms.get_stress(include_ideal_gas=True)[:3].mean()
    assert abs(pressure) > 1e-4
    barostat(atoms).run(5)
    # At an external pressure of zero, a positive internal one makes the cell grow.
    assert np.sign(atoms.cell.volume - cube.cell.volume) == np.sign(pressure)
    assert np.isfinite(atoms.get_forces()).all()


def test_langevin(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    atoms = calculated(ethanol, make_calculator())
    langevin(atoms).run(5)
    assert np.isfinite(atoms.get_forces()).all()
    assert atoms.get_kinetic_energy() > 0.0


def test_nose_hoover_chain_conserves_its_energy(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    # To second order in the time step; the chain asks the calculator for free_energy.
    calc = make_calculator(dtype="float64")

    def deviation(steps_per_fs: int) -> float:
        atoms = calculated(ethanol, calc)
        set_temperature(atoms, 300.0)
        dynamics = NoseHooverChainNVT(atoms, units.fs / steps_per_fs, temperature_K=300, tdamp=20 * units.fs)
        energies = [dynamics.get_conserved_energy()]
        for _ in range(10):
            dynamics.run(steps_per_fs)
            energies.append(dynamics.get_conserved_energy())
        return float(np.std(energies))

    coarse, fine = deviation(2), deviation(4)
    assert coarse / fine == pytest.approx(4.0, rel=0.1)
