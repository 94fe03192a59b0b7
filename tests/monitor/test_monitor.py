"""The monitor: flags what it should, keeps it whole, and loses nothing."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.mixing import LinearCombinationCalculator, SumCalculator
from ase.constraints import FixAtoms, FixCartesian, MirrorForce
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, UncertaintyExceeded, UncertaintyMonitor
from schnet_ase.errors import MonitorError
from schnet_ase.monitor.statistics import look


@pytest.fixture
def atoms(make_model, tmp_path, monkeypatch):
    """Ethanol in motion with an untrained ensemble of small forces; files go into an empty folder."""
    monkeypatch.chdir(tmp_path)
    atoms = molecule("CH3CH2OH")
    models = [make_model(seed) for seed in range(3)]
    for model in models:
        model.scale.fill_(0.05)
    atoms.calc = SchNetEnsembleCalculator(models)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    return atoms


def run(atoms, steps, **arguments):
    """Verlet dynamics with a monitor; every step's positions, momenta and deviations beside it."""
    frames = []
    monitor = UncertaintyMonitor(atoms, **arguments)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(monitor)
    dynamics.attach(
        lambda: frames.append((atoms.get_positions(), atoms.get_momenta(), atoms.calc.results["forces_deviation"]))
    )
    dynamics.run(steps)
    return monitor, frames


def rows(file="uncertainty.csv"):
    with open(file) as lines:
        return list(csv.DictReader(lines))


def middle(atoms, steps=60):
    """A threshold that some frames of the run exceed and some do not."""
    start = atoms.copy()
    start.calc = atoms.calc
    _, frames = run(start, steps, threshold=1e6, log="probe.csv")
    return float(np.median([deviation.max() for _, _, deviation in frames]))


@pytest.mark.parametrize("lost", [None, 0, 3, 5])
def test_a_look_is_what_numpy_says(lost):
    """The first of the watched atoms without a number counts as the largest, as NumPy has it."""
    rng = np.random.default_rng(0)
    deviation, momenta, inverse_masses = rng.uniform(size=6), rng.normal(size=(6, 3)), rng.uniform(0.1, 1.0, 6)
    if lost is not None:
        deviation[lost:] = np.nan
    for watched in (np.arange(6), np.array([1, 4]), np.array([5])):
        kinetic, atom, largest, smallest = look(deviation, watched, momenta, inverse_masses)
        assert kinetic == pytest.approx(np.sum(momenta**2 * inverse_masses[:, None]), rel=1e-14)
        assert atom == watched[deviation[watched].argmax()]
        np.testing.assert_equal((largest, smallest), (deviation[watched].max(), deviation[watched].min()))


def test_every_step_is_logged_and_classed(atoms):
    threshold = middle(atoms)
    monitor, frames = run(atoms, 60, threshold=threshold)
    log = rows()
    largest = np.array([deviation.max() for _, _, deviation in frames])
    assert [int(row["step"]) for row in log] == list(range(61))
    np.testing.assert_allclose([float(row["time_fs"]) for row in log], 0.5 * np.arange(61))
    np.testing.assert_allclose([float(row["max_forces_deviation_eV_per_A"]) for row in log], largest, rtol=1e-5)
    assert [int(row["atom"]) for row in log] == [int(deviation.argmax()) for _, _, deviation in frames]
    assert [row["status"] == "candidate" for row in log] == list(largest > threshold)
    assert 0 < sum(largest > threshold) < 61
    assert float(log[-1]["temperature_K"]) == pytest.approx(atoms.get_temperature(), rel=1e-4)
    assert monitor.flags


@pytest.mark.parametrize("cooldown", [0, 7, 30])
def test_no_other_frame_in_the_cooldown(atoms, cooldown):
    threshold = middle(atoms)
    monitor, frames = run(atoms, 60, threshold=threshold, cooldown=cooldown)
    expected, quiet_until = [], 0
    for step, (_, _, deviation) in enumerate(frames):
        if deviation.max() > threshold and step >= quiet_until:
            expected.append(step)
            quiet_until = step + 1 + cooldown
    assert [flag.step for flag in monitor.flags] == expected
    assert expected


