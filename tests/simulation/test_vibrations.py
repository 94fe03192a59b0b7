"""Vibrations and thermochemistry beside ASE's own, and beside springs whose frequencies are known."""

import csv
import io
import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations
from ase.vibrations.data import VibrationsData

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from schnet_ase.registry.lookup import get_card
from schnet_ase.simulation.thermochemistry import Conditions, default_kind, thermochemistry
from schnet_ase.simulation.vibrations import _by_differences, hessians, vibrations, write_vibrations


class Springs(Calculator):
    """Atoms on a line, held by springs between neighbours; as an ensemble, the members' springs differ."""

    implemented_properties = ["energy", "forces", "forces_ensemble"]  # noqa: RUF012 - ASE's form

    def __init__(self, constants):
        super().__init__()
        self.constants = np.atleast_2d(constants)  # (M, N - 1), eV/Å²

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        vectors = np.diff(self.atoms.positions, axis=0)
        lengths = np.linalg.norm(vectors, axis=1)
        forces = np.zeros((len(self.constants), len(self.atoms), 3))
        pull = self.constants[:, :, None] * ((lengths - 1.0) / lengths)[:, None] * vectors
        forces[:, :-1] += pull
        forces[:, 1:] -= pull
        energy = 0.5 * float(np.sum(self.constants.mean(axis=0) * (lengths - 1.0) ** 2))
        self.results = {"energy": energy, "forces": forces.mean(axis=0), "forces_ensemble": forces}


def wavenumber(constant, mass):
    """Hooke's law, in SI units: eV/Å² and u to 1/cm."""
    omega = math.sqrt(constant * units._e * 1e20 / (mass * units._amu))
    return omega / (2.0 * math.pi * units._c * 100.0)


def test_a_diatomic_molecule_has_the_frequency_of_its_spring_and_of_each_member():
    atoms = Atoms("CO", [(0, 0, 0), (0.6, 0.8, 0)])
    atoms.calc = Springs([[100.0], [104.0], [102.0]])
    found = vibrations(atoms)
    mass = np.prod(atoms.get_masses()) / np.sum(atoms.get_masses())
    assert found.rigid == 5
    (mode,) = found.modes
    assert mode.wavenumber == pytest.approx(wavenumber(102.0, mass), rel=1e-7)
    own = [wavenumber(constant, mass) for constant in (100.0, 104.0, 102.0)]
    assert [member[0] for member in found.members] == pytest.approx(own, rel=1e-7)
    assert mode.spread == pytest.approx(np.std(own, ddof=1), rel=1e-3)
    assert mode.shares == pytest.approx(atoms.get_masses()[::-1] / atoms.get_masses().sum())
    values = thermochemistry(found, Conditions("harmonic", temperature=300.0))
    quanta = np.array(own) * units.invcm
    assert values.zero_point.spread == pytest.approx(np.std(quanta / 2, ddof=1), rel=1e-6)
    quantum = mode.wavenumber * units.invcm
    boltzmann = math.exp(-quantum / (units.kB * 300.0))
    assert values.free_energy.mean == pytest.approx(
        quantum / 2 + units.kB * 300.0 * math.log(1.0 - boltzmann), rel=1e-6
    )


def test_a_negative_spring_is_an_imaginary_mode_and_no_part_of_the_thermochemistry():
    atoms = Atoms("HCO", [(0, 0, 0), (1, 0, 0), (2, 0, 0)])
    atoms.calc = Springs([[50.0, -80.0], [50.0, -82.0]])
    found = vibrations(atoms)
    (imaginary,) = found.imaginary
    assert imaginary is found.modes[0]
    assert "C1" in imaginary.moves(atoms)
    assert "O2" in imaginary.moves(atoms)
    assert imaginary.wavenumber < -100.0
    # The bending of a line of springs costs nothing, which leaves one mode of stretching.
    assert len([energy for energy in found.energies if energy > 1e-3]) == 1


def test_ethanol_has_the_wavenumbers_and_gibbs_energy_of_ase(tmp_path):
    atoms = get_card("rmd17-ethanol").structure.atoms()
    atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-3)
    found = vibrations(atoms)
    theirs = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3)
    theirs.run()
    expected = theirs.get_frequencies()[6:].real
    assert [mode.wavenumber for mode in found.modes] == pytest.approx(expected, abs=0.1)
    assert all(0.0 < mode.spread < 10.0 for mode in found.modes)
    gas = IdealGasThermo(theirs.get_energies()[6:].real, "nonlinear", atoms=atoms, symmetrynumber=1, spin=0)
    expected = gas.get_gibbs_energy(400.0, 2e5, verbose=False)
    values = thermochemistry(found, Conditions("ideal-gas", temperature=400.0, pressure=2e5))
    assert values.free_energy.mean == pytest.approx(expected, abs=1e-4)
    assert default_kind(found) == "ideal-gas"
    write_vibrations(found, tmp_path / "out")
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["wavenumber_per_cm"]) for row in rows] == pytest.approx([m.wavenumber for m in found.modes])
    read = VibrationsData.read(tmp_path / "out.json")
    assert np.sort(read.get_frequencies().real)[6:] == pytest.approx([m.wavenumber for m in found.modes], abs=1e-3)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_fixed_atoms_do_not_vibrate(tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = EMT()
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    BFGS(atoms, logfile=io.StringIO()).run(fmax=1e-4)
    found = vibrations(atoms)
    theirs = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3)
    theirs.run()
    expected = theirs.get_frequencies()
    assert found.rigid == 0
    assert [abs(m.wavenumber) for m in found.modes] == pytest.approx(np.abs(expected), rel=1e-2, abs=1.0)
    assert default_kind(found) == "harmonic"
    with pytest.raises(StructureError, match="free molecules"):
        thermochemistry(found, Conditions("ideal-gas"))


def test_what_cannot_vibrate_is_refused():
    atom = Atoms("H")
    atom.calc = EMT()
    with pytest.raises(StructureError, match="no vibration"):
        vibrations(atom)


def test_the_analytic_hessians_are_those_of_finite_differences():
    """Of the mean and of every member, with an atom that is fixed."""
    atoms = get_card("rmd17-ethanol").structure.atoms()
    atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64", engine="autograd")
    atoms.rattle(0.02, seed=0)
    indices = [0, 2, 8]
    mean, members = hessians(atoms, indices)
    expected, each = _by_differences(atoms, indices, lambda done, total: None)
    assert mean == pytest.approx(expected, abs=1e-5)
    assert len(members) == len(each) == 5
    assert np.array(members) == pytest.approx(np.array(each), abs=1e-5)
