"""Dynamics of many structures: each runs as it does alone, a failure is named, and an interrupted call resumes."""

import csv

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from schnet_ase import SchNetEnsembleCalculator, structure
from schnet_ase.simulation.dynamics import run_md
from schnet_ase.simulation.each import KEPT, label
from schnet_ase.simulation.many_md import Settings, md_many
from tests.support.frames import write_run


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A small ensemble."""
    from schnet_ase.training import crossval, load_config

    folder = tmp_path_factory.mktemp("many")
    return crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1).path


@pytest.fixture
def frames(entry):
    """Two ethanols, one with an element that the model does not know, one whose atoms fly apart."""
    fast = structure(entry)
    fast.set_momenta(50.0 * np.ones((9, 3)) * np.arange(9)[:, None])
    uranium = Atoms("CU", [(0, 0, 0), (2, 0, 0)], info={"name": "carbide"})
    return [structure(entry), uranium, structure(entry), fast]


def settings(entry, output):
    return Settings(str(entry), str(output), 20, thermostat=True, seed=3, interval=5)


def test_each_runs_as_it_does_alone_and_failures_are_named(entry, frames, tmp_path):
    outcomes = md_many(frames, settings(entry, tmp_path / "out"), workers=1)
    assert [o.status for o in outcomes] == ["finished", "refused", "finished", "stopped"]
    assert "not trained on U" in outcomes[1].remark
    assert label(outcomes[1]) == "structure 1 (carbide)"
    alone = frames[2].copy()
    alone.calc = SchNetEnsembleCalculator(entry, dtype="float32", threads=1)
    rows = run_md(alone, tmp_path / "alone", steps=20, thermostat=True, seed=5, interval=5)
    found = read(tmp_path / "out.xyz", ":")
    assert len(found) == 2
    np.testing.assert_allclose(found[1].positions, alone.positions, rtol=0.0, atol=1e-7)
    np.testing.assert_allclose(found[1].get_momenta(), alone.get_momenta(), rtol=0.0, atol=1e-7)
    assert not np.allclose(found[0].positions, found[1].positions)  # each has a seed of its own
    assert outcomes[2].time_ps == pytest.approx(0.01)
    assert outcomes[2].max_forces_deviation_eV_per_A == max(row.max_forces_deviation_eV_per_A for row in rows)
    assert len(read(tmp_path / "out-2.traj", ":")) == 5
    with open(tmp_path / "out.csv") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [o.status for o in outcomes]
    assert not (tmp_path / f"out{KEPT}").exists()


def test_what_is_done_is_not_done_again(entry, frames, tmp_path):
    class Stop(Exception):
        pass

    def stop(outcome):
        if outcome.number == 1:
            raise Stop

    with pytest.raises(Stop):
        md_many(frames[:3], settings(entry, tmp_path / "out"), workers=1, report=stop)
    done = (tmp_path / "out-0.traj").stat().st_mtime_ns
    outcomes = md_many(frames[:3], settings(entry, tmp_path / "out"), workers=1)
    assert [o.status for o in outcomes] == ["finished", "refused", "finished"]
    assert (tmp_path / "out-0.traj").stat().st_mtime_ns == done
    with pytest.raises(Stop):
        md_many(frames[:3], settings(entry, tmp_path / "out"), workers=1, report=stop)
    frames[0].set_momenta(0.1 * np.ones((9, 3)))  # another run, hence begun anew
    md_many(frames[:3], settings(entry, tmp_path / "out"), workers=1)
    np.testing.assert_array_equal(read(tmp_path / "out-0.traj", 0).get_momenta(), 0.1)


def test_the_command(entry, frames, tmp_path, run, mistake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("many.extxyz", [frames[0], molecule("CH3SH"), frames[2]])
    arguments = ("md", entry, "many.extxyz", "--steps", 10, "--thermostat", "--each", "--output", "out")
    status, out, _ = run(*arguments, "--workers", 1)
    assert status == 0
    assert "structure 1 CH4S refused: the model was not trained on S" in out
    assert "2 of 3 runs finished" in out
    assert "--overwrite" in mistake(*arguments)
    assert "leave it out" in mistake(*arguments[:-1], "new", "--monitor")
    assert "add --each" in mistake("md", entry, "--workers", 2, "--output", "new")
    write("none.extxyz", [molecule("CH3SH"), molecule("SO2")])
    _, _, said = run("md", entry, "none.extxyz", "--each", "--output", "none", "--workers", 1)
    assert "none of the 2 runs finished; none.csv says why" in said
