"""Training beside fixed terms: labels are less by them, predictions more, and no term is counted twice."""

import dataclasses

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnet_ase import SchNetCalculator, SchNetConfig, load_model
from schnet_ase.crossval.run import crossval
from schnet_ase.data import StoredFrames, read_dataset, stored_dataset
from schnet_ase.data.reduced import without_terms
from schnet_ase.errors import DataError, TrainingError
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.priors import fixed_terms
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import TrainingConfig, train_from_config
from schnet_ase.training.config import DataConfig, RunConfig
from tests.support.frames import labelled_ethanol

pytestmark = pytest.mark.usefixtures("no_learning_curves")

NETWORK = SchNetConfig(
    n_features=8, n_interactions=2, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial", readout_features=8
)
REPELLED = dataclasses.replace(NETWORK, prior="zbl")
BOTH = dataclasses.replace(REPELLED, dispersion="pbe")


def run_config(file, model, name="run", **training):
    chosen = {"steps": 6, "batch_size": 4, "validate_every": 3, "warmup": 0, "compile": False, **training}
    return RunConfig(name, DataConfig(str(file), calibration=10), model, TrainingConfig(**chosen), folds=4)


@pytest.fixture
def squeezed(tmp_path):
    """Ethanol so small that its bonds are in the reach of the repulsion, in a cell; labelled by EMT."""
    frames = []
    for k, labelled in enumerate(labelled_ethanol(24)):
        atoms = labelled.copy()
        atoms.positions *= 0.72
        atoms.set_cell(np.diag([7.0, 7.5, 8.0]))
        atoms.pbc = True
        stress = 0.01 * np.cos(np.arange(6) + k)
        atoms.calc = SinglePointCalculator(atoms, **labelled.calc.results, stress=stress)
        frames.append(atoms)
    file = tmp_path / "squeezed.extxyz"
    write(file, frames)
    return file


def labels_of(frames):
    return [np.concatenate([[f.energy], f.forces.ravel(), f.stress]) for f in frames]


@pytest.mark.parametrize("model", [REPELLED, BOTH], ids=["zbl", "zbl and dispersion"])
def test_what_is_subtracted_is_what_a_calculator_adds(make_model, squeezed, model):
    """Labels less the terms differ from the labels by what the terms are worth to a calculator of any network."""
    frames = read_dataset(squeezed).frames
    fields = {"n_features": 8, "n_rbf": 8, "readout_features": 8}
    terms = {"prior": model.prior, "dispersion": model.dispersion}
    ours, theirs = (SchNetCalculator(make_model(0, **fields, **t), dtype="float64") for t in (terms, {}))
    for frame, less in zip(frames, without_terms(frames, fixed_terms(model), 4.0), strict=True):
        parts = []
        for calculator in (ours, theirs):
            calculator.calculate(frame.atoms())
            found = calculator.results
            parts.append(np.concatenate([[found["energy"]], found["forces"].ravel(), found["stress"]]))
        (with_terms,), (without,) = labels_of([frame]), labels_of([less])
        np.testing.assert_allclose(with_terms - without, parts[0] - parts[1], atol=1e-8)
        assert np.abs(with_terms - without).max() > 0.1
        assert less.geometry == frame.geometry


def test_frames_without_some_labels_stay_so(squeezed):
    bare = [f._replace(energy=None, forces=None, stress=None) for f in read_dataset(squeezed).frames[:2]]
    for less in without_terms(bare, fixed_terms(REPELLED), 4.0):
        assert (less.energy, less.forces, less.stress) == (None, None, None)


def test_stored_frames_are_less_by_the_same(tmp_path, squeezed):
    terms = fixed_terms(REPELLED)
    stored = stored_dataset(squeezed, 4.0, cache=tmp_path / "cache").frames
    assert isinstance(stored, StoredFrames)
    kept = without_terms(stored, terms, 4.0)
    expected = without_terms(read_dataset(squeezed).frames, terms, 4.0)
    assert isinstance(kept, StoredFrames)
    assert len(kept) == len(expected)
    np.testing.assert_allclose(labels_of(kept), labels_of(expected), atol=1e-12)
    subset = kept.subset(np.array([5, 3]))
    np.testing.assert_allclose(labels_of(subset), labels_of([expected[5], expected[3]]), atol=1e-12)


def test_a_frame_with_two_atoms_on_one_spot_is_named(squeezed):
    frames = read_dataset(squeezed).frames
    frames[3].geometry.positions[2] = frames[3].geometry.positions[1]
    with pytest.raises(DataError, match="frame 3: atoms 1 and 2 are on one spot"):
        without_terms(frames, fixed_terms(REPELLED), 4.0)


