"""Watching at intervals: what a look finds is what looks at every step have, whoever moves the atoms."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, UncertaintyExceeded, UncertaintyMonitor
from schnet_ase.errors import RegistryError
from tests.support.ensembles import calibrated, simulate
from tests.support.entries import make_entry


def small(make_model, n, **config):
    """Untrained members of small forces."""
    models = [make_model(seed, **config) for seed in range(n)]
    for model in models:
        model.scale.fill_(0.05)
    return models


@pytest.fixture
def models(make_model, tmp_path, monkeypatch):
    """Of an ensemble; files go into an empty folder."""
    monkeypatch.chdir(tmp_path)
    return small(make_model, 3)


def ethanol(calculator):
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    return atoms


def rows(file="uncertainty.csv"):
    with open(file) as lines:
        return list(csv.DictReader(lines))


def verlet(atoms):
    return VelocityVerlet(atoms, 0.5 * units.fs)


def langevin(atoms):
    rng = np.random.default_rng(4)
    return Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.1, fixcm=False, rng=rng)


def watched(models, interval, driver, make=verlet, steps=60, **arguments):
    """A run that one of the members drives and all of them watch, its files named by `interval`."""
    atoms = ethanol(driver(models))
    names = {"file": f"{interval}.extxyz", "log": f"{interval}.csv"}
    monitor = UncertaintyMonitor(
        atoms, ensemble=SchNetEnsembleCalculator(models), interval=interval, **names, **arguments
    )
    dynamics = make(atoms)
    dynamics.attach(monitor)
    dynamics.run(**({"steps": steps} if make in (verlet, langevin) else {"steps": steps, "fmax": 1e-9}))
    return monitor


def deviations(models, driver, make=verlet, steps=60):
    watched(models, 1, driver, make, steps, threshold=1e6)
    largest = np.array([float(row["max_forces_deviation_eV_per_A"]) for row in rows("1.csv")])
    os.remove("1.csv")
    return largest


def one(models):
    return SchNetCalculator(models[0])


def foreign(models):
    return Spring()


class Spring(Calculator):
    """A spring to the start, whose array is that of the call before."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form
    calls = 0

    def __init__(self):
        super().__init__()
        self.array, self.rest = np.zeros((9, 3)), molecule("CH3CH2OH").positions

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        self.calls += 1
        moved = atoms.positions - self.rest
        self.array[:] = -5.0 * moved
        self.results = {"energy": 2.5 * float((moved**2).sum()), "forces": self.array}


