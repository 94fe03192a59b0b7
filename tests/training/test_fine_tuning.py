"""Training from trained weights on data with another zero of energy: energies follow, forces stay."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from schnet_ase import SchNetCalculator, load_model
from schnet_ase.data import read_dataset
from schnet_ase.data.batches import make_example
from schnet_ase.data.frames import Frame, formulas
from schnet_ase.errors import ConfigError, DataError, TrainingError
from schnet_ase.geometry.graph import build_graph
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.lookup import get_card
from schnet_ase.training import crossval, load_config, normalization, train_from_config
from schnet_ase.training.config import LEARNING_RATE, TrainingConfig
from schnet_ase.training.first_weights import between
from schnet_ase.training.normalization import (
    FINE_TUNING_RATE,
    LEAST,
    fine_tuning_rate,
    fit_normalization,
    is_isolated_atom,
    known_references,
    set_elements,
    shift_references,
)
from schnet_ase.training.run import load_frames
from schnet_ase.training.subsets import split_for_crossval
from tests.support.frames import TOML, labelled_ethanol, write_ethanol, write_run

H, C, O = 1, 6, 8


def labelled(model, names, offset):
    """Molecules with a model's own energies, shifted by `offset` of the atomic numbers."""
    found = []
    for k, name in enumerate(names):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=k)
        here = geometry(atoms)
        own = predict(model, build_graph(here, model.config.pair_cutoff))
        found.append(Frame(here, float(own.energy) + offset(atoms.numbers), own.forces.numpy()))
    return found


def shifted(model, frames, known=None):
    set_elements(model, frames)
    return shift_references(model, frames, [make_example(f, model.config.pair_cutoff) for f in frames], known)


@pytest.mark.parametrize(("last", "used"), [("H2O", 4), ("CO2", 8)])
def test_of_many_frames_as_many_are_used_as_determine_the_references(make_model, monkeypatch, last, used):
    """Every second frame, unless that leaves out the only one with carbon."""
    monkeypatch.setattr(normalization, "FRAMES_REFITTED", 4)
    model = make_model()
    shift = {H: -13.6, C: -1027.2, O: 12.5}
    frames = labelled(model, ["H2O"] * 7 + [last], lambda numbers: sum(shift[z] for z in numbers))
    seen = []
    energies = normalization._energies
    monkeypatch.setattr(normalization, "_energies", lambda m, b: seen.append(len(b)) or energies(m, b))
    result = shifted(model, frames)
    assert seen == [used]
    assert result.after == pytest.approx(0.0, abs=1e-6)


def test_the_shift_of_each_element_is_found_and_forces_stay(make_model):
    model = make_model()
    before, scale = model.reference.clone(), model.scale.clone()
    shift = {H: -13.6, C: -1027.2, O: 12.5}
    names = ["CH4", "H2O", "CO2", "CH3OH", "CH3CH2OH"]
    frames = labelled(model, names, lambda numbers: sum(shift[z] for z in numbers))
    result = shifted(model, frames)
    for z, value in shift.items():
        assert result.changes[z] == pytest.approx(value, abs=1e-6)
        assert (model.reference - before)[z].item() == pytest.approx(value, abs=1e-6)
    assert result.before > 1000.0
    assert result.after < 1e-5
    assert torch.equal(model.scale, scale)
    untouched = torch.ones(len(before), dtype=torch.bool)
    untouched[[H, C, O]] = False
    assert torch.equal(model.reference[untouched], before[untouched])
    for frame in frames:
        now = predict(model, build_graph(frame.geometry, model.config.pair_cutoff))
        assert float(now.energy) == pytest.approx(frame.energy, abs=1e-5)
        assert np.array_equal(now.forces.numpy(), frame.forces)


def test_of_one_molecule_the_references_change_by_as_little_as_can_be(make_model):
    """57 eV of H₂O: the shortest (h, o) with 2 h + o = 57 is (2, 1) · 57 / 5."""
    model = make_model()
    result = shifted(model, labelled(model, ["H2O", "H2O"], lambda numbers: 57.0))
    assert result.changes == {H: pytest.approx(22.8, abs=1e-6), O: pytest.approx(11.4, abs=1e-6)}


def test_known_references_come_first_where_energies_leave_a_choice(make_model):
    """H is said to be 5 eV lower: 2 · (-5) of the 57 eV are explained, and (2, 1) · 67 / 5 is what is left."""
    model = make_model()
    known = {H: model.reference[H].item() - 5.0}
    result = shifted(model, labelled(model, ["H2O", "H2O"], lambda numbers: 57.0), known)
    assert result.changes == {H: pytest.approx(-5.0 + 26.8, abs=1e-6), O: pytest.approx(13.4, abs=1e-6)}


