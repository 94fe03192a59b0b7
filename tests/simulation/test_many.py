"""Many structures: each is relaxed as it is alone, a failure is named, and a killed run resumes."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from schnet_ase.calculators.predictor import Predictor
from schnet_ase.simulation.each import KEPT, label
from schnet_ase.simulation.many import Outcome, Settings, relax_many
from schnet_ase.simulation.starts import starts
from tests.support.frames import write_run


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A small ensemble."""
    from schnet_ase.training import crossval, load_config

    folder = tmp_path_factory.mktemp("many")
    return crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1).path


@pytest.fixture
def frames():
    """Three ethanols, one with an element that the model does not know, one collapsed."""
    made = []
    for seed in range(3):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.03, seed=seed)
        made.append(atoms)
    collapsed = molecule("CH3CH2OH")
    collapsed.positions *= 0.0
    return [made[0], Atoms("CU", [(0, 0, 0), (2, 0, 0)], info={"name": "carbide"}), made[1], collapsed, made[2]]


def test_each_is_relaxed_and_failures_are_named(entry, frames, tmp_path):
    settings = Settings(str(entry), fmax=0.05)
    outcomes = relax_many(frames, settings, tmp_path / "out", workers=1)
    assert [o.status for o in outcomes] == ["relaxed", "refused", "relaxed", "refused", "relaxed"]
    assert "not trained on U" in outcomes[1].remark
    assert label(outcomes[1]) == "structure 1 (carbide)"
    assert [o.minima_deviation_A >= 0.0 for o in outcomes] == [o.status == "relaxed" for o in outcomes]
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [o.status for o in outcomes]
    assert min(float(row["above_lowest_eV"]) for row in rows if row["status"] == "relaxed") == 0.0
    relaxed = read(tmp_path / "out.xyz", ":")
    assert len(relaxed) == 3
    for atoms in relaxed:
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.05
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / f"out{KEPT}").exists()


def test_a_record_that_cannot_be_read_is_named_and_ends_nothing(entry, frames, tmp_path):
    found = [frames[0], Atoms(info={"unreadable": "a.sdf: record 1 is no molfile"}), frames[2]]
    outcomes = relax_many(found, Settings(str(entry), fmax=0.05), tmp_path / "out", workers=1)
    assert [o.status for o in outcomes] == ["relaxed", "refused", "relaxed"]
    remarks = ["", found[1].info["unreadable"], ""]
    assert [o.remark for o in outcomes] == remarks
    assert [start.refusal for start in starts(Predictor(str(entry)), found)] == remarks


def test_what_is_done_is_not_done_again(entry, frames, tmp_path):
    """A run that stops after two structures, in the middle of writing a third, resumes with the first two."""
    settings = Settings(str(entry), fmax=0.05)
    expected = relax_many(frames, settings, tmp_path / "whole", workers=1)

    class Stop(Exception):
        pass

    def stop(outcome):
        if outcome.number == 1:
            raise Stop

    with pytest.raises(Stop):
        relax_many(frames, settings, tmp_path / "out", workers=1, report=stop)
    kept = tmp_path / f"out{KEPT}"
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 3  # the identity of the run comes first
    marked = Outcome(*json.loads(lines[1]))._replace(remark="kept")
    kept.write_text("".join([lines[0], json.dumps(tuple(marked)) + "\n", lines[2], '[2, "half']))
    outcomes = relax_many(frames, settings, tmp_path / "out", workers=1)
    assert outcomes[0].remark == "kept"
    assert [o.energy_eV for o in outcomes] == pytest.approx([o.energy_eV for o in expected], nan_ok=True)
    with pytest.raises(Stop):
        relax_many(frames, settings, tmp_path / "out", workers=1, report=stop)
    other = relax_many(frames, settings._replace(fmax=0.2), tmp_path / "out", workers=1)
    assert other[0].energy_eV > expected[0].energy_eV  # another run, hence begun anew


def test_a_killed_command_resumes(entry, frames, tmp_path):
    """The command itself, after kill -9, ends with the table of an uninterrupted one in two processes."""
    write(tmp_path / "many.extxyz", [frames[0], frames[2], frames[4]] * 3)
    command = [sys.executable, "-m", "schnet_ase", "relax", entry, "many.extxyz", "--fmax", "0.05", "--workers"]
    kept = tmp_path / f"out{KEPT}"
    with subprocess.Popen([*command, "1", "--output", "out"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not (kept.exists() and kept.read_text().count("\n") > 2):
            pass
        process.kill()
    assert kept.exists()
    before = kept.read_text().splitlines()
    subprocess.run([*command, "1", "--output", "out"], cwd=tmp_path, check=True, capture_output=True)
    assert len(before) < 10
    subprocess.run([*command, "2", "--output", "whole"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()
