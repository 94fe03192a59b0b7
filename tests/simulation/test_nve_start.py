"""A run at constant energy has the mean temperature that was asked for, by the motion that it may exchange."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCom, FixedPlane
from ase.io import read
from ase.md.verlet import VelocityVerlet

from schnet_ase.geometry.motion import (
    Thermometer,
    draw_velocities,
    equilibrate,
    equilibration_steps,
    internal_kinetic_energy,
    rigid_modes,
)
from schnet_ase.monitor.monitor import UncertaintyMonitor
from schnet_ase.simulation.dynamics import run_md


class Springs(Calculator):
    """Bonds of 20 eV/Å² between all atoms at their distances in `reference`: bonds as stiff as in molecules."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def __init__(self, reference):
        super().__init__()
        self.lengths = reference.get_all_distances()

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        vectors = atoms.positions[:, None] - atoms.positions
        lengths = np.linalg.norm(vectors, axis=-1)
        stretched = lengths - self.lengths
        with np.errstate(invalid="ignore"):
            forces = -20.0 * np.nansum((stretched / lengths)[..., None] * vectors, axis=1)
        self.results = {"energy": 5.0 * (stretched**2).sum(), "forces": forces}


@pytest.mark.parametrize(
    ("atoms", "constraint", "modes"),
    [
        (Atoms("H"), None, 3),
        (molecule("N2"), None, 5),
        (molecule("CO2"), None, 5),
        (molecule("H2O"), None, 6),
        (molecule("CH3CH2OH"), None, 6),
        (bulk("Cu", cubic=True), None, 3),
        (molecule("CH3CH2OH"), FixAtoms([0]), 3),  # it may turn about the fixed atom
        (molecule("CH3CH2OH"), FixAtoms([0, 1]), 1),  # about the line through two
        (molecule("CH3CH2OH"), FixAtoms([0, 1, 2]), 0),
        (molecule("CH3CH2OH"), FixBondLength(0, 1), 6),
        (molecule("CH3CH2OH"), FixCom(), 3),
        (molecule("CH3CH2OH"), FixedPlane(list(range(9)), (0, 0, 1)), 3),  # moves in two directions and turns about one
        (bulk("Cu", cubic=True), FixAtoms([0]), 0),
    ],
)
def test_motion_that_a_run_keeps(atoms, constraint, modes):
    atoms.set_constraint(constraint)
    assert rigid_modes(atoms).shape == (3 * len(atoms), modes)
    removed = 0 if constraint is None else constraint.get_removed_dof(atoms)
    assert Thermometer(True).degrees(atoms) == 3 * len(atoms) - removed - modes
    assert Thermometer(False).degrees(atoms) == 3 * len(atoms) - removed


def test_a_bent_linear_molecule_is_linear():
    """Else the number of its degrees of freedom would depend on the moment."""
    atoms = molecule("C2H2")
    atoms.positions[0, 0] += 0.1
    atoms.positions[3, 1] -= 0.1
    assert rigid_modes(atoms).shape[1] == 5


def test_flying_and_spinning_are_no_temperature(ethanol):
    draw_velocities(ethanol, 300.0, np.random.default_rng(0))
    kinetic = ethanol.get_kinetic_energy()
    assert internal_kinetic_energy(ethanol) == pytest.approx(kinetic)
    assert Thermometer(True).kelvin(ethanol) == pytest.approx(2 * kinetic / (21 * units.kB))
    assert Thermometer(False).kelvin(ethanol) == pytest.approx(ethanol.get_temperature())
    arms = ethanol.positions - ethanol.get_center_of_mass()
    ethanol.set_velocities(ethanol.get_velocities() + np.array([0.1, 0.2, -0.3]) + np.cross([0.05, 0.0, 0.1], arms))
    assert ethanol.get_kinetic_energy() > 2 * kinetic
    assert internal_kinetic_energy(ethanol) == pytest.approx(kinetic)


def mean_temperature(atoms, steps, timestep_fs=0.5):
    kelvin = []
    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    for _ in range(steps):
        dynamics.run(1)
        kelvin.append(Thermometer(True).kelvin(atoms))
    return np.mean(kelvin)


