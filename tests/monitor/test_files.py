"""The monitor's log and frames: nothing is lost, and nobody else's file is touched."""

import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read, write

from schnet_ase import UncertaintyMonitor
from schnet_ase.errors import MonitorError
from tests.support.monitoring import rows, run


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
    with pytest.raises(MonitorError, match=r"uncertainty\.csv belongs to a monitor made after this one") as caught:
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


def test_a_foreign_file_is_not_written_into(atoms, tmp_path):
    (tmp_path / "notes.csv").write_text("my,notes\n1,2\n")
    with pytest.raises(MonitorError, match="notes.csv exists and is no log of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, log="notes.csv")
    assert (tmp_path / "notes.csv").read_text() == "my,notes\n1,2\n"


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


def test_files_of_others_are_left_alone(atoms):
    write("others.extxyz", atoms, format="extxyz")
    with pytest.raises(MonitorError, match=r"others\.extxyz exists and has no frames of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, file="others.extxyz")
    Path("numbers.extxyz").write_text("20231128123000\n1\n2\n")
    with pytest.raises(MonitorError, match=r"numbers\.extxyz exists and has no frames of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, file="numbers.extxyz")
    Path("others.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MonitorError, match=r"others\.csv exists and is no log of a monitor"):
        UncertaintyMonitor(atoms, threshold=0.1, log="others.csv")
    assert Path("others.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(MonitorError, match=r"file and log are both same"):
        UncertaintyMonitor(atoms, threshold=0.1, file="same", log="same")
    Path("folder.csv").mkdir()
    with pytest.raises(MonitorError, match=r"folder\.csv cannot be written"):
        UncertaintyMonitor(atoms, threshold=0.1, log="folder.csv")


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