def test_flagged_frames_are_whole_and_come_with_their_context(atoms):
    threshold = middle(atoms)
    monitor, frames = run(atoms, 60, threshold=threshold, context=3, cooldown=10)
    written = read("flagged.extxyz", ":")
    candidates = [frame for frame in written if frame.info["schnet_status"] == "candidate"]
    assert [frame.info["step"] for frame in candidates] == [flag.step for flag in monitor.flags]
    steps = [frame.info["step"] for frame in written]
    assert steps == sorted(set(steps))  # in order, none twice
    later = [flag.step for flag in monitor.flags if flag.step >= 3][-1]
    assert {later - 3, later - 2, later - 1, later} <= set(steps)
    for frame in written:
        positions, momenta, deviation = frames[frame.info["step"]]
        np.testing.assert_allclose(frame.positions, positions, atol=1e-7)
        np.testing.assert_allclose(frame.get_momenta(), momenta, atol=1e-7)
        np.testing.assert_allclose(frame.arrays["schnet_forces_deviation"], deviation, atol=1e-7)
        assert frame.info["time_fs"] == pytest.approx(0.5 * frame.info["step"])
        again = atoms.copy()
        again.positions = positions
        again.calc = atoms.calc
        np.testing.assert_allclose(frame.get_forces(), again.get_forces(), atol=1e-5)
        assert frame.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-4)
        assert frame.info["schnet_energy_std"] == pytest.approx(again.calc.results["energy_std"], rel=1e-3)
    assert candidates[0].info["temperature_K"] == pytest.approx(candidates[0].get_temperature(), rel=1e-3)


def test_above_hi_has_failed_and_is_not_saved(atoms):
    largest = middle(atoms)
    monitor, _ = run(atoms, 40, threshold=(1e-3 * largest, 2e-3 * largest))
    assert {row["status"] for row in rows()} == {"failed"}
    assert [flag.status for flag in monitor.flags] == ["failed"]
    assert not os.path.exists("flagged.extxyz")


def test_a_deviation_that_is_no_number_has_failed(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1.0)
    atoms.get_forces()
    atoms.calc.results["forces_deviation"][4] = np.nan
    monitor()
    assert monitor.flags[0].status == "failed"
    assert not os.path.exists("flagged.extxyz")


def test_stop_raises_after_the_frame_is_on_disk(atoms):
    with pytest.raises(
        UncertaintyExceeded, match=r"step 0: .* above the threshold of 1e-06; frame written to .*here/f\.xyz"
    ):
        run(atoms, 10, threshold=1e-6, action="stop", file="here/f.xyz")
    assert read("here/f.xyz").info["step"] == 0


def test_a_function_gets_the_flag(atoms):
    seen = []
    monitor, _ = run(atoms, 5, threshold=1e-6, action=seen.append)
    assert seen == monitor.flags
    assert seen[0].deviation.shape == (9,)
    assert seen[0].largest == seen[0].deviation.max()


def test_only_the_atoms_asked_for_and_no_fixed_ones(atoms):
    run(atoms, 5, threshold=1e6, indices=[2, 3])
    assert {int(row["atom"]) for row in rows()} <= {2, 3}
    atoms.set_constraint(FixAtoms([2]))
    run(atoms, 5, threshold=1e6, indices=[2, 3], log="fixed.csv")
    assert {int(row["atom"]) for row in rows("fixed.csv")} == {3}


def test_steps_are_those_of_the_dynamics_when_it_is_attached_with_an_interval(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1e6)
    dynamics = VelocityVerlet(atoms, 2.0 * units.fs)
    dynamics.attach(monitor, interval=5)
    dynamics.run(20)
    assert [row["step"] for row in rows()] == ["0", "5", "10", "15", "20"]
    np.testing.assert_allclose([float(row["time_fs"]) for row in rows()], [0, 10, 20, 30, 40])


def test_own_interval(atoms):
    run(atoms, 10, threshold=1e6, interval=4)
    assert [row["step"] for row in rows()] == ["0", "4", "8"]


def test_langevin_and_optimizers(atoms):
    for k, make in enumerate(
        (lambda a: Langevin(a, units.fs, temperature_K=300, friction=0.1, fixcm=False), BFGS, FIRE)
    ):
        monitor = UncertaintyMonitor(atoms, threshold=1e-6, log=f"{k}.csv", file=f"{k}.extxyz")
        dynamics = make(atoms)
        dynamics.attach(monitor)
        dynamics.run(**({"steps": 5} if k == 0 else {"steps": 5, "fmax": 1e-9}))
        assert [row["step"] for row in rows(f"{k}.csv")] == list("012345")
        assert len(monitor.flags) == 1


