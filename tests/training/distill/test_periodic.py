"""Distillation of an ensemble for a crystal: its stress is learned too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from schnet_ase import SchNet, SchNetConfig, SchNetEnsembleCalculator, save_model
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Structure, write_card
from schnet_ase.training.distill import distill, load_student_config
from schnet_ase.training.distill.labelled import load_labelled
from tests.support.entries import make_entry
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
