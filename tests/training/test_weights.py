"""How much frames count: by their file, by their formula and by their kind of configuration."""

import numpy as np
import pytest
import torch

from schnet_ase import SchNetConfig
from schnet_ase.data import Dataset, Frame, TrainingSplit
from schnet_ase.data.batches import collate, make_examples
from schnet_ase.errors import ConfigError, DataError
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.training import TrainingConfig, load_config, train
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.training.step.loss import LossTerms, frame_losses
from schnet_ase.training.step.weights import check_weights, frame_weight
from tests.support.frames import labelled_ethanol, write_run

SMALL = SchNetConfig(n_features=8, n_interactions=1, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial")
KINDS = ("", "IsolatedAtom", "slab", "")


@pytest.fixture
def frames():
    made = []
    for k, atoms in enumerate(labelled_ethanol(24)):
        frame = Frame(geometry(atoms), atoms.get_potential_energy(), atoms.get_forces())
        made.append(frame._replace(weight=1.0 + k % 3, config_type=KINDS[k % 4]))
    return made


def test_the_weights_multiply(frames):
    training = TrainingConfig(config_type_weights={"IsolatedAtom": 0.1, "Default": 5.0}, frame_weights={"C2H6O": 7.0})
    weights = [frame_weight(frame, training) for frame in frames[:4]]
    assert weights == pytest.approx([1.0 * 5.0 * 7.0, 2.0 * 0.1 * 7.0, 3.0 * 1.0 * 7.0, 1.0 * 5.0 * 7.0], rel=1e-15)
    assert [frame_weight(frame, TrainingConfig()) for frame in frames[:4]] == [1.0, 2.0, 3.0, 1.0]


def test_the_loss_of_each_frame_is_weighted(frames, make_model):
    training = TrainingConfig(config_type_weights={"IsolatedAtom": 0.25})
    model = make_model().double()
    plain = [frame._replace(weight=1.0) for frame in frames]
    losses = []
    for some in (frames, plain):
        batch = collate(make_examples(some, range(4), 4.0, lambda frame: frame_weight(frame, training)))
        losses.append(frame_losses(predict(model, batch.graph), batch, LossTerms(0.3, 0.7)))
    assert (losses[0] / losses[1]).tolist() == pytest.approx([1.0, 2.0, 3.0, 1.0], rel=1e-12)
    batch = collate(make_examples(plain, range(4), 4.0))
    unweighted = frame_losses(predict(model, batch.graph), batch, LossTerms(0.3, 0.7))
    assert (losses[0] / unweighted).tolist() == pytest.approx([1.0, 0.5, 3.0, 1.0], rel=1e-12)


def run(frames, folder, **training):
    config = RunConfig(
        name="x",
        data=DataConfig(file="x"),
        model=SMALL,
        training=TrainingConfig(steps=10, validate_every=10, batch_size=4, compile=False, **training),
    )
    split = TrainingSplit(np.arange(16), np.arange(16, 24))
    return train(config, Dataset(frames, "ethanol", "0" * 64, "eV, Å"), split, folder).model.state_dict()


def test_frames_of_weight_zero_teach_nothing(frames, tmp_path):
    """Whatever their forces are; the validation counts them for nothing too."""
    wrong = [f._replace(forces=f.forces + 3.0) if f.config_type == "slab" else f for f in frames]
    found = [
        run(some, tmp_path / name, config_type_weights=weights)
        for name, some, weights in (
            ("right", frames, {"slab": 0.0}),
            ("wrong", wrong, {"slab": 0.0}),
            ("counted", wrong, {}),
        )
    ]
    for right, other in zip(found[0].values(), found[1].values(), strict=True):
        assert torch.equal(right, other)
    assert not all(torch.equal(a, b) for a, b in zip(found[0].values(), found[2].values(), strict=True))


def test_a_config_type_that_is_not_there_is_an_error_that_lists_those_that_are(frames):
    training = TrainingConfig(config_type_weights={"isolated_atom": 0.1, "slab": 2.0})
    message = (
        "set.xyz: training.config_type_weights names isolated_atom, which is the config_type of no frame; the file has "
        "IsolatedAtom, slab"
    )
    with pytest.raises(DataError) as error:
        check_weights(frames, "set.xyz", training)
    assert str(error.value) == message
    without = [frame._replace(config_type="") for frame in frames]
    with pytest.raises(DataError, match="names isolated_atom, slab, which .*; no frame of the file has one"):
        check_weights(without, "set.xyz", training)
    check_weights(without, "set.xyz", TrainingConfig(config_type_weights={"Default": 2.0}))


def test_weights_in_a_file(tmp_path):
    file = write_run(tmp_path)
    weights = "[training]\nconfig_type_weights = { IsolatedAtom = 0.1, Default = 1 }\n"
    file.write_text(file.read_text().replace("[training]\n", weights))
    assert load_config(file).training.config_type_weights == {"IsolatedAtom": 0.1, "Default": 1.0}
    file.write_text(file.read_text().replace("0.1", "-0.1"))
    with pytest.raises(
        ConfigError, match=r"training\.config_type_weights\.IsolatedAtom is -0\.1; .*greater than or eq"
    ):
        load_config(file)