def test_frames_without_energies_change_nothing(make_model):
    model = make_model()
    before = model.reference.clone()
    frames = [f._replace(energy=None) for f in labelled(model, ["H2O", "CH4"], lambda numbers: 1.0)]
    assert shifted(model, frames) is None
    assert torch.equal(model.reference, before)
    some = [frames[0], *labelled(model, ["H2O"], lambda numbers: 57.0)]
    assert shifted(model, some).changes[O] == pytest.approx(11.4, abs=1e-6)


def test_isolated_atoms_are_those_without_neighbours():
    def frame(atoms, energy=-1.0, kind=""):
        return Frame(geometry(atoms), energy, None, config_type=kind)

    box = Atoms("O", cell=[20, 20, 20], pbc=True)
    assert is_isolated_atom(frame(Atoms("O")))
    assert is_isolated_atom(frame(box, kind="IsolatedAtom"))
    assert not is_isolated_atom(frame(bulk("Fe")))
    assert not is_isolated_atom(frame(molecule("H2")))
    frames = [frame(Atoms("O"), -2041.0), frame(Atoms("O"), -2043.5), frame(Atoms("H"), None), frame(bulk("Fe"), -9.0)]
    assert known_references({}, frames) == {O: -2043.5}
    assert known_references({"O": -1.0, "H": -13.6}, frames) == {O: -1.0, H: -13.6}


def test_known_references_are_not_fitted_and_the_bonds_go_into_the_bias(make_model):
    model = make_model()
    frames = [
        Frame(geometry(molecule(name)), energy, None)
        for name, energy in (("H2O", -2081.0), ("H2O", -2081.6), ("H2", -31.0), ("CH4", -1100.0))
    ]
    known = {H: -13.6, O: -2041.0}
    with torch.no_grad():
        model.readout2.bias.zero_()
    fit_normalization(model, frames, known)
    assert model.reference[H].item() == -13.6
    assert model.reference[O].item() == -2041.0
    assert model.reference[C].item() == pytest.approx(-1100.0 + 4 * 13.6)
    # -12.8, -13.4, -3.8 and 0 eV are left for 3, 3, 2 and 5 atoms: -30 / 13 eV an atom.
    each = -30.0 / 13.0
    assert model.readout2.bias.item() * model.scale.item() == pytest.approx(each, rel=1e-6)
    left = [(-12.8 - 3 * each) / 3**0.5, (-13.4 - 3 * each) / 3**0.5, (-3.8 - 2 * each) / 2**0.5, -5 * each / 5**0.5]
    assert model.scale.item() == pytest.approx(np.std(left))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run on ethanol, ``run/``, and its entry ``models/ethanol-emt``."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schnet_ase.training.trainer.draw_history", lambda rows, folder: None)
        config = load_config(write_run(folder, TOML.replace("steps = 60", "steps = 100")))
        card = crossval(config, folder / "run", folder / "models", workers=1)
    return folder, card


NEW = """
name = "mine"
folds = 4
[data]
file = "mine.extxyz"
calibration = 0
[training]
steps = 40
batch_size = 5
ema = 0.9
validate_every = 10
"""


def write_new(folder, frames, toml=NEW, shift=57.0):
    """A configuration of frames whose energies are shifted."""
    for atoms in frames:
        results = atoms.calc.results
        if len(atoms) > 1:
            results["energy"] += shift
    write(folder / "mine.extxyz", frames, format="extxyz")
    config = folder / "new.toml"
    config.write_text(toml)
    return config


def test_training_from_trained_weights_on_another_zero_of_energy(trained, tmp_path, run, caplog):
    folder, card = trained
    config = write_new(tmp_path, labelled_ethanol(30, seed=7))
    status, out, err = run("train", config, "--initial", card.path, "--output", tmp_path / "r", "--models", tmp_path)
    assert status == 0, err
    assert "their forces are unchanged" in err
    rows = (tmp_path / "r" / "metrics.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["0", "10", "20", "30", "40"]
    made = read_provenance(tmp_path / "r" / "best.safetensors")
    assert made["training"]["learning_rate"] is None
    assert LEAST * FINE_TUNING_RATE <= made["learning_rate"] <= FINE_TUNING_RATE < LEARNING_RATE
    # Without a table [model] the network is the start's.
    start = load_model(card.path)
    ours = load_model(tmp_path / "r")
    assert ours.config == start.config
    frames = read_dataset(tmp_path / "mine.extxyz").frames
    held = [frames[i] for i in made["validation_frames"]]

    def errors(model, offset):
        found = []
        for frame in held:
            atoms = frame.atoms()
            atoms.calc = SchNetCalculator(model, engine="autograd")
            found.append((atoms.get_potential_energy() + offset - frame.energy, atoms.get_forces() - frame.forces))
        return np.abs([e for e, _ in found]).mean(), np.abs([f for _, f in found]).mean()

    (_, force_before), (energy, force) = errors(start, 57.0), errors(ours, 0.0)
    # The shift of 57 eV is gone; how far 40 steps move the mean energy is chance.
    assert energy < 2.5
    assert force < 1.05 * force_before
    assert f"weights trained on {card.data.file}" in run("models", "show", tmp_path / "mine")[1]


@pytest.mark.parametrize("how", ["file", "run", "member"])
def test_starts_are_named_in_every_way(trained, tmp_path, how, monkeypatch):
    folder, card = trained
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(folder / "models"))
    start = {"file": card.path / card.best.file, "run": folder / "run", "member": "ethanol-emt/fold-2"}[how]
    toml = NEW.replace("steps = 40", "steps = 1")
    config = load_config(write_new(tmp_path, labelled_ethanol(12, seed=8), toml), initial=start)
    result = train_from_config(config, tmp_path / "r", initial=start)
    assert result.history[0].step == 0
    assert result.history[0].errors.energy_mae < 1.0