def test_training_is_that_of_a_network_on_the_lesser_labels(tmp_path, squeezed):
    """To rounding: references, scale, every weight and every error."""
    lesser = []
    dataset = read_dataset(squeezed)
    for frame in without_terms(dataset.frames, fixed_terms(REPELLED), 4.0):
        atoms = frame.atoms()
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces, stress=frame.stress)
        lesser.append(atoms)
    file = tmp_path / "lesser.traj"
    write(file, lesser)
    ours = train_from_config(run_config(squeezed, REPELLED, stress_weight=0.1), tmp_path / "ours")
    theirs = train_from_config(run_config(file, NETWORK, stress_weight=0.1), tmp_path / "theirs")
    for (name, a), b in zip(ours.model.state_dict().items(), theirs.model.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    assert ours.best.errors.force_mae == pytest.approx(theirs.best.errors.force_mae, rel=1e-4)


@pytest.mark.parametrize("model", [REPELLED, BOTH], ids=["zbl", "zbl and dispersion"])
def test_errors_in_training_are_those_of_a_calculator_on_the_labels(tmp_path, squeezed, model):
    result = train_from_config(run_config(squeezed, model), tmp_path / "run")
    loaded = load_model(tmp_path / "run" / "best.safetensors")
    assert loaded.config == model
    dataset = read_dataset(squeezed)
    chosen = [dataset.frames[i] for i in validated(tmp_path / "run")]
    errors = evaluate_dataset([loaded], dataset._replace(frames=chosen)).member(0).errors()
    calculator = SchNetCalculator(loaded, engine="autograd")
    by_hand = [np.abs(calculator.get_forces(f.atoms()) - f.forces).mean() for f in chosen]
    energies = [abs(calculator.get_potential_energy(f.atoms()) - f.energy) for f in chosen]
    for found in (result.best.errors, errors):
        assert found.force_mae == pytest.approx(np.mean(by_hand), rel=1e-4)
        assert found.energy_mae == pytest.approx(np.mean(energies), rel=1e-3)


def validated(folder):
    return read_provenance(folder / "best.safetensors")["validation_frames"]


def test_energies_alone_recover_labels_that_are_the_term(tmp_path, squeezed):
    """What is left of the labels is zero, so that a network of zero output has no error: the term is in both."""
    dataset = read_dataset(squeezed)
    terms = fixed_terms(REPELLED)
    frames = []
    for frame, less in zip(dataset.frames, without_terms(dataset.frames, terms, 4.0), strict=True):
        atoms = frame.atoms()
        energy = frame.energy - less.energy - 40.0 * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    file = tmp_path / "term.traj"
    write(file, frames)
    config = run_config(file, REPELLED, force_weight=0.0, energy_weight=1.0, steps=150, validate_every=50, ema=0.0)
    result = train_from_config(config, tmp_path / "run")
    spread = np.std([a.get_potential_energy() for a in frames])
    assert result.best.errors.energy_mae < 0.05 * spread
    assert result.model.reference[[1, 6, 8]].tolist() == pytest.approx([-40.0] * 3, abs=1e-9)


def test_folds_are_an_entry_whose_card_and_structure_know_the_term(tmp_path, squeezed):
    config = run_config(squeezed, REPELLED, "entry")
    card = crossval(config, tmp_path / "folds", tmp_path / "models", workers=1)
    model = load_model(card.path / "fold-1.safetensors")
    assert model.config == REPELLED
    dataset = read_dataset(squeezed)
    chosen = [dataset.frames[i] for i in validated(tmp_path / "folds" / "fold-1")]
    errors = evaluate_dataset([model], dataset._replace(frames=chosen)).member(0).errors()
    assert card.members[0].validation.force_mae == pytest.approx(errors.force_mae, rel=1e-6)


def test_a_start_has_to_have_the_same_term(tmp_path, squeezed):
    first = train_from_config(run_config(squeezed, REPELLED), tmp_path / "first")
    with pytest.raises(TrainingError, match=r"has model.prior 'zbl', this configuration none") as caught:
        train_from_config(run_config(squeezed, NETWORK), tmp_path / "second", initial=first.path)
    assert "\n" not in str(caught.value)
    again = train_from_config(run_config(squeezed, REPELLED), tmp_path / "third", initial=first.path)
    # Before the first step the weights are those of the start, on the same frames: the same error, no term twice.
    assert again.history[0].errors.force_mae == pytest.approx(first.best.errors.force_mae, rel=1e-5)


def test_a_training_without_the_term_is_another(tmp_path, squeezed):
    train_from_config(run_config(squeezed, REPELLED), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"another training|other config\.prior"):
        train_from_config(run_config(squeezed, NETWORK), tmp_path / "run")
