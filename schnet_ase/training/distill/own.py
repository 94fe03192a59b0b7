"""Frames of an entry's own data: those that its members learned from, and those that they were tested on."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from schnet_ase.data import Dataset, Frame, LabelOptions, check_frames, read_dataset
from schnet_ase.data.readers.qm9 import PACKAGE as QM9_PACKAGE
from schnet_ase.errors import DataError
from schnet_ase.evaluation.calibrate import calibrate_driver
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.evaluation.leakage import content
from schnet_ase.networks import SchNet
from schnet_ase.registry.card import Card
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.normalization import is_isolated_atom
from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.errors import EnsembleErrors
from schnet_ase.uncertainty.metrics import Errors

SAME = 0.01
"""Largest relative difference between errors of the same networks on the same frames that were computed twice."""


class OwnFrames(NamedTuple):
    """Frames of an entry's data."""

    learned: list[Frame]
    """Frames that a member was trained or validated on; none of them is used for calibration or tests."""
    test: Dataset | None
    """Frames of the test errors on the card; None if there are none."""
    data: Dataset | None
    """The whole data; None if they are not available."""
    calibration: list[int]
    """Indices in `data` of the frames that calibrate the members."""


NONE = OwnFrames([], None, None, [])


def own_frames(card: Card, root: Path, options: LabelOptions) -> OwnFrames:
    """Read an entry's data.

    Parameters
    ----------
    card
        Card of the entry.
    root
        Folder of the files that the card names.
    options
        Options for reading the labels; names that are not given are those that the members were trained with.

    Raises
    ------
    DataError
        A file is missing or differs from that of the card, or its labels cannot be read or are not plausible.
    """
    members = [Provenance.read(card.path / member.file) for member in card.members]
    first = members[0].identity
    options = replace(
        options,
        energy_key=options.energy_key or first.energy_key,
        forces_key=options.forces_key or first.forces_key,
        stress_key=options.stress_key or first.stress_key,
    )
    data = _read(card, root, card.data.file, card.data.sha256, options)
    seen = {i for m in members for i in (*(m.identity.training_frames or ()), *(m.identity.validation_frames or ()))}
    kept = {i for m in members for i in m.calibration_frames or ()}
    learned = [data.frames[i] for i in sorted(seen - kept) if not is_isolated_atom(data.frames[i])]
    if card.data.test_file is None or card.metrics.test is None:
        return OwnFrames(learned, None, data, sorted(kept))
    if card.data.test_sha256 != card.data.sha256:
        test = _read(card, root, card.data.test_file, str(card.data.test_sha256), options)
    else:
        others = [frame for i, frame in enumerate(data.frames) if i not in seen | kept and not is_isolated_atom(frame)]
        test = data._replace(frames=others)
    if len(test.frames) != card.metrics.test.n_frames:  # the file has further frames that were not used
        return OwnFrames(learned, None, data, sorted(kept))
    return OwnFrames(learned, test, data, sorted(kept))


def errors_on_tests(card: Card, student: SchNet, test: Dataset) -> Errors:
    """Return the errors of the student on the test frames of its teacher.

    Raises
    ------
    DataError
        The teacher's errors differ from those on its card, so the labels were read differently.
    """
    teacher = evaluate_dataset([loaded.model for loaded in locate_members(card.path)], test).mean().errors()
    check_errors(card, teacher, test.source)
    return evaluate_dataset([student], test).member(0).errors()


def check_errors(card: Card, mean: Errors, source: str) -> None:
    """Compare errors of the members' mean on the test frames in the file `source` with those on the card.

    Raises
    ------
    DataError
        They differ, so the labels were read differently.
    """
    assert card.metrics.test is not None
    for name in ("energy_mae", "force_mae"):
        here, known = getattr(mean, name), getattr(card.metrics.test, name)
        if known is not None and not (here is not None and abs(here - known) <= SAME * known):
            raise DataError(
                f"{source}: {name} of {card.name} is {here} on these frames, and {known} on its card; give the "
                "units and names of labels that it was trained with"
            )


def calibration_of(card: Card, student: SchNet, own: OwnFrames) -> Calibration | None:
    """Calibrate the members' spread for the errors of the student, on the frames that calibrate the members.

    Returns
    -------
    Calibration or None
        None if the members have no calibration, or their frames are not available.
    """
    if card.calibration is None or own.data is None or not own.calibration:
        return None
    # A file may hold a frame twice, which must not count twice.
    distinct = {content(own.data.frames[i]): i for i in reversed(own.calibration)}
    return calibrate_driver(card, own.data, sorted(distinct.values()), student, coverage=card.calibration.coverage)


def coverage_of(card: Card, student: SchNet, calibration: Calibration | None, test: Dataset | None) -> float | None:
    """Return the share of the student's force errors on the test frames within the half-widths of its calibration.

    Returns
    -------
    float or None
        None if there is no calibration of forces, or there are no labelled test frames.
    """
    if calibration is None or test is None:
        return None
    models = [loaded.model for loaded in locate_members(card.path)]
    return share_held(
        calibration, evaluate_dataset(models, test).ensemble_errors(evaluate_dataset([student], test).member(0))
    )


def share_held(calibration: Calibration, errors: EnsembleErrors) -> float | None:
    """Return the share of the force errors within the half-widths of a calibration; None if there are none of
    either."""
    if calibration.forces is None:
        return None
    labelled, length = errors.labelled_forces, errors.force_error
    if length is None or not labelled.any():
        return None
    width = calibration.forces_half_width(errors.deviation, errors.numbers, calibration.coverage)
    return float((length <= width)[labelled].mean())


def _read(card: Card, root: Path, name: str, digest: str, options: LabelOptions) -> Dataset:
    path: Path | str = f"{name}:" if f"{name}:" == QM9_PACKAGE else root / name
    arguments: dict[str, Any] = asdict(options)
    dataset = read_dataset(path, **arguments)
    if dataset.sha256 != digest:
        raise DataError(
            f"{path}: its SHA-256 is {dataset.sha256}, and the card of {card.name} says {digest}; give the folder of "
            "the data that it was trained on"
        )
    check_frames(
        dataset.frames,
        dataset.source,
        keys=dataset.keys,
        energies=any(frame.energy is not None for frame in dataset.frames),
        forces=any(frame.forces is not None for frame in dataset.frames),
        stress=any(frame.stress is not None for frame in dataset.frames),
    )
    return dataset
