"""Flagged frames of a run in LAMMPS are read back as frames to label, without an energy that is not there."""

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from schnet_ase import save_model
from schnet_ase.data import read_dataset
from schnet_ase.export.lammps import write_model_file
from schnet_ase.export.lammps.input import Run, write_input
from schnet_ase.learn.start import read_start
from tests.support.lammps import run_lammps, trained


@pytest.fixture
def flagged(tmp_path, plugin, members):
    """The folder of a run of 40 steps that flags every tenth, stopped at the second of these."""
    atoms = molecule("CH3CH2OH")
    write_model_file(tmp_path / "model", members, name="three")
    run = Run(300.0, 0.5, 40, threshold=1e-9, stop=False)
    files = write_input(tmp_path / "run", atoms, tmp_path / "model", plugin, run, members=3)
    result = run_lammps(tmp_path, files.input.read_text(), ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    return tmp_path


def test_flagged_frames_are_read_to_be_labelled(flagged):
    dump = flagged / "run.flagged.dump"
    frames = read_start(dump)
    assert len(frames) == 5  # steps 0, 10, ... 40
    assert all(frame.calc is None and not frame.pbc.any() for frame in frames)
    assert frames[0].get_chemical_symbols() == molecule("CH3CH2OH").get_chemical_symbols()
    distances = molecule("CH3CH2OH").get_all_distances()
    np.testing.assert_allclose(frames[0].get_all_distances(), distances, rtol=0, atol=1e-8)
    assert all(frame.energy is None and frame.forces is None for frame in read_dataset(dump).frames)
    for frame in frames:
        frame.calc = EMT()
        frame.get_forces()
    ase.io.write(flagged / "labelled.extxyz", frames)
    labelled = read_dataset(flagged / "labelled.extxyz").frames
    assert [frame.energy for frame in labelled] == pytest.approx([frame.get_potential_energy() for frame in frames])


def test_a_dump_with_forces_has_no_energies(flagged):
    """ASE gives each of its frames an energy of zero."""
    text = (flagged / "run.dump").read_text().replace("vx vy vz", "fx fy fz")
    (flagged / "forces.dump").write_text(text)
    assert ase.io.read(flagged / "forces.dump", 0).get_potential_energy() == 0.0
    assert all(frame.energy is None for frame in read_dataset(flagged / "forces.dump").frames)
    assert all(frame.calc is None for frame in read_start(flagged / "forces.dump"))


def test_a_run_stops_at_a_flag(tmp_path, plugin, members):
    write_model_file(tmp_path / "model", members, name="three")
    run = Run(300.0, 0.5, 400, threshold=1e-9, stop=True)
    files = write_input(tmp_path / "run", molecule("H2O"), tmp_path / "model", plugin, run, members=3)
    result = run_lammps(tmp_path, files.input.read_text())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fix halt" in result.stdout.lower()
    assert len(ase.io.read(tmp_path / "run.flagged.dump", ":")) == 2  # the start, and the step that ended it
    assert (tmp_path / "run.end.data").exists()


def test_stopping_needs_a_calibration(tmp_path, plugin, make_model, mistake):
    save_model(trained(make_model(0)), tmp_path / "one.safetensors")
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    model, prefix = tmp_path / "one.safetensors", tmp_path / "run"
    said = mistake("lammps", "input", tmp_path / "water.xyz", model, "--stop", "--output", prefix)
    assert "needs a calibration" in said
