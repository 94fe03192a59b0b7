"""A run that leaves the world is ended by its monitor within ten steps, with its last good frame in the file."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.errors import RunawayError
from schnet_ase.monitor.dynamics import guard_of
from schnet_ase.monitor.guard import Guard
from tests.support.entries import make_entry


class Hole(Calculator):
    """Every pair attracts the more the nearer: E = -2 eV Å / r summed over pairs."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        vectors = atoms.positions[:, None] - atoms.positions
        lengths = np.linalg.norm(vectors, axis=-1) + np.diag(np.full(len(atoms), np.inf))
        forces = -2.0 * np.sum(vectors / lengths[..., None] ** 3, axis=1)
        self.results = {"energy": -(1.0 / lengths).sum(), "forces": forces}


@pytest.fixture
def models(make_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = [make_model(seed) for seed in range(3)]
    for model in models:
        model.scale.fill_(0.05)
    return models


@pytest.fixture
def ensemble(models):
    return SchNetEnsembleCalculator(models)


@pytest.fixture
def collapsing():
    atoms = Atoms("H4", positions=2.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.1], [0, 0, 1]]))
    atoms.calc = Hole()
    return atoms


def last_good_step(atoms, steps):
    """When a guard that looks at every step of a copy of the run ends it."""
    copy = atoms.copy()
    copy.calc = Hole()
    dynamics = VelocityVerlet(copy, 0.1 * units.fs)
    guard = guard_of(dynamics, copy, 0)
    for step in range(1, steps):
        dynamics.run(1)
        if guard(step):
            return guard.good.step
    raise AssertionError("it never leaves the world")


@pytest.mark.parametrize("interval", [1, 10, 25])
def test_atoms_that_fall_into_each_other(collapsing, ensemble, interval):
    thermalize_momenta(collapsing, temperature_K=300, rng=np.random.default_rng(0))
    left = last_good_step(collapsing, 2000) + 1
    dynamics = VelocityVerlet(collapsing, 0.1 * units.fs)
    dynamics.attach(UncertaintyMonitor(collapsing, ensemble=ensemble, threshold=1e6, interval=interval))
    with pytest.raises(RunawayError, match=r"stopped at step \d+: .*; the last good frame, step \d+, is in ") as caught:
        dynamics.run(2000)
    assert "\n" not in str(caught.value)
    assert "schnet-ase learn" in str(caught.value)
    assert left <= caught.value.step < left + 10
    kept = read("flagged.extxyz")
    assert kept.info["schnet_status"] == "good"
    assert left - 10 <= kept.info["step"] < caught.value.step
    assert f"step {kept.info['step']}, is in" in str(caught.value)
    again = kept.copy()
    again.calc = Hole()
    assert kept.get_potential_energy() == pytest.approx(again.get_potential_energy(), rel=1e-4)
    assert kept.arrays["schnet_forces_deviation"].shape == (4,)


def test_an_optimization_into_a_hole(collapsing, ensemble):
    with FIRE(collapsing, logfile=None) as optimizer:
        optimizer.attach(UncertaintyMonitor(collapsing, ensemble=ensemble, threshold=1e6, interval=10))
        with pytest.raises(RunawayError, match="the last good frame"):
            optimizer.run(fmax=1e-3, steps=2000)


@pytest.mark.parametrize("interval", [1, 10])
def test_members_that_part_far_beyond_the_calibration(models, ensemble, interval):
    """At its first look: one that is 50 times the threshold, and twice what the run began with."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble if interval == 1 else SchNetCalculator(models[0])
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    ensemble.calculate(atoms)
    start = float(ensemble.results["forces_deviation"].max())
    ensemble.calibration = SimpleNamespace(
        threshold=lambda: 1e-4 * start, exceeded_by="1 in 1,000", energy=None, forces=None, coverage=0.9
    )
    given = None if interval == 1 else ensemble
    monitor = UncertaintyMonitor(atoms, ensemble=given, threshold=1e6, interval=interval)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(monitor)
    dynamics.run(10)  # not above twice the start's
    monitor._ending._guard._first_deviation = 1e-3 * start
    with pytest.raises(RunawayError, match="the members of the ensemble differ by .* times what 1 in 1,000") as caught:
        dynamics.run(10)
    assert caught.value.step == (11 if interval == 1 else 20)


def hot(atoms, kelvin, seed=0):
    thermalize_momenta(atoms, temperature_K=kelvin, rng=np.random.default_rng(seed))


def test_heat(ensemble):
    """Ten times a thermostat's temperature, or at constant energy the start's, however cold the atoms begin."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    cold = Langevin(atoms, 0.5 * units.fs, temperature_K=500, friction=0.1, fixcm=False, rng=np.random.default_rng(0))
    cold.attach(UncertaintyMonitor(atoms, threshold=1e6))
    cold.run(30)
    hot(atoms, 20000)
    with pytest.raises(RunawayError, match=r"the temperature is [\d,]+ K, and 500 K was requested"):
        cold.run(20)
    hot(atoms, 100)
    verlet = VelocityVerlet(atoms, 0.1 * units.fs)
    verlet.attach(UncertaintyMonitor(atoms, threshold=1e6, append=False))
    verlet.run(30)
    hot(atoms, 3000)
    with pytest.raises(RunawayError, match=r"the temperature is [\d,]+ K"):
        verlet.run(20)


def test_an_atom_that_leaves(ensemble):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    hot(atoms, 300)
    momenta = atoms.get_momenta()
    momenta[8] = [0.0, 0.0, 6.0]
    atoms.set_momenta(momenta)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(UncertaintyMonitor(atoms, threshold=1e6, interval=10))
    with pytest.raises(RunawayError, match=r"atom 8 \(H\) has no other within the cutoff"):
        dynamics.run(500)


def test_a_monitor_that_a_program_calls_ends_nothing(collapsing, ensemble):
    monitor = UncertaintyMonitor(collapsing, ensemble=ensemble, threshold=1e6)
    for _ in range(30):
        collapsing.positions *= 0.9
        monitor()


def test_the_largest_force_of_the_card_is_the_measure(tmp_path, monkeypatch):
    """Ten times what the frames have; without it 100 eV/Å."""
    from dataclasses import replace

    from schnet_ase.registry.card import write_card

    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path))
    card = make_entry(tmp_path)
    for force_max, limit in ((None, 100.0), (7.0, 70.0)):
        write_card(replace(card, data=replace(card.data, force_max=force_max)), card.path)
        for calculator in (SchNetCalculator("ethanol/fold-0"), SchNetEnsembleCalculator("ethanol")):
            atoms = molecule("CH3CH2OH")
            atoms.calc = calculator
            guard = Guard(atoms, None)
            for force, ends in ((0.99 * limit, False), (1.01 * limit, True)):
                calculator.results["forces"] = np.full((9, 3), force / np.sqrt(3.0))
                assert bool(guard(1)) is ends
