"""Checks that no frame is used both for training and for validation, calibration or tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ase.data import chemical_symbols
from ase.formula import Formula

from schnet_ase.data import CrossValidationSplit, Dataset, Frame
from schnet_ase.data.frames import formulas
from schnet_ase.errors import CalibrationError, DataError, TrainingError
from schnet_ase.registry.applicability import formulas_behind
from schnet_ase.registry.card import Card
from schnet_ase.registry.checkpoint import load_checkpoint
from schnet_ase.registry.provenance import Provenance

log = logging.getLogger("schnet_ase")


def content(frame: Frame) -> bytes:
    """Return bytes that identify a frame: its atoms, their positions, and its periodicity."""
    numbers, positions, cell, pbc = frame.geometry
    return numbers.tobytes() + positions.tobytes() + cell[pbc].tobytes() + pbc.tobytes()


def frames_seen(checkpoint: Path, dataset: Dataset) -> set[int] | None:
    """Return the indices of the frames that a model was trained or validated on; None if its file does not say.

    The data file is recognized by its hash, so a copy of the training data in another format is not recognized. All
    frames count as seen if the model's data and `dataset` share only some of their files, if another list of excluded
    frames was used, or if the file was used to train the weights that training started from. If `dataset` is the
    model's own data, only the frames of its split count: `crossval` ensures that the weights it starts from have not
    seen the frames kept for calibration.
    """
    provenance = Provenance.read(checkpoint)
    identity = provenance.identity
    if identity.data_sha256 is None or identity.training_frames is None or identity.validation_frames is None:
        return None
    if identity.data_sha256 == dataset.sha256:
        return {*identity.training_frames, *identity.validation_frames}
    return set(range(len(dataset.frames))) if provenance.all_hashes.intersection(_hashes(dataset)) else set()


def unseen_frames(card: Card, dataset: Dataset) -> list[int]:
    """Return the indices of the frames that no member of an entry was trained or validated on.

    Parameters
    ----------
    card
        Card of the entry.
    dataset
        Frames to choose from. See `frames_seen` for how the members' own frames are recognized.

    Returns
    -------
    list of int
        Indices in `dataset`, in ascending order.

    Raises
    ------
    CalibrationError
        No frame is unseen, or the file of a member does not say what it was trained on.
    """
    seen: set[int] = set()
    for member in card.members:
        frames = frames_seen(card.path / member.file, dataset)
        if frames is None:
            raise CalibrationError(
                f"{card.path / member.file}: does not say which frames it was trained on; "
                "only members written by schnet-ase crossval can be calibrated"
            )
        seen |= frames
    unseen = [i for i in range(len(dataset.frames)) if i not in seen]
    if not unseen:
        raise CalibrationError(
            f"{dataset.source}: a member was trained or validated on each of the {len(dataset.frames)} frames, or on a "
            "file among them, or on it with another list of what is left out; give frames that no member saw"
        )
    return unseen


def check_extra(
    extra: Sequence[Dataset | None], dataset: Dataset, split: CrossValidationSplit, test: Dataset | None
) -> None:
    """Refuse extra training frames that are also used for validation, calibration or tests.

    Parameters
    ----------
    extra
        Extra frames of each fold of `split`; None for a fold without any.
    dataset, split, test
        The data, its split, and the test frames.

    Raises
    ------
    DataError
        An extra frame is also used for validation, calibration or tests.
    """
    tested = set() if test is None else {content(frame) for frame in test.frames}
    for k, (more, fold) in enumerate(zip(extra, split.folds, strict=True)):
        if more is None:
            continue
        kept = tested | {content(dataset.frames[i]) for i in (*fold.validation, *split.calibration)}
        if both := sum(content(frame) in kept for frame in more.frames):
            raise DataError(
                f"{more.source}: {both} of its frames are also for validation, calibration or tests of fold {k + 1}; "
                "remove them from data.extra"
            )


def check_start(
    files: Sequence[Path],
    dataset: Dataset,
    split: CrossValidationSplit,
    test: Dataset | None,
    read_beside: Callable[[str], Dataset],
) -> str:
    """Refuse initial weights that have seen a frame of validation, calibration or tests.

    Frames are compared one by one if the data of the initial weights are found in the folder of `dataset`. Otherwise
    only chemical formulas are compared: a frame whose formula does not occur in the earlier data cannot have been seen;
    for all other frames the check is inconclusive.

    Parameters
    ----------
    files
        Checkpoint of each fold of `split`.
    dataset, split, test
        Data of the new training, their split, and the test frames.
    read_beside
        Function that reads the file with a given name in the folder of the data; it may raise a DataError.

    Returns
    -------
    str
        The data of the initial weights and what could not be checked, for the card.

    Raises
    ------
    TrainingError
        A frame has certainly been seen, or the weights of the folds come from different data.
    """
    earlier = [Provenance.read(file) for file in files]
    if len({e.identity.data_sha256 for e in earlier}) > 1:
        raise TrainingError(f"{files[0]}: the other folds were trained on other data; give one run")
    for file, provenance in zip(files, earlier, strict=True):
        if provenance.extra_hashes.intersection(_hashes(dataset)):
            raise TrainingError(
                f"{file}: was trained on all of {dataset.source}, as its data.extra; give other weights"
            )
    data = _data_of_start(earlier[0], dataset, read_beside)
    if data is None:
        return _compare_formulas(files[0], earlier[0], dataset, test)
    tested = set() if test is None else {content(frame) for frame in test.frames}
    for file, provenance, fold in zip(files, earlier, split.folds, strict=True):
        trained = provenance.identity.training_frames or ()
        validated = provenance.identity.validation_frames or ()
        trained_here, validated_here = (_in_both(data, frames, dataset) for frames in (trained, validated))
        for known, verb, use, frames in (
            (trained_here, "trained", "validation", fold.validation),
            (trained_here, "trained", "calibration", split.calibration),
            (validated_here, "validated", "calibration", split.calibration),
        ):
            _refuse_if(file, verb, use, len(known.intersection(frames.tolist())), len(frames))
        for indices, verb in ((trained, "trained"), (validated, "validated")):
            both = sum(content(data.frames[i]) in tested for i in indices) if tested else 0
            _refuse_if(file, verb, "tests", both, len(tested))
    return data.source


def _hashes(dataset: Dataset) -> set[str]:
    return {dataset.sha256, *dataset.parts}


def _refuse_if(file: Path, verb: str, use: str, both: int, of: int) -> None:
    if both:
        raise TrainingError(
            f"{file}: was {verb} on {both} of the {of} frames that are for {use} here; "
            "give a run that splits them in the same way (for several molecules: with data.by_molecule)"
        )


def _data_of_start(earlier: Provenance, dataset: Dataset, read_beside: Callable[[str], Dataset]) -> Dataset | None:
    """Return the data that earlier weights were trained on; None if they are not found or have changed."""
    sha256, name = earlier.identity.data_sha256, earlier.identity.data_file
    if sha256 == dataset.sha256:
        return dataset
    if name is None:
        return None
    try:
        data = read_beside(name)
    except DataError:
        return None
    return data if data.sha256 == sha256 else None


def _compare_formulas(file: Path, earlier: Provenance, dataset: Dataset, test: Dataset | None) -> str:
    source = earlier.identity.data_file or "unknown data"
    if earlier.all_hashes.intersection(_hashes(dataset)):
        raise TrainingError(
            f"{file}: was trained on frames of {dataset.source}; which of them is known only with {source} in the same "
            "folder: copy it there, or give other weights"
        )
    known, elements = formulas_behind(file), load_checkpoint(file).elements
    symbols = None if elements is None else {chemical_symbols[z] for z in elements}
    here = {*formulas(dataset.frames), *(() if test is None else formulas(test.frames))}
    possible = {f for f in here if symbols is None or symbols >= Formula(f).count().keys()}
    shared = sorted(possible if known is None else possible & known)
    if not shared:
        log.info("%s: was not trained on any %s, so it has seen none of these frames", file, _some(here))
        return source
    log.warning(
        "%s: was trained on %s, which is not in the folder of %s: whether frames of %s that validate, calibrate or "
        "test here are among its training frames could not be checked; if they are, the errors are too small",
        file,
        source,
        dataset.source,
        _some(shared),
    )
    return f"{source}; whether frames of {_some(shared)} here are among those could not be checked"


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - 5} other formulas" if len(names) > 5 else "")


def _in_both(data: Dataset, frames: Sequence[int], dataset: Dataset) -> set[int]:
    """Return the indices in `dataset` of those `frames` of `data` that `dataset` contains."""
    if data is dataset:
        return set(frames)
    contents = {content(data.frames[i]) for i in frames}
    return {i for i, frame in enumerate(dataset.frames) if content(frame) in contents}
