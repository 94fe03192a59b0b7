"""Registry entries of tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import molecule

from schnet_ase import SchNet, SchNetConfig, save_model
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, Member, Metrics, Structure, TrainingData, write_card
from schnet_ase.uncertainty.metrics import Errors

CONFIG = SchNetConfig(n_features=4, n_interactions=1, n_rbf=4, cutoff=4.0, readout_features=4, max_z=10)


def errors(force: float | None, energy: float | None = 0.1) -> Errors:
    return Errors(5, energy, energy, energy, energy, force, force)


def save_member(path: Path, scale: float) -> None:
    """A model that `scale` tells from the others."""
    model = SchNet(CONFIG)
    model.elements = (1, 6, 8)
    model.scale.fill_(scale)
    save_model(model, path, scale=scale)


def make_entry(
    root: Path, name: str = "ethanol", validation: tuple[Errors, ...] = (errors(0.3), errors(0.1), errors(0.2))
) -> Card:
    """Write an entry ``root/name`` whose member k has the scale k + 1."""
    folder = root / name
    members = []
    for k, member_errors in enumerate(validation):
        file = folder / f"fold-{k}.safetensors"
        save_member(file, k + 1.0)
        members.append(Member(file.name, sha256(file), member_errors, errors(0.15), 60.0))
    card = Card(
        name=name,
        elements=("H", "C", "O"),
        data=TrainingData(
            description="made by the tests",
            file="ethanol.npz",
            sha256="00" * 32,
            test_file=None,
            test_sha256=None,
            units="Å, kcal/mol, kcal/mol/Å",
            level_of_theory="none",
            temperature="500 K",
            licence="none",
            n_frames=1000,
            energy_min=-4210.0,
            energy_max=-4209.0,
            split="3 random folds",
        ),
        members=tuple(members),
        metrics=Metrics(calibration=errors(0.05), test=None),
        structure=Structure.from_atoms(molecule("CH3CH2OH")),
        command="schnet-ase crossval ethanol.toml",
        versions={"torch": "2"},
    )
    write_card(card, folder)
    return replace(card, path=folder)


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