def test_a_second_run_adds_to_log_and_frames(atoms):
    for _ in range(2):
        run(atoms, 3, threshold=1e-6)
    assert [row["step"] for row in rows()] == list("0123") * 2
    assert len(read("flagged.extxyz", ":")) == 2


def test_a_run_that_replaces_an_earlier_one(atoms):
    run(atoms, 3, threshold=1e-6)
    log, frames = Path("uncertainty.csv"), Path("flagged.extxyz")
    before = log.read_bytes(), frames.read_bytes()
    Path("folder").mkdir()
    for mistake in ({"threshold": "auto"}, {"threshold": 1.0, "file": "folder"}, {"threshold": 1.0, "log": "folder"}):
        with pytest.raises(MonitorError):
            UncertaintyMonitor(atoms, append=False, **mistake)
        assert (log.read_bytes(), frames.read_bytes()) == before
    run(atoms, 1, threshold=1e6, append=False)
    assert [row["step"] for row in rows()] == list("01")
    assert not frames.exists()


def test_a_process_that_goes_elsewhere(atoms, tmp_path, monkeypatch):
    monitor = UncertaintyMonitor(atoms, threshold=1e-6)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monitor()
    assert read(tmp_path / "flagged.extxyz").info["step"] == 0
    assert len(rows(tmp_path / "uncertainty.csv")) == 1
    assert not list(Path.cwd().iterdir())


def test_of_two_monitors_with_one_log_the_later_writes(atoms):
    first, other = (UncertaintyMonitor(atoms, threshold=1e-6, log=log) for log in ("uncertainty.csv", "other.csv"))
    first()
    frames = Path("flagged.extxyz").read_bytes()
    second = UncertaintyMonitor(atoms, threshold=1e6, log=Path("uncertainty.csv").absolute())
    with pytest.raises(MonitorError, match=r"uncertainty\.csv is that of a monitor made after this one") as caught:
        first()
    assert "\n" not in str(caught.value)
    del first, caught  # closes nothing of the second's
    second()
    assert [row["status"] for row in rows()] == ["candidate", "accurate"]
    assert Path("flagged.extxyz").read_bytes() == frames
    other()
    assert len(rows("other.csv")) == 1


