"""md --monitor of an entry with a student: that moves the atoms, and the members look at intervals."""

import csv
import shutil
from pathlib import Path

import pytest
from ase.io import read

from schnet_ase import SchNetCalculator
from schnet_ase.registry import loading
from schnet_ase.registry.loading import find


@pytest.fixture
def with_student(tmp_path, monkeypatch, models):
    """The entry's name gives a network that is none of the members."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(models))
    student = Path(shutil.copy(find("ethanol-emt").path, tmp_path / "student.safetensors"))

    def with_one(name, **options):
        found = find(name, **options)
        return found._replace(path=student) if str(name) == "ethanol-emt" else found

    monkeypatch.setattr(loading, "find", with_one)
    monkeypatch.setattr("schnet_ase.calculators.single.find", with_one)


def rows(file):
    with open(file) as lines:
        return list(csv.DictReader(lines))


def test_the_student_moves_the_atoms_and_the_members_look(with_student, run):
    arguments = ("md", "ethanol-emt", "--steps", 25, "--thermostat", "--temperature", 300)
    status, out, said = run(*arguments, "--interval", 5, "--monitor", "--threshold", 1e6)
    assert status == 0, said
    assert "the student of ethanol-emt moves the atoms, and its 4 members check every 5 steps" in out
    assert [row["step"] for row in rows("ethanol-emt-md-uncertainty.csv")] == ["0", "5", "10", "15", "20", "25"]
    looked = [float(row["max_forces_deviation_eV_per_A"]) for row in rows("ethanol-emt-md-uncertainty.csv")]
    logged = [float(row["max_forces_deviation_eV_per_A"]) for row in rows("ethanol-emt-md.csv")]
    assert logged == pytest.approx(looked, rel=1e-5)
    assert min(looked) > 0.0
    frame = read("ethanol-emt-md.traj")
    moved = frame.copy()
    moved.calc = SchNetCalculator("ethanol-emt")
    assert frame.get_potential_energy() == pytest.approx(moved.get_potential_energy(), abs=1e-4)


def test_a_flag_between_two_looks(with_student, run):
    arguments = ("md", "ethanol-emt", "--steps", 25, "--thermostat", "--temperature", 300, "--monitor")
    status, out, said = run(*arguments, "--threshold", 1e-9)
    assert status == 0, said
    assert "1 flagged, at most one in 100 steps" in out
    status, out, said = run(*arguments, "--threshold", 1e-9, "--stop", "--overwrite")
    assert status == 0, said
    assert "stopped: step 0:" in out


def test_without_a_monitor_the_mean_moves_them(with_student, run):
    status, out, said = run("md", "ethanol-emt", "--steps", 2, "--thermostat", "--temperature", 300)
    assert status == 0, said
    assert "student" not in out
    assert all(float(row["max_forces_deviation_eV_per_A"]) > 0.0 for row in rows("ethanol-emt-md.csv"))
