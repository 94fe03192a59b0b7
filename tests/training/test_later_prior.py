"""A prior that an entry gets after its training: the same weights, and a card that is true of the new networks."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from schnet_ase import SchNetCalculator, load_model
from schnet_ase.data import read_dataset
from schnet_ase.evaluation.calibrate import calibrate_driver, calibrate_entry
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.output.files import sha256
from schnet_ase.priors.zbl import SHARE
from schnet_ase.registry.card import STUDENT_FILE, Structure, Student, read_card, write_card
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance, save_model
from schnet_ase.registry.dynamics import Dynamics
from schnet_ase.registry.index import write_index
from schnet_ase.registry.loading import find, find_members
from schnet_ase.stability import check
from schnet_ase.training import crossval, later_prior, load_config
from schnet_ase.training.later_prior import add_prior
from tests.support.frames import TOML, labelled_ethanol, write_run
from tests.support.trainings import equal_weights

NEAR = 0.74
"""Å; an O–H bond within the reach of the repulsion, four fifths of the 0.97 Å of the radii."""
NAME = "ethanol-emt"


def write_near(file, n_frames, seed):
    frames = labelled_ethanol(n_frames, seed)
    for atoms in frames:
        atoms.set_distance(2, 3, NEAR, fix=0)
    write(file, frames, format="extxyz")


@pytest.fixture(scope="module", params=["apart", "near"])
def trained(request, tmp_path_factory):
    """Folder of the data and an entry, on whose frames the repulsion acts or not, with a student and dynamics."""
    folder = tmp_path_factory.mktemp(request.param)
    run = write_run(folder, TOML.replace("steps = 60", "steps = 20") + "compile = false\n")
    if request.param == "near":
        write_near(folder / "ethanol.extxyz", 40, 0)
        write_near(folder / "test.extxyz", 8, 1)
    card = crossval(load_config(run), folder / "run", folder / "models", workers=1)
    path = folder / "models" / NAME
    card = read_card(path)
    model = load_checkpoint(path / "fold-2.safetensors")
    model.scale.mul_(1.01)
    save_model(model, path / STUDENT_FILE, teacher=[m.sha256 for m in card.members], seed=7)
    student = Student(
        sha256(path / STUDENT_FILE), card.members[0].validation, card.members[0].test, "none", 1.0, "none"
    )
    test, data = read_dataset(folder / "test.extxyz"), read_dataset(folder / "ethanol.extxyz")
    kept = read_provenance(path / "fold-1.safetensors")["calibration_frames"]
    student = replace(
        student,
        test=evaluate_dataset([model], test).member(0).errors(),
        calibration=calibrate_driver(card, data, kept, model, coverage=0.8),
        coverage=0.5,
    )
    dynamics = Dynamics(500.0, 1.0, 1.0, card.calibration.threshold(), None, (0.1,) * 4, "none", "none")
    structure = Structure.from_atoms(molecule("CH3CH2OH"))  # that of networks of so few steps is no molecule
    write_card(replace(card, student=student, dynamics=dynamics, structure=structure), path)
    return folder


@pytest.fixture
def entry(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    return tmp_path / "models" / NAME


def acts(trained):
    return trained.name.startswith("near")


def test_weights_and_provenance_stay(trained, entry):
    add_prior(read_card(entry), "zbl", trained)
    for found in (*find_members(entry), find(entry)):
        old = trained / "models" / NAME / found.path.name
        new, before = load_checkpoint(found.path), load_checkpoint(old)
        assert new.config == replace(before.config, prior="zbl")
        assert (new.elements, new.dtype) == (before.elements, before.dtype)
        assert equal_weights(new.state_dict(), before.state_dict())
        known, earlier = read_provenance(found.path), read_provenance(old)
        if found.path.name == STUDENT_FILE:
            assert known.pop("teacher") == [member.sha256 for member in read_card(entry).members]
            earlier.pop("teacher")
        assert known == earlier
    assert sorted(p.name for p in entry.parent.iterdir()) == [NAME]


def test_the_card_is_that_of_the_new_networks(trained, entry):
    old = read_card(entry)
    card = add_prior(old, "zbl", trained, command="schnet-ase models prior")
    assert card == read_card(entry)
    models = [load_model(entry / member.file) for member in card.members]
    student = load_model(entry)
    data, test = read_dataset(trained / "ethanol.extxyz"), read_dataset(trained / "test.extxyz")
    tested = evaluate_dataset(models, test)
    close = {"rel": 1e-6}
    assert card.metrics.test.force_mae == pytest.approx(tested.mean().errors().force_mae, **close)
    assert card.metrics.test.energy_mae == pytest.approx(tested.mean().errors().energy_mae, **close)
    moved = evaluate_dataset([student], test).member(0)
    assert card.student.test.force_mae == pytest.approx(moved.errors().force_mae, **close)
    for m, member in enumerate(card.members):
        assert member.test.force_mae == pytest.approx(tested.member(m).errors().force_mae, **close)
        seen = read_provenance(entry / member.file)["validation_frames"]
        some = data._replace(frames=[data.frames[i] for i in seen])
        errors = evaluate_dataset([models[m]], some).member(0).errors()
        assert member.validation.force_mae == pytest.approx(errors.force_mae, **close)
    kept = read_provenance(entry / "fold-1.safetensors")["calibration_frames"]
    some = data._replace(frames=[data.frames[i] for i in kept])
    errors = evaluate_dataset(models, some).mean().errors()
    assert card.metrics.calibration.force_mae == pytest.approx(errors.force_mae, **close)
    assert card.student.validation == old.student.validation, "the prior is the same in both"
    driven = calibrate_driver(card, data, kept, student, coverage=0.8)
    assert card.student.calibration.forces.half_width(0.01, 0.8) == pytest.approx(
        driven.forces.half_width(0.01, 0.8), **close
    )
    again = calibrate_entry(card, data, kept).calibration
    for name in ("energy", "forces"):
        found = getattr(card.calibration, name).half_width(0.01, 0.9)
        assert found == pytest.approx(getattr(again, name).half_width(0.01, 0.9), **close)
    assert (card.metrics == old.metrics) == (not acts(trained))
    assert (card.student.coverage == old.student.coverage) == (not acts(trained))
    if acts(trained):
        errors = tested.ensemble_errors(moved)
        width = driven.forces_half_width(errors.deviation, errors.numbers, 0.8)
        assert card.student.coverage == pytest.approx((errors.force_error <= width).mean())


def test_the_largest_change_is_that_of_the_repulsion(trained, entry):
    """By the energy of the one pair within reach, and its slope by differences of that energy."""
    change = add_prior(read_card(entry), "zbl", trained).later_prior
    if not acts(trained):
        assert (change.energy_change, change.force_change) == (0.0, 0.0)
        assert "it changes no test frame" in change.lines()[0]
        return

    def energy(r):
        x = r * (8**0.23 + 1) / 0.46850
        phi = sum(
            a * np.exp(-b * x)
            for a, b in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
        )
        y = r / (SHARE * 0.97)
        return 14.39964548 * 8 / r * phi * (1 - 28 * y**6 + 48 * y**7 - 21 * y**8)

    assert change.energy_change == pytest.approx(energy(NEAR), rel=1e-4)
    assert change.force_change == pytest.approx((energy(NEAR - 1e-5) - energy(NEAR + 1e-5)) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("r", [0.97, NEAR])
def test_a_structure_within_reach_is_relaxed_again(trained, entry, monkeypatch, r):
    def relaxed(models, atoms):
        assert {model.config.prior for model in models} == {"zbl"}
        assert len(models) == 4
        assert atoms.get_distance(2, 3) == pytest.approx(r)
        return molecule("CH3OH")

    monkeypatch.setattr(later_prior, "relax", relaxed)
    atoms = molecule("CH3CH2OH")
    atoms.set_distance(2, 3, r, fix=0)
    write_card(replace(read_card(entry), structure=Structure.from_atoms(atoms)), entry)
    card = add_prior(read_card(entry), "zbl", trained)
    assert card.structure.atoms().get_chemical_formula() == ("CH4O" if r == NEAR else "C2H6O")


def test_dynamics_say_that_they_are_older_and_are_made_anew(trained, entry, tmp_path, monkeypatch):
    card = add_prior(read_card(entry), "zbl", trained)
    assert card.dynamics.before_prior
    assert "before the prior was added" in card.dynamics.lines()[-1]
    seen = []
    monkeypatch.setattr(check, "run_jobs", lambda jobs, *others: seen.extend(jobs) or iter(()))
    monkeypatch.setattr(check, "_entry", lambda name: read_card(entry))
    with pytest.raises(AssertionError):  # no run was made
        check.check_entry(NAME, command="", picoseconds=1.0, molecules=(NAME,), folder=tmp_path / "check")
    assert len(seen) == 2, "the entry's own structure again, not only that of the other"


def test_command(trained, entry, run, mistake):
    write_index(entry.parent)
    status, out, _ = run("models", "prior", entry, "zbl", "--data-root", trained)
    assert status == 0
    assert f"{NAME}: prior zbl was added after the training; it changes " in out
    assert ("calibration: made again" in out) == acts(trained)
    assert f"schnet-ase models index {entry.parent}" in out
    command = read_card(entry).later_prior.command
    assert command == f"schnet-ase models prior {NAME} zbl --data-root {trained.name}"
    shown = run("models", "show", entry)[1]
    assert f"prior added by {command}" in shown
    assert "before the prior was added" in shown
    assert "ZBL repulsion" in run("info", entry)[1]
    assert f"{NAME}: has the prior zbl already" in mistake("models", "prior", entry, "zbl", "--data-root", trained)


def test_refusals_leave_the_entry_as_it_was(trained, entry, tmp_path, mistake):
    hashes = {file.name: sha256(file) for file in entry.iterdir()}

    def refused(*arguments):
        said = mistake("models", "prior", *arguments)
        assert {file.name: sha256(file) for file in entry.iterdir()} == hashes
        assert sorted(p.name for p in entry.parent.iterdir()) == [NAME]
        return said

    assert "is not 'zbl'" in refused(entry, "morse", "--data-root", trained)
    assert "ethanol.extxyz" in refused(entry, "zbl", "--data-root", tmp_path)
    assert "not a registry entry" in refused(entry / "fold-1.safetensors", "zbl", "--data-root", trained)
    shutil.copy(trained / "ethanol.extxyz", tmp_path)
    assert "test.extxyz" in refused(entry, "zbl", "--data-root", tmp_path)
    shutil.copy(trained / "ethanol.extxyz", tmp_path / "test.extxyz")
    assert "SHA-256" in refused(entry, "zbl", "--data-root", tmp_path)
    assert "on its card" in refused(entry, "zbl", "--data-root", trained, "--energy-unit", "kcal/mol")


def test_calibration_on_other_frames_is_refused(trained, entry, mistake):
    card = read_card(entry)
    write_card(replace(card, calibration=replace(card.calibration, sha256="0" * 64)), entry)
    said = mistake("models", "prior", entry, "zbl", "--data-root", trained)
    assert "set calibration to null in the card" in said


def test_a_failed_swap_keeps_the_old_entry(trained, entry, monkeypatch):
    path, rename = type(entry), type(entry).rename

    def fails(self, target):
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device", str(self))
        return rename(self, target)

    monkeypatch.setattr(path, "rename", fails)
    old = read_card(entry)
    with pytest.raises(OSError, match="No space left"):
        add_prior(old, "zbl", trained)
    assert read_card(entry) == old
    assert [p.name for p in entry.parent.iterdir()] == [NAME]


def test_atoms_that_meet_repel(trained, entry):
    add_prior(read_card(entry), "zbl", trained)
    atoms = labelled_ethanol(1)[0]
    calculator, energies = SchNetCalculator(entry, dtype="float64"), []
    for r in (0.5, 0.2, 0.1, 0.05):
        atoms.set_distance(0, 1, r, fix=0)
        energies.append(calculator.get_potential_energy(atoms))
    assert (np.diff(energies) > 0.0).all()