def test_the_log_survives_a_kill(tmp_path):
    code = """
import sys
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from schnet_ase import SchNet, SchNetConfig, SchNetEnsembleCalculator, UncertaintyMonitor
atoms = molecule("CH3CH2OH")
atoms.calc = SchNetEnsembleCalculator([SchNet(SchNetConfig.small()) for _ in range(2)], engine="autograd")
dynamics = VelocityVerlet(atoms, 0.1 * units.fs)
dynamics.attach(UncertaintyMonitor(atoms, threshold=1e9))
dynamics.attach(lambda: print(dynamics.nsteps, flush=True))
dynamics.run(10**6)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        step = -1
        while step < 25:
            step = int(process.stdout.readline())
        process.kill()
        step = max(step, *map(int, process.stdout.read().split()), 0)
    log = rows(tmp_path / "uncertainty.csv")
    assert [int(row["step"]) for row in log[: step + 1]] == list(range(step + 1))


def test_auto_takes_the_threshold_of_the_calibration(atoms):
    atoms.calc.calibration = SimpleNamespace(threshold=lambda: 0.125)
    monitor = UncertaintyMonitor(atoms)
    assert (monitor.threshold, monitor.failed_above) == (0.125, 0.625)


def test_auto_saves_no_exploded_frame(atoms):
    atoms.get_forces()
    largest = atoms.calc.results["forces_deviation"].max()
    for share, status in ((0.19, "failed"), (0.21, "candidate")):
        atoms.calc.calibration = SimpleNamespace(threshold=lambda share=share: share * largest)
        monitor = UncertaintyMonitor(atoms)
        monitor()
        assert [flag.status for flag in monitor.flags] == [status]
        assert os.path.exists("flagged.extxyz") == (status == "candidate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": "auto"}, "threshold='auto' needs a calibrated ensemble; give threshold in eV/Å, or run"),
        ({"threshold": "high"}, "threshold is 'high'; expected 'auto'"),
        ({"threshold": -0.1}, "threshold is -0.1; expected 0 < lo < hi"),
        ({"threshold": float("nan")}, "threshold is nan; expected 0 < lo < hi"),
        ({"threshold": (0.2, 0.1)}, r"threshold is \(0.2, 0.1\); expected 0 < lo < hi"),
        ({"threshold": (0.1, 0.2, 0.3)}, "expected 0 < lo < hi"),
        ({"interval": 0}, "interval is 0; expected an integer of at least 1"),
        ({"context": -1}, "context is -1; expected an integer of at least 0"),
        ({"cooldown": 1.5}, "cooldown is 1.5; expected an integer of at least 0"),
        ({"action": "explode"}, "action is 'explode'; expected 'write', 'stop' or a function"),
        ({"indices": [9]}, "indices has atom 9, but there are 9 atoms"),
        ({"indices": [-1]}, r"indices is \[-1\]; expected at least one atom, counted from 0"),
        ({"indices": []}, r"indices is \[\]; expected at least one atom"),
        ({"indices": [0.5]}, r"indices is \[0.5\]"),
    ],
)
def test_mistakes(atoms, arguments, message):
    with pytest.raises(MonitorError, match=message) as caught:
        UncertaintyMonitor(atoms, **{"threshold": 0.1, **arguments})
    assert "\n" not in str(caught.value)
    assert not os.path.exists("uncertainty.csv")


def test_calculators_without_a_deviation(atoms, make_model):
    for calculator, name in ((SchNetCalculator(make_model(0)), "SchNetCalculator"), (EMT(), "EMT"), (None, "NoneType")):
        atoms.calc = calculator
        with pytest.raises(MonitorError, match=f"is {name}, which has no forces_deviation; use a SchNetEnsembleCalc"):
            UncertaintyMonitor(atoms, threshold=0.1)


def test_all_watched_atoms_fixed(atoms):
    atoms.set_constraint(FixAtoms([0, 1]))
    with pytest.raises(MonitorError, match="every atom to watch is fixed"):
        UncertaintyMonitor(atoms, threshold=0.1, indices=[0, 1])


def test_a_foreign_file_is_not_written_into(atoms, tmp_path):
    (tmp_path / "notes.csv").write_text("my,notes\n1,2\n")
    with pytest.raises(MonitorError, match="notes.csv is there and no log of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, log="notes.csv")
    assert (tmp_path / "notes.csv").read_text() == "my,notes\n1,2\n"


def test_atoms_held_in_all_directions_are_not_watched(atoms):
    atoms.set_constraint([FixCartesian([2]), FixCartesian([3], mask=(True, True, False))])
    run(atoms, 5, threshold=1e6, indices=[2, 3])
    assert {int(row["atom"]) for row in rows()} == {3}


def test_a_constraint_that_does_not_say_what_it_removes(atoms):
    atoms.set_constraint([FixAtoms([2]), MirrorForce(0, 1)])
    UncertaintyMonitor(atoms, threshold=1e-6)()
    atoms.set_constraint(FixAtoms([2]))
    written = read("flagged.extxyz")
    assert float(rows()[0]["temperature_K"]) == pytest.approx(atoms.get_temperature(), rel=1e-4)
    assert written.info["temperature_K"] == pytest.approx(atoms.get_temperature(), rel=1e-4)
    assert written.constraints[0].index.tolist() == [2]


def test_a_frame_that_the_calculator_refuses_has_failed(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1.0)
    atoms.positions[3, 1] = np.nan
    monitor()
    assert [flag.status for flag in monitor.flags] == ["failed"]
    assert rows()[0]["max_forces_deviation_eV_per_A"] == "nan"


def test_failing_is_flagged_in_the_cooldown_of_a_candidate(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=(1e-6, 1e6), cooldown=100)
    monitor()
    atoms.positions[3, 1] = np.nan
    monitor()
    assert [flag.status for flag in monitor.flags] == ["candidate", "failed"]


def test_by_way_of_a_function_the_steps_are_still_those_of_the_dynamics(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1e6)
    dynamics = VelocityVerlet(atoms, units.fs)
    dynamics.attach(lambda: monitor(), interval=3)
    dynamics.run(6)
    assert [row["step"] for row in rows()] == ["0", "3", "6"]


def test_what_a_killed_run_wrote_in_part_is_taken_away(atoms):
    run(atoms, 3, threshold=1e-6, cooldown=0)
    whole_log, whole_frames = Path("uncertainty.csv").read_bytes(), Path("flagged.extxyz").read_bytes()
    for cut in (2, 20):
        Path("uncertainty.csv").write_bytes(whole_log[:-cut])
        Path("flagged.extxyz").write_bytes(whole_frames[:-cut])
        UncertaintyMonitor(atoms, threshold=1e6)
        assert whole_log.startswith(Path("uncertainty.csv").read_bytes())
        assert len(rows()) == 3
        assert len(read("flagged.extxyz", ":")) == 3
    Path("uncertainty.csv").write_bytes(whole_log[:-1])
    Path("flagged.extxyz").write_bytes(whole_frames[:-1])  # as an editor may do
    UncertaintyMonitor(atoms, threshold=1e6)
    assert len(rows()) == 3
    assert Path("flagged.extxyz").read_bytes() == whole_frames


def test_frames_after_a_line_that_is_none_of_a_frame_are_not_taken_away(atoms):
    run(atoms, 3, threshold=1e-6, cooldown=0)
    frames = Path("flagged.extxyz").read_bytes()
    Path("flagged.extxyz").write_bytes(frames + b"\n" + frames)
    with pytest.raises(MonitorError, match=f"no number of atoms at byte {len(frames)}"):
        UncertaintyMonitor(atoms, threshold=1e6)
    assert Path("flagged.extxyz").read_bytes() == frames + b"\n" + frames


def test_a_calculator_that_is_exchanged_for_one_without_a_deviation(atoms, make_model):
    monitor = UncertaintyMonitor(atoms, threshold=1e6)
    monitor()
    atoms.calc = SchNetCalculator(make_model(0))
    with pytest.raises(MonitorError, match="is SchNetCalculator, which has no forces_deviation"):
        monitor()


@pytest.mark.parametrize(("before", "after"), [(9, 8), (8, 9), (1, 2)])
def test_atoms_that_were_added_or_removed(atoms, before, after):
    some = atoms[:before]
    some.calc = atoms.calc
    monitor = UncertaintyMonitor(some, threshold=1e6)
    if after < before:
        del some[after:]
    else:
        some.extend(atoms[before:after])
    with pytest.raises(MonitorError, match=f"{after} atoms now, but were {before} .*; make a monitor after") as caught:
        monitor()
    assert "\n" not in str(caught.value)
    assert not rows()


def test_files_of_others_are_left_alone(atoms):
    write("others.extxyz", atoms, format="extxyz")
    with pytest.raises(MonitorError, match=r"others\.extxyz is there and holds no frames of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, file="others.extxyz")
    Path("numbers.extxyz").write_text("20231128123000\n1\n2\n")
    with pytest.raises(MonitorError, match=r"numbers\.extxyz is there and holds no frames of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, file="numbers.extxyz")
    Path("others.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MonitorError, match=r"others\.csv is there and no log of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, log="others.csv")
    assert Path("others.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(MonitorError, match=r"file and log are both same"):
        UncertaintyMonitor(atoms, threshold=0.1, file="same", log="same")
    Path("folder.csv").mkdir()
    with pytest.raises(MonitorError, match=r"folder\.csv cannot be written"):
        UncertaintyMonitor(atoms, threshold=0.1, log="folder.csv")


@pytest.mark.parametrize("fixed", [False, True])
def test_an_atom_out_of_reach_has_no_spread_and_fails_its_frame(atoms, fixed):
    if fixed:
        atoms.set_constraint(FixAtoms([4]))
    monitor = UncertaintyMonitor(atoms, threshold=1e6)
    monitor()
    atoms.positions[4] += 100.0
    monitor()
    assert atoms.calc.results["forces_deviation"][4] == 0.0
    assert [(flag.status, flag.lone) for flag in monitor.flags] == ([] if fixed else [("failed", (4,))])
    assert not os.path.exists("flagged.extxyz")


def test_a_run_that_fell_apart_is_stopped(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1e6, action="stop")
    atoms.positions *= 100.0
    with pytest.raises(UncertaintyExceeded, match="failed, and atom 0 has no other within the cutoff; frame not saved"):
        monitor()


def test_one_atom_by_itself_has_not_failed(atoms):
    one = atoms[:1]
    one.calc = atoms.calc
    monitor = UncertaintyMonitor(one, threshold=1.0)
    monitor()
    assert not monitor.flags


def test_what_the_atoms_carry_neither_breaks_nor_enters_a_flagged_frame(atoms):
    atoms.info.update(energy=7.0, stress=[1.0] * 6, free_energy=3.0, notes="two\nlines", parts=[1, "a"], step=-1)
    atoms.set_array("forces", np.full((9, 3), 5.0))
    atoms.set_array("names", np.array([["a b", "c"]] * 9, dtype=object))
    atoms.set_initial_magnetic_moments(np.arange(9))
    atoms.set_masses([2.014 if z == 1 else None for z in atoms.numbers])
    atoms.set_constraint(FixAtoms([1]))
    run(atoms, 3, threshold=(1e-6, 1e6), cooldown=0)
    frames = read("flagged.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 1, 2, 3]
    again = atoms.copy()
    again.calc = atoms.calc
    assert frames[-1].get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(frames[-1].get_forces(), again.get_forces(), atol=1e-5)
    np.testing.assert_array_equal(frames[-1].arrays["initial_magmoms"], np.arange(9))
    np.testing.assert_allclose(frames[-1].get_masses(), atoms.get_masses())
    assert frames[-1].constraints[0].index.tolist() == [1]
    assert not {"notes", "parts", "names"} & {*frames[-1].info, *frames[-1].arrays}


def test_momenta_that_are_no_numbers_have_failed(atoms):
    monitor = UncertaintyMonitor(atoms, threshold=1e6)
    atoms.arrays["momenta"][2, 0] = np.nan
    monitor()
    assert [flag.status for flag in monitor.flags] == ["failed"]


def test_a_mask_of_atoms(atoms):
    run(atoms, 5, threshold=1e6, indices=[z == 8 for z in atoms.numbers])
    assert {int(row["atom"]) for row in rows()} == {2}
    with pytest.raises(MonitorError, match="or a mask"):
        UncertaintyMonitor(atoms, threshold=0.1, indices=[True] * 8)


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_processes_do_not_write_one_log(atoms):
    code = """