def test_a_frame_seen_for_sure_is_refused_and_what_is_unsure_is_said(trained, tmp_path, caplog):
    folder, card = trained
    caplog.set_level(logging.INFO, "schnet_ase")
    toml = NEW.replace("steps = 40", "steps = 1")
    # The same formula, and the start's data are elsewhere: said in a line and on the card.
    config = load_config(write_new(tmp_path, labelled_ethanol(12, seed=8), toml), initial=card.path)
    mine = crossval(config, tmp_path / "r", tmp_path / "models", initial=card.path, workers=1)
    unsure = "whether frames of C2H6O"
    assert mine.data.initial == f"ethanol.extxyz; {unsure} here are among those could not be checked"
    assert any(unsure in r.message and r.levelname == "WARNING" for r in caplog.records)
    assert mine.data.formulas == ("C2H6O",)
    # Another formula cannot be among them.
    caplog.clear()
    others = tmp_path / "others"
    others.mkdir()
    config = load_config(write_new(others, labelled_ethanol(12, seed=8, name="CH3OH"), toml), initial=card.path)
    mine = crossval(config, others / "r", others / "models", initial=card.path, workers=1)
    assert mine.data.initial == "ethanol.extxyz"
    assert mine.data.formulas == ("C2H6O", "CH4O")
    assert any("was not trained on any CH4O" in r.message for r in caplog.records)
    assert not any(r.levelname == "WARNING" for r in caplog.records)
    # The start's data beside: frames are compared, and one that was seen is refused.
    beside = tmp_path / "beside"
    beside.mkdir()
    write(beside / "ethanol.extxyz", read(folder / "ethanol.extxyz", ":"))
    (beside / "ethanol.extxyz").write_bytes((folder / "ethanol.extxyz").read_bytes())
    config = load_config(write_new(beside, read(folder / "ethanol.extxyz", ":"), toml), initial=card.path)
    with pytest.raises(TrainingError, match="frames that are for validation here"):
        crossval(dataclasses.replace(config, seed=5), beside / "r", beside / "m", initial=card.path, workers=1)


def test_a_file_among_those_of_the_start_is_refused_where_its_frames_cannot_be_told(tmp_path):
    for part in "ab":
        write_ethanol(tmp_path / f"part-{part}.extxyz", 12, seed=ord(part))
    toml = NEW.replace("mine.extxyz", "part-*.extxyz").replace("steps = 40", "steps = 1")
    (tmp_path / "both.toml").write_text(toml)
    small = dataclasses.replace(
        load_config(tmp_path / "both.toml").model, n_features=8, n_interactions=1, n_rbf=8, readout_features=4
    )
    both = dataclasses.replace(load_config(tmp_path / "both.toml"), model=small)
    card = crossval(both, tmp_path / "r", tmp_path / "models", workers=1)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "mine.extxyz").write_bytes((tmp_path / "part-a.extxyz").read_bytes())
    (alone / "new.toml").write_text(NEW)
    with pytest.raises(TrainingError, match=r"was trained on frames of mine\.extxyz; which of them is known only"):
        crossval(
            load_config(alone / "new.toml", initial=card.path),
            alone / "r",
            alone / "models",
            initial=card.path,
            workers=1,
        )


