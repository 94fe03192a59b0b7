"""Distillation of an ensemble for a crystal, whose stress is learned too, and of one for several molecules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write

from schnet_ase import SchNet, SchNetConfig, SchNetEnsembleCalculator, save_model
from schnet_ase.data import read_dataset
from schnet_ase.errors import TrainingError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Structure, write_card
from schnet_ase.training import crossval, load_config
from schnet_ase.training.distill import distill, load_student_config
from schnet_ase.training.distill.labelled import load_labelled
from schnet_ase.training.distill.teacher import Teacher
from tests.support.entries import make_entry, one_line
from tests.support.frames import TOML, labelled_ethanol
from tests.training.distill.conftest import SAMPLING, STUDENT

CONFIG = SchNetConfig(n_features=4, n_interactions=1, n_rbf=4, cutoff=3.0, envelope="cosine", max_z=10)


@pytest.fixture
def diamond(tmp_path, quick):
    """Three untrained networks whose forces are too weak to move a carbon atom far."""
    card = make_entry(tmp_path / "models", "diamond")
    members = []
    for k, member in enumerate(card.members):
        torch.manual_seed(k)
        model = SchNet(CONFIG)
        model.elements = (6,)
        model.scale.fill_(0.1)
        save_model(model, card.path / member.file)
        members.append(replace(member, sha256=sha256(card.path / member.file)))
    atoms = bulk("C", cubic=True)
    write_card(replace(card, members=tuple(members), structure=Structure.from_atoms(atoms)), card.path)
    return card.path


def test_the_stress_is_the_ensembles_and_is_learned(diamond, tmp_path):
    (tmp_path / "student.toml").write_text(STUDENT)
    config = load_student_config(str(diamond), tmp_path / "student.toml")
    assert config.training.stress_weight > 0.0
    made = distill(str(diamond), tmp_path / "run", config, sampling=SAMPLING)
    assert made.student.validation.stress_mae is not None
    calculator = SchNetEnsembleCalculator(diamond, dtype="float64", engine="autograd")
    for file in (tmp_path / "run" / "frames").glob("*.npz"):
        for frame in load_labelled(file).frames():
            atoms = frame.atoms()
            atoms.calc = calculator
            assert atoms.pbc.all()
            assert np.abs(atoms.get_stress()).max() > 1e-5
            assert frame.stress == pytest.approx(atoms.get_stress(), abs=1e-7, rel=1e-3)


def test_each_molecule_has_runs_of_its_own(tmp_path, quick):
    both = [*labelled_ethanol(20), *labelled_ethanol(20, seed=1, name="CH3OH")]
    write(tmp_path / "both.extxyz", both)
    toml = TOML.replace("ethanol.extxyz", "both.extxyz").replace('test = "test.extxyz"\n', "by_molecule = true\n")
    (tmp_path / "run.toml").write_text(toml.replace("calibration = 10", "calibration = 0"))
    card = crossval(load_config(tmp_path / "run.toml"), tmp_path / "run", tmp_path / "models", workers=1)
    assert card.data.formulas == ("C2H6O", "CH4O")
    (tmp_path / "student.toml").write_text(STUDENT)
    config = load_student_config(str(card.path), tmp_path / "student.toml")
    with pytest.raises(
        TrainingError, match="knows 2 compositions, but its card has the structure of one only; to"
    ) as caught:
        distill(str(card.path), tmp_path / "s", config, sampling=SAMPLING)
    one_line(caught)
    made = distill(str(card.path), tmp_path / "s", config, sampling=SAMPLING, data_root=tmp_path)
    lengths = [len(load_labelled(file).numbers) for file in sorted((tmp_path / "s" / "frames").glob("*.npz"))]
    first = len(card.structure.numbers)
    assert lengths == [first, 15 - first] * 5
    assert made.student.test is None
    assert "and 40 that the members learned from" in made.student.frames
    teacher, frames = Teacher.of(str(card.path)), read_dataset(tmp_path / "both.extxyz").frames
    assert [len(teacher.starts(frames, most)) for most in (1, 2, 3)] == [1, 2, 2]