from schnet_ase.monitor.files import open_log
log = open_log(__import__("pathlib").Path("uncertainty.csv"), b"step\\n")
open("uncertainty.csv").read()  # as one looks at a log while it grows
print("open", flush=True)
input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(MonitorError, match=r"uncertainty\.csv is being written by another process; give another"):
            UncertaintyMonitor(atoms, threshold=0.1)
        with pytest.raises(MonitorError, match=r"uncertainty\.csv is being written by another process"):
            UncertaintyMonitor(atoms, threshold=0.1, append=False)
        assert Path("uncertainty.csv").read_text() == "step\n"
        process.communicate("\n")
    Path("uncertainty.csv").unlink()
    UncertaintyMonitor(atoms, threshold=0.1)


class Reused(Calculator):
    """A spring to the origin, whose arrays are those of the call before, as EMT's are."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - ASE's form

    def __init__(self):
        super().__init__()
        self.forces_array, self.stress_array = np.zeros((9, 3)), np.zeros(6)

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        self.forces_array[:] = -0.1 * atoms.positions
        self.stress_array[:] = atoms.positions[0, 0]
        energy = 0.05 * float((atoms.positions**2).sum())
        self.results = {"energy": energy, "forces": self.forces_array, "stress": self.stress_array}


def driven_by(atoms, kind):
    """What moves the atoms, the weights of the ensemble and of `Reused` in it, and the monitor's `ensemble`."""
    ensemble, other = atoms.calc, Reused()
    if kind == "sum":
        return SumCalculator([ensemble, other]), 1.0, 1.0, None
    if kind == "combination":
        return LinearCombinationCalculator([other, ensemble], [0.25, 0.5]), 0.5, 0.25, None
    if kind == "sum in a sum":
        return SumCalculator([SumCalculator([ensemble, other]), other]), 1.0, 2.0, None
    return other, 0.0, 1.0, ensemble