@pytest.mark.parametrize("strained", [False, True])
def test_springs_have_the_mean_temperature_asked_for(strained):
    """From rest at the minimum, and from far off it: a draw of velocities alone would give 150 K, and far too much.

    Equipartition holds for each vibration, so that a run of many periods has the mean to a few per cent, whatever its
    seed; at constant energy there is no more to scatter.
    """
    means = []
    for seed in range(4):
        atoms = molecule("CH3OH")
        atoms.calc = Springs(atoms.copy())
        if strained:
            atoms.rattle(0.1, seed=seed)
        rng = np.random.default_rng(seed)
        draw_velocities(atoms, 300.0, rng)
        equilibrate(atoms, 300.0, 0.5, rng)
        assert rigid_modes(atoms).T @ (atoms.get_momenta() / np.sqrt(atoms.get_masses())[:, None]).ravel() == (
            pytest.approx(np.zeros(6), abs=1e-10)
        )
        means.append(mean_temperature(atoms, 1000))
    assert np.mean(means) == pytest.approx(300.0, rel=0.03)
    assert np.std(means) < 20.0


def test_a_crystal_with_a_fixed_layer_has_the_mean_temperature_asked_for():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.set_constraint(FixAtoms(mask=atoms.positions[:, 2] < 0.1))
    atoms.calc = EMT()
    rng = np.random.default_rng(0)
    draw_velocities(atoms, 400.0, rng)
    equilibrate(atoms, 400.0, 4.0, rng)
    assert mean_temperature(atoms, 250, 4.0) == pytest.approx(400.0, rel=0.06)


def test_the_shipped_ensemble_runs_at_the_temperature_asked_for(tmp_path):
    """Several seeds; what one run of 1 ps scatters by is some per cent, and a draw alone gave 104 K."""
    from schnet_ase import SchNetCalculator
    from schnet_ase.registry.lookup import get_card

    means, drifts = [], []
    for seed in range(3):
        atoms = get_card("rmd17-ethanol").structure.atoms()
        atoms.calc = SchNetCalculator("rmd17-ethanol")
        rows = run_md(atoms, tmp_path / "run", steps=1000, seed=seed)
        kelvin = [row.temperature_K for row in rows]
        assert kelvin == pytest.approx([2 * row.kinetic_eV / (21 * units.kB) for row in rows])
        means.append(np.mean(kelvin))
        drifts.append(max(abs(row.drift_meV_per_atom) for row in rows))
    assert np.mean(means) == pytest.approx(300.0, rel=0.06)
    assert max(drifts) < 2.0


def test_a_run_that_goes_on_is_not_equilibrated_again(tmp_path, ethanol):
    ethanol.calc = Springs(molecule("CH3CH2OH"))
    velocities = np.random.default_rng(0).normal(scale=0.01, size=(9, 3))
    ethanol.set_velocities(velocities)
    start = ethanol.positions.copy()
    steps = []
    rows = run_md(ethanol, tmp_path / "run", steps=2, interval=1, report=lambda step, row: steps.append(step))
    assert steps == [0, 1, 2]
    assert rows[0].kinetic_eV == pytest.approx(0.5 * (ethanol.get_masses()[:, None] * velocities**2).sum())
    assert np.array_equal(read(tmp_path / "run.traj", 0).positions, start)


def test_the_steps_of_an_equilibration_count_up_to_zero(tmp_path, ethanol):
    ethanol.calc = Springs(ethanol.copy())
    steps = []
    run_md(ethanol, tmp_path / "run", steps=1, timestep_fs=0.5, report=lambda step, row: steps.append(step))
    assert steps == list(range(-equilibration_steps(0.5), 2))


def test_no_temperature_asked_for_is_rest(tmp_path, ethanol):
    ethanol.calc = Springs(ethanol.copy())
    rows = run_md(ethanol, tmp_path / "run", steps=3, temperature=0.0)
    assert [row.temperature_K for row in rows] == [0.0, 0.0]


def test_the_monitor_counts_the_same_degrees(tmp_path, make_model):
    from schnet_ase import SchNetEnsembleCalculator

    atoms = molecule("CH3CH2OH")
    atoms.calc = SchNetEnsembleCalculator([make_model(seed) for seed in range(2)])
    draw_velocities(atoms, 1.0, np.random.default_rng(0))
    monitor = UncertaintyMonitor(atoms, threshold=1e3, file=tmp_path / "f.extxyz", log=tmp_path / "u.csv")
    rows = run_md(atoms, tmp_path / "run", steps=1, timestep_fs=0.01, interval=1, temperature=1.0, monitor=monitor)
    logged = np.genfromtxt(tmp_path / "u.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert logged["temperature_K"] == pytest.approx([row.temperature_K for row in rows], rel=1e-5)