def one_crossing(largest):
    """A threshold, the first step above it, and it is above it still at the next look: a look has to go back."""
    for threshold in np.sort(largest):
        first = int(np.argmax(largest > threshold))
        look = -(-first // 10) * 10
        if first % 10 and look < len(largest) and largest[look] > threshold:
            return float(threshold), first
    raise AssertionError("no such step in this run; take another seed")


def frames_and_rows(interval):
    return read(f"{interval}.extxyz", ":"), {row["step"]: row for row in rows(f"{interval}.csv")}


@pytest.mark.parametrize("make", [verlet, langevin])
@pytest.mark.parametrize("driver", [one, foreign])
def test_a_flag_is_where_looks_at_every_step_have_it(models, driver, make):
    """The same step, the same frames around it, and the same rows of the log."""
    threshold, first = one_crossing(deviations(models, driver, make))
    flags = [
        watched(models, interval, driver, make, threshold=threshold, cooldown=1000).flags[0] for interval in (1, 10)
    ]
    assert [flag.step for flag in flags] == [first, first]
    assert flags[1].largest == pytest.approx(flags[0].largest, rel=1e-5)
    (each, every_row), (tenth, some_rows) = (frames_and_rows(interval) for interval in (1, 10))
    assert [frame.info["step"] for frame in tenth] == list(range(max(0, first - 5), first + 1))
    for a, b in zip(each, tenth, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.get_momenta(), b.get_momenta())
        np.testing.assert_array_equal(a.get_forces(), b.get_forces())
        spreads = [frame.arrays["schnet_forces_deviation"] for frame in (a, b)]
        np.testing.assert_allclose(*spreads, atol=2e-7)
        assert (a.info["schnet_status"], a.info["step"]) == (b.info["schnet_status"], b.info["step"])
        for name in ("time_fs", "temperature_K", "schnet_energy_std"):
            assert a.info[name] == pytest.approx(b.info[name], rel=1e-3)
    assert list(map(int, some_rows)) == sorted(map(int, some_rows))
    assert {*map(str, range(0, 61, 10)), str(first)} <= {*some_rows}
    for step, row in some_rows.items():
        assert row["status"] == every_row[step]["status"]
        assert float(row["temperature_K"]) == pytest.approx(float(every_row[step]["temperature_K"]), rel=1e-5)


class Scripted(Calculator):
    """An ensemble whose deviation is what the script says for the position of the first atom."""

    implemented_properties = ("energy", "forces", "energy_std", "forces_deviation")
    calibration = None

    def __init__(self, script):
        super().__init__()
        self.script = script

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        deviation = np.full(len(atoms), 0.01)
        deviation[0] = self.script.get(round(atoms.positions[0, 0]), 0.1)
        self.results = {
            "energy": 0.0,
            "forces": np.ones((len(atoms), 3)),
            "energy_std": 0.01,
            "forces_deviation": deviation,
        }

    def out_of_reach(self, atoms):
        return np.zeros(0, dtype=np.int64)


@pytest.mark.parametrize(
    ("at_look", "flagged", "looks"), [(0.55, [7], [0, *range(1, 11), 20]), (0.45, [], [0, 10, 20])]
)
def test_a_look_goes_back_from_half_the_threshold(at_look, flagged, looks, tmp_path, monkeypatch):
    """The deviation is above the threshold at step 7 only, and at step 10 near it or not."""
    monkeypatch.chdir(tmp_path)
    atoms = ethanol(Spring())
    script = {7: 1.5, 10: at_look}
    monitor = UncertaintyMonitor(atoms, ensemble=Scripted(script), interval=10, threshold=1.0)
    for step in range(21):
        atoms.positions[0, 0] = step
        monitor()
    assert [flag.step for flag in monitor.flags] == flagged
    assert [int(row["step"]) for row in rows()] == looks


@pytest.mark.parametrize("make", [BFGS, FIRE])
def test_an_optimization(models, make):
    """Its deviations fall or grow as they like: flagged is what is above the threshold before a look above half."""
    largest = deviations(models, one, make, 40)
    for share in (0.2, 0.5, 0.8):
        threshold = (1.0 - share) * largest.min() + share * largest.max()
        monitor = watched(models, 10, one, make, 40, threshold=threshold, cooldown=0, append=False)
        above = np.flatnonzero(largest > threshold)
        flagged = [flag.step for flag in monitor.flags]
        windows = {-(-step // 10) for step in range(41) if step % 10 == 0 and largest[step] > threshold / 2}
        assert flagged == [step for step in above if -(-step // 10) in windows]
        assert np.isnan([flag.time_fs for flag in monitor.flags]).all()


@pytest.mark.parametrize("driver", [one, foreign])
def test_the_ensemble_computes_at_looks_alone(models, driver, monkeypatch):
    calls = []
    compute = SchNetEnsembleCalculator.disagreement
    monkeypatch.setattr(
        SchNetEnsembleCalculator, "disagreement", lambda self, atoms: calls.append(1) or compute(self, atoms)
    )
    monkeypatch.delattr(SchNetEnsembleCalculator, "calculate")
    watched(models, 10, driver, threshold=1e6)
    assert len(calls) == 7
    assert [row["step"] for row in rows("10.csv")] == [str(step) for step in range(0, 61, 10)]


def test_a_foreign_calculator_computes_nothing_again(models):
    atoms = ethanol(Spring())
    largest = deviations(models, foreign)
    monitor = UncertaintyMonitor(
        atoms, ensemble=SchNetEnsembleCalculator(models), interval=10, threshold=float(np.median(largest)), cooldown=0
    )
    dynamics = verlet(atoms)
    dynamics.attach(monitor)
    dynamics.run(60)
    assert len(monitor.flags) > 7
    assert atoms.calc.calls == 61


def test_the_neighbour_list_is_made_once_for_both(make_model, tmp_path, monkeypatch):
    """A warm crystal whose atoms cross the skin: as many lists as without a monitor, and the same run to the bit."""
    monkeypatch.chdir(tmp_path)
    models = small(make_model, 3, cutoff=3.5)

    def run(interval, skin=0.3):
        atoms = bulk("Cu", cubic=True) * (3, 3, 3)
        atoms.pbc = (True, True, False)
        atoms.calc = SchNetCalculator(models[0], skin=skin)
        thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(0))
        dynamics = VelocityVerlet(atoms, 5.0 * units.fs)
        ensemble = SchNetEnsembleCalculator(models, skin=skin)
        if interval:
            dynamics.attach(UncertaintyMonitor(atoms, ensemble=ensemble, interval=interval, threshold=1e6))
        dynamics.run(60)
        return atoms, ensemble

    alone, _ = run(None)
    atoms, ensemble = run(10)
    lists = atoms.calc._evaluator.neighbors
    assert ensemble._evaluator.neighbors is lists
    assert lists.builds == alone.calc._evaluator.neighbors.builds > 2
    np.testing.assert_array_equal(atoms.positions, alone.positions)
    apart = SchNetEnsembleCalculator(models)
    np.testing.assert_allclose(
        ensemble.get_property("forces_deviation", atoms), apart.get_property("forces_deviation", atoms), atol=1e-6
    )


@pytest.mark.parametrize(("theirs", "shared"), [(4.0, False), (5.0, True), (6.0, True)])
def test_a_list_that_is_too_short_is_not_shared(make_model, theirs, shared):
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.rattle(0.1, seed=1)
    models = small(make_model, 2, cutoff=5.0)
    ensemble, apart = SchNetEnsembleCalculator(models), SchNetEnsembleCalculator(models)
    atoms.calc = SchNetCalculator(make_model(0, cutoff=theirs))
    ensemble.share_neighbors(atoms.calc)
    atoms.get_forces()
    assert (ensemble._evaluator.neighbors is atoms.calc._evaluator.neighbors) is shared
    assert ensemble.cutoff == 5.0
    np.testing.assert_allclose(
        ensemble.get_property("forces_deviation", atoms), apart.get_property("forces_deviation", atoms), atol=1e-6
    )
    lone = atoms[:2]
    lone.pbc = False
    lone.positions = [[0, 0, 0], [5.5, 0, 0]]
    assert ensemble.out_of_reach(lone).tolist() == [0, 1]


def test_an_ensemble_by_its_name(tmp_path, monkeypatch):
    """With the options of the calculator that moves the atoms, where that is ours."""
    monkeypatch.chdir(tmp_path)
    make_entry(tmp_path / "models")
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    for calculator, dtype in ((EMT(), "float32"), (SchNetCalculator("ethanol/fold-1", dtype="float64"), "float64")):
        atoms = ethanol(calculator)
        monitor = UncertaintyMonitor(atoms, ensemble="ethanol", interval=5, threshold=1e-9, append=False)
        dynamics = VelocityVerlet(atoms, 0.1 * units.fs)
        dynamics.attach(monitor)
        dynamics.run(10)
        assert monitor.flags[0].step == 0
        assert monitor.ensemble.parameters["dtype"] == dtype
        expected = SchNetEnsembleCalculator("ethanol", dtype=dtype)
        frame = read("flagged.extxyz")
        deviation = expected.get_property("forces_deviation", frame)
        np.testing.assert_allclose(frame.arrays["schnet_forces_deviation"], deviation, atol=1e-7)
    with pytest.raises(RegistryError, match="no model"):
        UncertaintyMonitor(atoms, ensemble="methanol", threshold=0.1)


def test_stop_names_the_first_step_and_leaves_the_atoms_at_the_look(models):
    threshold, first = one_crossing(deviations(models, one))
    atoms = ethanol(one(models))
    monitor = UncertaintyMonitor(
        atoms, ensemble=SchNetEnsembleCalculator(models), interval=10, threshold=threshold, action="stop"
    )
    dynamics = verlet(atoms)
    dynamics.attach(monitor)
    with pytest.raises(UncertaintyExceeded, match=rf"step {first}: .* above the threshold"):
        dynamics.run(60)
    assert dynamics.nsteps == -(-first // 10) * 10
    assert read("flagged.extxyz").info["step"] == first


def test_several_monitors_of_one_run(models):
    """Each with its interval, its atoms and its files; what they find does not depend on the others."""
    alone = watched(models, 10, one, threshold=1e-6, indices=[2, 3], cooldown=20)
    atoms = ethanol(one(models))
    dynamics = verlet(atoms)
    monitors = [
        UncertaintyMonitor(
            atoms,
            ensemble=SchNetEnsembleCalculator(models),
            interval=interval,
            threshold=1e-6,
            indices=indices,
            cooldown=20,
            file=f"m{interval}.extxyz",
            log=f"m{interval}.csv",
        )
        for interval, indices in ((1, None), (7, [0]), (10, [2, 3]))
    ]
    for monitor in monitors:
        dynamics.attach(monitor)
    dynamics.run(60)
    assert [flag.step for flag in monitors[0].flags] == [0, 21, 42]
    assert {row["atom"] for row in rows("m7.csv")} == {"0"}
    assert {row["step"] for row in rows("m7.csv")} >= {str(step) for step in range(0, 60, 7)}
    assert {row["atom"] for row in rows("m10.csv")} <= {"2", "3"}
    assert [(flag.step, flag.atom) for flag in monitors[2].flags] == [(flag.step, flag.atom) for flag in alone.flags]
    assert [flag.step for flag in monitors[2].flags] == [0, 21, 42]


def test_the_looks_of_a_killed_run_are_in_its_log(tmp_path):
    code = """
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator, UncertaintyMonitor
models = [SchNet(SchNetConfig.small()) for _ in range(2)]
atoms = molecule("CH3CH2OH")
atoms.calc = SchNetCalculator(models[0], engine="autograd")
ensemble = SchNetEnsembleCalculator(models, engine="autograd")
dynamics = VelocityVerlet(atoms, 0.1 * units.fs)
dynamics.attach(UncertaintyMonitor(atoms, ensemble=ensemble, threshold=1e9, interval=5))
dynamics.attach(lambda: print(dynamics.nsteps, flush=True))
dynamics.run(10**6)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        step = -1
        while step < 32:
            step = int(process.stdout.readline())
        process.kill()
        step = max(step, *map(int, process.stdout.read().split()), 0)
    looked = [int(row["step"]) for row in rows(tmp_path / "uncertainty.csv")]
    assert looked[: step // 5 + 1] == list(range(0, step + 1, 5))


def test_what_the_driver_is_calibrated_for_goes_with_its_frames(models):
    """Half-widths of the student's errors, by the spread of those that it learned from."""
    errors = simulate(np.random.default_rng(0), 40)
    atoms = ethanol(one(models))
    atoms.calc.calibration = calibrated(errors)
    ensemble = SchNetEnsembleCalculator(models)
    dynamics = verlet(atoms)
    dynamics.attach(UncertaintyMonitor(atoms, ensemble=ensemble, interval=10, threshold=1e-6))
    dynamics.run(1)
    frame = read("flagged.extxyz")
    calibration, deviation = atoms.calc.calibration, frame.arrays["schnet_forces_deviation"]
    np.testing.assert_allclose(
        frame.arrays["schnet_forces_uncertainty"],
        calibration.forces_half_width(deviation, frame.numbers, calibration.coverage),
        rtol=1e-5,
        atol=1e-7,
    )
    width = calibration.energy.half_width(frame.info["schnet_energy_std"], calibration.coverage)
    assert frame.info["schnet_energy_uncertainty"] == pytest.approx(float(width), rel=1e-5)