@pytest.mark.parametrize("kind", ["sum", "combination", "sum in a sum", "another"])
def test_an_ensemble_inside_or_beside_the_calculator_looks(atoms, kind):
    ensemble = atoms.calc
    atoms.set_cell([20.0] * 3)
    atoms.set_constraint(FixAtoms([8]))
    atoms.calc, ours, others, given = driven_by(atoms, kind)
    monitor = UncertaintyMonitor(atoms, threshold=1e-6, ensemble=given, context=3, interval=2)
    assert monitor.threshold == 1e-6
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(monitor)
    dynamics.run(2)  # a first flag: without context
    monitor.threshold, monitor.cooldown = 1e6, 0
    dynamics.run(6)
    monitor.threshold, monitor._quiet_until = 1e-6, {"candidate": -1, "failed": -1}
    dynamics.run(2)
    written = read("flagged.extxyz", ":")
    assert [frame.info["step"] for frame in written] == [0, 6, 7, 8, 9, 10]
    by_step = {int(row["step"]): row for row in rows()}
    reused = Reused()
    for frame in written:
        bare = frame.copy()
        bare.set_constraint()
        names = ("energy", "forces", "stress")
        alone, apart = ({name: calc.get_property(name, bare) for name in names} for calc in (ensemble, reused))
        deviation = ensemble.get_property("forces_deviation", bare)
        np.testing.assert_allclose(frame.arrays["schnet_forces_deviation"], deviation, atol=1e-6)
        if frame.info["step"] != 7:  # of the context, between two looks
            largest = float(by_step[frame.info["step"]]["max_forces_deviation_eV_per_A"])
            assert largest == pytest.approx(deviation[:8].max(), abs=1e-5)
        assert frame.info["schnet_energy_std"] == pytest.approx(ensemble.results["energy_std"], rel=1e-3)
        expected = {name: ours * alone[name] + others * apart[name] for name in names}
        assert frame.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-4)
        np.testing.assert_allclose(frame.get_forces(apply_constraint=False), expected["forces"], atol=1e-5)
        np.testing.assert_allclose(frame.get_stress(apply_constraint=False), expected["stress"], atol=1e-6)


