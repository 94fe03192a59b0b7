"""One ensemble for several molecules beside one for each."""

import csv
from dataclasses import replace

import pytest
import transferable
from ase.io import read
from click.testing import CliRunner

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Metrics, write_card
from schnet_ase.registry.checkpoint import load_checkpoint, save_model
from tests.support.entries import errors, make_entry
from tests.support.frames import write_ethanol


def test_errors_beside_those_of_the_own_ensemble(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    files = [write_ethanol(tmp_path / f"{name}.extxyz", 5, seed=k) for k, name in enumerate(("known", "unknown"))]
    make_entry(tmp_path / "models", "all")
    own = make_entry(tmp_path / "models", "own")
    arguments = ["all", *map(str, files), "--output", str(tmp_path)]
    alone = CliRunner().invoke(transferable.main, arguments)
    assert alone.exit_code == 2
    assert "no installed entry was tested on one of these files" in alone.output
    data = replace(own.data, test_file="known.extxyz", test_sha256=sha256(files[0]))
    write_card(replace(own, data=data, metrics=Metrics(None, errors(0.2, 0.4))), own.path)
    result = CliRunner().invoke(transferable.main, arguments)
    assert result.exit_code == 0, result.output
    with (tmp_path / "transferable.csv").open() as file:
        known, unknown = list(csv.reader(file))[1:]
    force, energy = 0.0, 0.0
    for atoms in read(files[0], ":"):
        reference = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SchNetEnsembleCalculator("all", dtype="float64")
        energy += abs(atoms.get_potential_energy() - reference[0]) / 5
        force += abs(atoms.get_forces() - reference[1]).mean() / 5
    assert known[:2] == ["known.extxyz", "own"]
    assert [float(x) for x in known[2:]] == pytest.approx(
        [1000 * energy, 400.0, energy / 0.4, 1000 * force, 200.0, force / 0.2], rel=2e-3, abs=6e-3
    )
    assert unknown[:2] == ["unknown.extxyz", ""]
    assert unknown[3:5] == ["", ""]
    assert ("more than 1.5 times those" in result.output) == (force / 0.2 > 1.5)


def test_of_a_file_that_was_trained_on_only_frames_kept_for_calibration_count(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    file = write_ethanol(tmp_path / "known.extxyz", 6)
    make_entry(tmp_path / "models", "all")
    own = make_entry(tmp_path / "models", "own", (errors(0.1),))
    member = own.path / own.members[0].file
    frames = {"training_frames": [0, 2], "validation_frames": [4, 5]}
    save_model(load_checkpoint(member), member, data_sha256=sha256(file), **frames)
    data, members = replace(own.data, sha256=sha256(file)), (replace(own.members[0], sha256=sha256(member)),)
    write_card(replace(own, data=data, members=members, metrics=Metrics(errors(0.2, 0.4), None)), own.path)
    (compared,) = transferable.compare("all", [file])
    assert (compared.owner, compared.own) == ("own", errors(0.2, 0.4))
    energies = []
    for atoms in read(file, ":")[1:4:2]:
        reference = atoms.get_potential_energy()
        atoms.calc = SchNetEnsembleCalculator("all", dtype="float64")
        energies.append(abs(atoms.get_potential_energy() - reference))
    assert compared.together.n_frames == 2
    assert compared.together.energy_mae == pytest.approx(sum(energies) / 2, rel=1e-5)
