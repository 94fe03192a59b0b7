"""Give the networks of an entry a prior after their training, and measure again what its card says of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schnet_ase.data import Dataset, Frame, LabelOptions
from schnet_ase.data.labels.options import UNSAID
from schnet_ase.data.reduced import contribution
from schnet_ase.errors import DataError, RegistryError
from schnet_ase.evaluation.evaluate import Evaluation, evaluate_frames
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import SchNet, SchNetConfig, StackedSchNet
from schnet_ase.output.files import sha256
from schnet_ase.priors import Contribution, fixed_terms
from schnet_ase.registry.card import STUDENT_FILE, Card, LaterPrior, Member, Metrics, Structure, read_card, write_card
from schnet_ase.registry.checkpoint import load_checkpoint, rewrite_with_prior
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.distill.own import OwnFrames, check_errors, own_frames, share_held
from schnet_ase.training.entry import relax
from schnet_ase.uncertainty.fit import calibrate_again


def add_prior(card: Card, prior: str, root: Path, options: LabelOptions = UNSAID, *, command: str = "") -> Card:
    """Give an entry's members and student a prior that they were not trained with, and write the entry again.

    The weights stay as they are. Errors, calibrations and the structure on the card change only where the prior
    acts on the frames or atoms in question; elsewhere it adds exactly zero. The student's errors against the mean of
    the members stay, since both get the same term. Stability runs are kept, with a note that they are older.

    The new entry is written beside the old one, in a hidden folder, and then takes its place. A kill between the two
    renames leaves the old entry in the folder ``.NAME.old``.

    Parameters
    ----------
    card
        Card of the entry.
    prior
        Name of the prior, see `SchNetConfig`.
    root
        Folder of the files of training and test frames that the card names.
    options
        Options for reading the labels, if the entry was trained with such options.
    command
        Command to state on the card.

    Returns
    -------
    Card
        The new card.

    Raises
    ------
    pydantic.ValidationError
        There is no such prior.
    RegistryError
        The entry has a prior already, or it was calibrated on other frames than those kept for that in its training.
    DataError
        A file of the card is missing or has changed, or the errors on the test frames are not those of the card.
    OSError
        The folder of the entries cannot be written; the old entry is kept.
    """
    models = [loaded.model for loaded in locate_members(card.path)]
    student = None if card.student is None else load_checkpoint(card.path / STUDENT_FILE)
    for model in (*models, *(() if student is None else (student,))):
        if model.config.prior is not None:
            raise RegistryError(f"{card.name}: has the prior {model.config.prior} already; give an entry without one")
    frames = own_frames(card, root, options)
    _check_frames(card, frames)
    new = _measured(card, models, student, prior, frames, command)
    folder = Path(os.path.abspath(card.path))
    building, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for left in (building, old):  # by a process that was killed
        if left.exists():
            shutil.rmtree(left)
    try:
        shutil.copytree(folder, building)
        _write_networks(new, prior, building)
        folder.rename(old)
        try:
            building.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(old)
    return read_card(card.path)


def _check_frames(card: Card, frames: OwnFrames) -> None:
    """Refuse an entry whose test or calibration frames cannot be told from the others."""
    if frames.test is None or frames.data is None or card.metrics.test is None:
        raise DataError(
            f"{card.name}: its card does not tell which frames it was tested on; expected a file of all test frames"
        )
    known = card.calibration
    if known is not None and (known.sha256, known.n_frames) != (frames.data.sha256, len(frames.calibration)):
        raise RegistryError(
            f"{card.name}: was calibrated on {known.n_frames} frames of {known.file}, not on the "
            f"{len(frames.calibration)} that its training kept for that; set calibration to null in the card, and run "
            "schnet-ase calibrate afterwards"
        )


class _Look(NamedTuple):
    """Predictions for some frames without and with the prior."""

    before: Evaluation
    after: Evaluation


class _Prior(NamedTuple):
    """A prior that is looked at on some frames."""

    name: str
    frames: Sequence[Frame]
    indices: Sequence[int]

    def parts(self, model: SchNet) -> list[Contribution]:
        """Return what it adds to the predictions of a model for each frame; empty if it acts on no frame."""
        config = SchNetConfig(**(model.config.to_dict() | {"prior": self.name, "dispersion": None}))
        terms = fixed_terms(config)
        parts = [contribution(terms, self.frames, i, model.config.pair_cutoff) for i in self.indices]
        return parts if any(part.energies.any() or part.forces.any() for part in parts) else []

    def look(self, models: Sequence[SchNet]) -> _Look:
        """Return the predictions of an ensemble without and with it."""
        before = evaluate_frames(StackedSchNet(models), self.frames, self.indices)
        parts = self.parts(models[0])
        return _Look(before, before.plus(parts) if parts else before)


def _on(prior: str, dataset: Dataset | None, indices: Sequence[int] | None = None) -> _Prior:
    assert dataset is not None
    return _Prior(prior, dataset.frames, range(len(dataset.frames)) if indices is None else indices)


def _measured(
    card: Card, models: Sequence[SchNet], student: SchNet | None, prior: str, frames: OwnFrames, command: str
) -> Card:
    """Return the card with the errors and calibrations that the prior changes; hashes and structure are still old."""
    tests, kept = _on(prior, frames.test), _on(prior, frames.data, frames.calibration)
    parts = tests.parts(models[0])
    tested = tests.look(models)
    assert frames.test is not None
    check_errors(card, tested.before.mean().errors(), frames.test.source)
    calibrated = kept.look(models).after if kept.parts(models[0]) else None
    metrics = Metrics(
        card.metrics.calibration if calibrated is None else calibrated.mean().errors(),
        tested.after.mean().errors() if parts else card.metrics.test,
    )
    members = []
    for m, (member, model) in enumerate(zip(card.members, models, strict=True)):
        seen = _on(prior, frames.data, Provenance.read(card.path / member.file).identity.validation_frames or ())
        if seen.parts(model):
            member = replace(member, validation=seen.look([model]).after.member(0).errors())
        if parts:
            member = replace(member, test=tested.after.member(m).errors())
        members.append(member)
    calibration = card.calibration
    if calibrated is not None and calibration is not None:
        calibration = calibrate_again(calibrated.ensemble_errors(), calibration)
    new = replace(
        card,
        members=tuple(members),
        metrics=metrics,
        calibration=calibration,
        later_prior=LaterPrior(
            prior,
            max((abs(float(part.energies.sum())) for part in parts), default=0.0),
            max((float(np.linalg.norm(part.forces, axis=1).max()) for part in parts), default=0.0),
            command,
        ),
        dynamics=None if card.dynamics is None else replace(card.dynamics, before_prior=True),
    )
    return new if student is None else _with_student(new, student, tests, tested.after, kept, calibrated)


def _with_student(
    card: Card, student: SchNet, tests: _Prior, tested: Evaluation, kept: _Prior, calibrated: Evaluation | None
) -> Card:
    """Return the card with the student's errors; `tested` and `calibrated` are the predictions of the members."""
    known = card.student
    assert known is not None
    if calibrated is not None and known.calibration is not None:
        errors = calibrated.ensemble_errors(kept.look([student]).after.member(0))
        known = replace(known, calibration=calibrate_again(errors, known.calibration))
    if tests.parts(student) or calibrated is not None:
        moved = tests.look([student]).after.member(0)
        if known.test is not None:
            known = replace(known, test=moved.errors())
        if known.calibration is not None:
            known = replace(known, coverage=share_held(known.calibration, tested.ensemble_errors(moved)))
    return replace(card, student=known)


def _write_networks(card: Card, prior: str, folder: Path) -> None:
    """Write the networks with the prior into the copy `folder` of an entry, and the card with their hashes."""
    members: list[Member] = []
    for member in card.members:
        rewrite_with_prior(card.path / member.file, folder / member.file, prior)
        members.append(replace(member, sha256=sha256(folder / member.file)))
    hashes = tuple(member.sha256 for member in members)
    student = card.student
    if student is not None:
        rewrite_with_prior(card.path / STUDENT_FILE, folder / STUDENT_FILE, prior, teacher=hashes)
        calibration = None if student.calibration is None else replace(student.calibration, members=hashes)
        student = replace(student, sha256=sha256(folder / STUDENT_FILE), calibration=calibration)
    models = [load_checkpoint(folder / member.file) for member in members]
    atoms, structure = card.structure.atoms(), card.structure
    if len(atoms) and _Prior(prior, [Frame(geometry(atoms), None, None)], [0]).parts(models[0]):
        structure = Structure.from_atoms(relax(models, atoms))
    write_card(
        replace(
            card,
            members=tuple(members),
            student=student,
            calibration=None if card.calibration is None else replace(card.calibration, members=hashes),
            structure=structure,
        ),
        folder,
    )