def test_a_look_at_a_sum_computes_nothing_again(atoms, monkeypatch):
    ensemble, calls = atoms.calc, []
    calculate = ensemble.calculate
    monkeypatch.setattr(ensemble, "calculate", lambda *arguments: calls.append(1) or calculate(*arguments))
    atoms.calc = SumCalculator([ensemble, Reused()])
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(UncertaintyMonitor(atoms, threshold=1e6))
    dynamics.run(5)
    assert len(calls) == 6


def test_the_threshold_of_an_ensemble_inside_a_sum(atoms):
    atoms.calc.calibration = SimpleNamespace(threshold=lambda: 0.125)
    atoms.calc = SumCalculator([atoms.calc, Reused()])
    monitor = UncertaintyMonitor(atoms)
    assert (monitor.threshold, monitor.failed_above) == (0.125, 0.625)


def test_an_ensemble_that_refuses_a_frame_has_failed(atoms, make_model):
    models = [make_model(seed, envelope="none") for seed in range(2)]
    atoms.set_cell([20.0] * 3)
    atoms.pbc = True  # which a model without an envelope refuses
    atoms.calc = Reused()
    monitor = UncertaintyMonitor(atoms, threshold=1e6, ensemble=SchNetEnsembleCalculator(models))
    monitor()
    assert [flag.status for flag in monitor.flags] == ["failed"]


def test_calculators_of_which_it_is_not_clear_who_looks(atoms, make_model):
    first = atoms.calc
    second = SchNetEnsembleCalculator([make_model(seed) for seed in range(3, 6)])
    atoms.calc = SumCalculator([first, second])
    with pytest.raises(MonitorError, match=r"SumCalculator, which combines 2 ensembles; .* give one as ensemble=") as e:
        UncertaintyMonitor(atoms, threshold=0.1)
    assert "\n" not in str(e.value)
    monitor = UncertaintyMonitor(atoms, threshold=1e-6, ensemble=second)
    monitor()
    np.testing.assert_array_equal(monitor.flags[0].deviation, second.get_property("forces_deviation", atoms))
    atoms.calc = SumCalculator([Reused(), Reused()])
    with pytest.raises(MonitorError, match="SumCalculator, which has no forces_deviation"):
        UncertaintyMonitor(atoms, threshold=0.1)
    with pytest.raises(MonitorError, match="ensemble is Reused, which has no forces_deviation; give a SchNetEns"):
        UncertaintyMonitor(atoms, threshold=0.1, ensemble=Reused())
