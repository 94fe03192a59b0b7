"""Reaction paths: a barrier known from the potential, ends that do not fit, and acetylacetone's proton."""

import csv

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import RunawayError, SchNetError, StructureError
from schnet_ase.registry.lookup import get_card
from schnet_ase.simulation.neb import check_same_atoms, run_neb

WELLS, HEIGHT, TILT = 0.5, 0.3, 0.05


class DoubleWell(Calculator):
    """A fixed atom and one that moves in E = h ((x/a)² - 1)² + t x + 10 (y² + z²); members differ in h."""

    implemented_properties = ["energy", "forces", "energy_ensemble"]  # noqa: RUF012 - ASE's form

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        x, y, z = self.atoms.positions[1]
        u = (x / WELLS) ** 2 - 1.0
        heights = np.array([HEIGHT - 0.01, HEIGHT, HEIGHT + 0.01])
        energies = heights * u**2 + TILT * x + 10.0 * (y**2 + z**2)
        force = [-(4.0 * HEIGHT * u * x / WELLS**2 + TILT), -20.0 * y, -20.0 * z]
        forces = np.zeros((2, 3))
        forces[1] = force
        self.results = {"energy": float(energies[1]), "forces": forces, "energy_ensemble": energies}


def ends():
    first = Atoms("HeH", [(0.0, 0.0, 5.0), (-WELLS, 0.1, 0.0)], cell=[20, 20, 20], pbc=True)
    last = first.copy()
    last.positions[1] = (WELLS, 0.0, 0.1)
    first.calc = DoubleWell()
    return first, last


def test_the_barrier_is_that_of_the_potential(tmp_path):
    found = run_neb(*ends(), tmp_path / "out", images=7, fmax=0.005)
    x = np.linspace(-1.2 * WELLS, 1.2 * WELLS, 200_001)
    energy = HEIGHT * ((x / WELLS) ** 2 - 1.0) ** 2 + TILT * x
    left, right = energy[x < -0.3].min(), energy[x > 0.3].min()
    top = energy[np.abs(x) < 0.3].max()
    saddle = found.images[found.saddle]
    assert saddle.energy_eV == pytest.approx(top - left, abs=1e-4)
    assert found.backward.energy_eV == pytest.approx(top - right, abs=1e-4)
    # The members' barriers differ as their heights do, less what little the tilted wells have of it.
    assert saddle.energy_spread_eV == pytest.approx(0.01, rel=0.05)
    assert saddle.max_force_eV_per_A < 0.005
    frames = read(tmp_path / "out.xyz", ":")
    assert [f.get_potential_energy() - frames[0].get_potential_energy() for f in frames] == pytest.approx(
        [image.energy_eV for image in found.images], abs=1e-6
    )
    assert read(tmp_path / "out-saddle.xyz").positions[1] == pytest.approx(frames[found.saddle].positions[1])
    with open(tmp_path / "out.csv") as file:
        assert len(list(csv.DictReader(file))) == 7
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_ends_that_do_not_fit_are_refused():
    water = Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
    with pytest.raises(StructureError, match=r"atom 0 is O in the first end and H in the other; .*in another order"):
        check_same_atoms(water, water[[1, 0, 2]])
    with pytest.raises(StructureError, match="atom 2 is H in the first end and F"):
        check_same_atoms(water, Atoms("OHF", water.positions))
    with pytest.raises(StructureError, match="3 and 2 atoms"):
        check_same_atoms(water, water[:2])
    boxed = water.copy()
    boxed.set_cell([9, 9, 9])
    boxed.pbc = True
    with pytest.raises(StructureError, match="different cells"):
        check_same_atoms(water, boxed)


def test_one_minimum_twice_is_no_path(tmp_path):
    first, _ = ends()
    last = first.copy()
    last.positions[1, 0] += 0.1
    with pytest.raises(StructureError, match="relax to the same structure"):
        run_neb(first, last, tmp_path / "out")


def test_a_band_that_does_not_converge_writes_nothing(tmp_path):
    with pytest.raises(SchNetError, match="not converged after"):
        run_neb(*ends(), tmp_path / "out", fmax=1e-9, steps=60)
    assert not list(tmp_path.iterdir())


def test_a_band_that_leaves_the_world_is_stopped(tmp_path, monkeypatch):
    first, last = ends()
    own = first.calc.calculate

    def broken(*arguments):
        own(*arguments)
        if abs(first.calc.atoms.positions[1, 0]) < 0.1:
            first.calc.results["forces"] = np.full((2, 3), 1e6)

    monkeypatch.setattr(first.calc, "calculate", broken)
    monkeypatch.setattr("schnet_ase.simulation.neb._largest_allowed", lambda calculator, band: 100.0)
    with pytest.raises(RunawayError, match="a force on image"):
        run_neb(first, last, tmp_path / "out")


def test_the_proton_of_acetylacetone(tmp_path):
    """The committed ensemble has a barrier of 12 ± 2 meV, equal from both sides by symmetry."""
    first = get_card("acac").structure.atoms()
    distances = first.get_all_distances()
    oxygens, hydrogens = np.flatnonzero(first.numbers == 8), np.flatnonzero(first.numbers == 1)
    proton = hydrogens[distances[np.ix_(hydrogens, oxygens)].min(axis=1).argmin()]
    _, acceptor = oxygens[distances[proton, oxygens].argsort()]
    last = first.copy()
    last.set_distance(acceptor, proton, 1.05, fix=0)
    first.calc = SchNetEnsembleCalculator("acac", dtype="float64")
    found = run_neb(first, last, tmp_path / "out", images=5)
    saddle = found.images[found.saddle]
    assert found.saddle == 2
    assert saddle.energy_eV == pytest.approx(0.012, abs=0.002)
    assert found.backward.energy_eV == pytest.approx(saddle.energy_eV, abs=1e-3)
    assert not any(image.flagged for image in found.images)
    proton_at = found.structures[2].get_distances(proton, oxygens)
    assert proton_at[0] == pytest.approx(proton_at[1], abs=0.03)
