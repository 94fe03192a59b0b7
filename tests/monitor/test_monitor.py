"""The monitor: it flags what it should, when it should, and keeps it whole."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian, MirrorForce
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from schnet_ase import SchNetCalculator, UncertaintyExceeded, UncertaintyMonitor
from schnet_ase.errors import MonitorError
from tests.support.monitoring import middle, rows, run


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