def test_isolated_atoms_give_references_and_are_in_no_fold(tmp_path, caplog):
    caplog.set_level(logging.INFO, "schnet_ase")
    frames = labelled_ethanol(20, seed=2)
    for symbol, energy in (("H", -13.6), ("C", -1029.5), ("O", -2042.25)):
        atoms = Atoms(symbol, info={"config_type": "IsolatedAtom"})
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        frames.insert(3, atoms)
    toml = TOML.replace("ethanol.extxyz", "mine.extxyz").replace('test = "test.extxyz"\n', "")
    toml = toml.replace("calibration = 10", "calibration = 0").replace("steps = 60", "steps = 2")
    config = load_config(write_new(tmp_path, frames, toml, 6 * -13.6 - 2 * 1029.5 - 2042.25 - 33.0))
    split = split_for_crossval(config, load_frames(config.data.file, config))
    used = {int(i) for fold in split.folds for i in (*fold.training, *fold.validation)}
    assert used == set(range(23)) - {3, 4, 5}
    assert any("3 frames of isolated atoms" in r.message for r in caplog.records)
    card = crossval(config, tmp_path / "r", tmp_path / "models", workers=1)
    model = load_model(card.path)
    assert model.reference[[1, 6, 8]].tolist() == [-13.6, -1029.5, -2042.25]
    assert len(card.structure.numbers) == 9
    # Training has begun only: the 33 eV of the bonds are not its matter, the untrained network's own few are.
    assert all(member.validation.energy_mae < 11.0 for member in card.members), [m.validation for m in card.members]
    given = dataclasses.replace(config.data, reference_energies={"H": -13.0})
    other = train_from_config(dataclasses.replace(config, data=given), tmp_path / "given")
    assert other.model.reference[[1, 6]].tolist() == [-13.0, -1029.5]


def test_isolated_atoms_alone(tmp_path):
    frames = [Atoms("H") for _ in range(12)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-13.6, forces=np.zeros((1, 3)))
    config = load_config(write_new(tmp_path, frames))
    with pytest.raises(DataError, match="mine.extxyz: contains only isolated atoms"):
        train_from_config(config, tmp_path / "r")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("reference_energies = { Hy = -13.6 }", "expected symbols of elements, such as H, and not 'Hy'"),
        ('reference_energies = { H = "low" }', "data.reference_energies.H is 'low'"),
        ("reference_energies = { H = nan }", "reference_energies.H is"),
    ],
)
def test_mistakes_in_reference_energies(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write_run(tmp_path, TOML.replace("calibration = 10", f"calibration = 10\n{line}")))


def test_the_rate_follows_from_how_far_the_start_is_off(make_model):
    """Forces a quarter larger than the network's: the error is a fifth of them. Twice the other way: more than all."""
    assert TrainingConfig().to_dict()["learning_rate"] == LEARNING_RATE
    model = make_model()
    right = labelled(model, ["H2O", "CH4"], lambda numbers: 0.0)
    for factor, relative in ((1.25, 0.2), (-2.0, 1.0), (1.0, LEAST)):
        frames = [f._replace(forces=factor * f.forces) for f in right]
        examples = [make_example(f, model.config.pair_cutoff) for f in frames]
        assert fine_tuning_rate(model, frames, examples) == pytest.approx(relative * FINE_TUNING_RATE, rel=1e-3)
    assert fine_tuning_rate(model, [f._replace(forces=None) for f in right], examples) == FINE_TUNING_RATE


def test_no_validation_is_worse_than_the_start(trained, tmp_path):
    """At a rate that ruins the weights, a part of the way, or none of it, is what is validated and kept."""
    _, card = trained
    toml = NEW.replace("[training]", "[training]\nlearning_rate = 0.05\nwarmup = 0")
    config = load_config(write_new(tmp_path, labelled_ethanol(12, seed=9), toml), initial=card.path)
    result = train_from_config(config, tmp_path / "r", initial=card.path)
    first, *later = result.history
    assert len(later) == 4
    for row in later:
        assert row.validation_loss <= first.validation_loss
        assert row.errors.force_mae <= first.errors.force_mae


def test_the_way_between_two_networks(make_model):
    start, trained = make_model(0), make_model(1)
    assert torch.equal(between(start, trained, 0.0).readout1.weight, start.readout1.weight)
    quarter = between(start, trained, 0.25).readout1.weight
    torch.testing.assert_close(quarter, 0.75 * start.readout1.weight + 0.25 * trained.readout1.weight)


def test_formulas():
    frames = [Frame(geometry(molecule(name)), None, None) for name in ("CH3CH2OH", "H2O", "CH3OCH3", "CH4")]
    assert formulas(frames) == ("C2H6O", "CH4", "H2O")


@pytest.mark.parametrize(
    ("name", "n", "one"),
    [("rmd17-ethanol", 1, "C2H6O"), ("rmd17-all", 10, "C9H8O4"), ("acac", 1, "C5H8O2"), ("water", 1, "H128O64")],
)
def test_shipped_entries_say_which_molecules_they_know(name, n, one):
    known = get_card(name).data.formulas
    assert len(known) == n
    assert one in known
