"""What a checkpoint's header says of where its model comes from, as typed values and as the JSON of the file."""

import json
import math
from pathlib import Path

import pytest

from schnet_ase import SchNet, SchNetConfig, list_models, save_model
from schnet_ase.errors import CheckpointError
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.provenance import Identity, Origin, Provenance, Row
from schnet_ase.uncertainty.metrics import Errors
from tests.support.entries import one_line

CONFIG = SchNetConfig(n_features=4, n_interactions=1, n_rbf=4, cutoff=4.0, readout_features=4, max_z=10)
# The file format: every file has these keys, and what is known of the others.
ALWAYS = {
    *("config", "training", "seed", "data_sha256", "data_file", "data_units", "energy_key", "forces_key"),
    *("stress_key", "reference_energies", "training_frames", "validation_frames", "extra_file", "extra_sha256"),
    *("extra_parts", "initial_sha256", "data_parts", "initial_data", "formulas", "periodic"),
}
ROW = Row(10, 2.0, 1e-3, math.nan, 0.5, Errors(5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1.5)
FULL = Provenance(
    Identity(
        training={"steps": 20, "clip": math.inf},
        seed=3,
        data_sha256="ab",
        data_file="ethanol.extxyz",
        reference_energies={"H": -13.6},
        training_frames=(0, 2),
        validation_frames=(1,),
        extra_parts=("cd", "ef"),
    ),
    Origin(data_parts=("01",), formulas=("C2H6O",), periodic=False),
    learning_rate=1e-3,
    validation=ROW,
    versions={"torch": "2"},
)


def saved(path: Path, **metadata: object) -> Path:
    save_model(SchNet(CONFIG), path, **metadata)
    return path


def test_round_trip(tmp_path: Path) -> None:
    file = saved(tmp_path / "model.safetensors", **FULL.to_json())
    assert read_provenance(file).keys() == ALWAYS | {"learning_rate", "validation", "versions"}
    found = Provenance.read(file)
    # NaN is not equal to itself.
    assert found.validation is not None
    assert math.isnan(found.validation.training_loss)
    assert found.validation._replace(training_loss=0.0) == ROW._replace(training_loss=0.0)
    assert (found.identity, found.origin) == (FULL.identity, FULL.origin)
    assert (found.learning_rate, found.versions, found.name) == (1e-3, {"torch": "2"}, None)


def test_the_identity_is_plain_json() -> None:
    """A training state holds it as JSON, and the next start compares that with its own."""
    table = FULL.identity.to_json()
    assert json.loads(json.dumps(table)) == table
    assert table["training_frames"] == [0, 2]
    assert table["training"]["clip"] == math.inf


@pytest.mark.parametrize("metadata", [{}, {"scale": 2.0, "made_by": "hand", "identity": 1}], ids=str)
def test_file_that_says_nothing_of_a_training(tmp_path: Path, metadata: dict[str, object]) -> None:
    assert Provenance.read(saved(tmp_path / "model.safetensors", **metadata)) == Provenance()


def test_hashes() -> None:
    assert FULL.extra_hashes == {"cd", "ef"}
    assert FULL.all_hashes == {"ab", "01", "cd", "ef"}


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        ({"training_frames": "all"}, "training_frames = 'all'"),
        ({"formulas": ["C2H6O", 1]}, "formulas.1 = 1"),
        ({"validation": {"step": 1}}, "validation.epoch"),
    ],
)
def test_value_of_another_kind(tmp_path: Path, metadata: dict[str, object], key: str) -> None:
    file = saved(tmp_path / "model.safetensors", **metadata)
    with pytest.raises(CheckpointError) as caught:
        Provenance.read(file)
    message = one_line(caught)
    assert message.startswith(f"{file}: provenance has {key}")


def test_shipped_files_are_read() -> None:
    """Most were written before several of the keys were."""
    for card in list_models():
        for member in card.members:
            table, found = read_provenance(card.path / member.file), Provenance.read(card.path / member.file)
            for key, value in {**table, "name": f"{card.name}/{Path(member.file).stem}"}.items():
                part = next(x for x in (found.identity, found.origin, found) if hasattr(x, key))
                assert json.loads(json.dumps(getattr(part, key))) == value, key
