"""Calibration of a registry entry on labelled frames that none of its members has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from schnet_ase.data import Dataset
from schnet_ase.errors import CalibrationError
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.evaluation.leakage import content, unseen_frames
from schnet_ase.networks import SchNet
from schnet_ase.registry.card import Card, read_card, write_card
from schnet_ase.registry.loading import locate_members
from schnet_ase.uncertainty.calibration import COVERAGE, FALSE_FLAG_RATE, Calibration
from schnet_ase.uncertainty.errors import EnsembleErrors
from schnet_ase.uncertainty.fit import calibrate, check_sizes

UNFAMILIAR, MUCH = 20.0, 0.1
"""Factor on the validation error, and error in eV or eV/Å: an error above both limits cannot be due to temperature.
For acetylacetone at 600 K, models trained at 300 K have 3 times the force error (docs/uncertainty-measured.md)."""


def calibrate_entry(
    card: Card, dataset: Dataset, frames: Sequence[int], *, coverage: float = COVERAGE, device: str = "cpu"
) -> Card:
    """Calibrate an entry and write the calibration into its card, atomically.

    Parameters
    ----------
    card
        Card of the entry.
    dataset
        Labelled frames.
    frames
        Indices of the frames to calibrate on.
    coverage
        Default coverage of the half-widths.
    device
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    Card
        The new card.

    Raises
    ------
    CalibrationError
        A member was trained or validated on one of the frames; the entry has fewer than four members; there are too few
        frames; a frame occurs twice; or the errors are far above those of validation, which points to another system,
        reference method or unit.
    DataError
        A label is not plausible.
    OSError
        The entry's folder cannot be written; the old card is kept.
    """
    calibration = _calibrate(card, dataset, frames, None, coverage, device)
    write_card(replace(card, calibration=calibration), card.path)
    return read_card(card.path)


def calibrate_driver(
    card: Card,
    dataset: Dataset,
    frames: Sequence[int],
    driver: SchNet,
    *,
    coverage: float = COVERAGE,
    device: str = "cpu",
) -> Calibration:
    """Calibrate the spread of an entry's members against the errors of another network, which they monitor.

    The half-widths contain the errors of `driver`, such as the members' student, whereas those of the entry's own
    calibration contain the errors of the members' mean. The threshold is the same, as it depends on the spread alone.

    Parameters
    ----------
    card, dataset, frames, coverage, device
        See `calibrate_entry`; the card is not changed.
    driver
        Network that moves the atoms. It must not have learned from any of the frames or from their labels.

    Returns
    -------
    Calibration
        Half-widths for the errors of `driver`.

    Raises
    ------
    CalibrationError, DataError
        See `calibrate_entry`.
    """
    return _calibrate(card, dataset, frames, driver, coverage, device)


def _calibrate(
    card: Card, dataset: Dataset, frames: Sequence[int], driver: SchNet | None, coverage: float, device: str
) -> Calibration:
    seen = sorted(set(frames).difference(unseen_frames(card, dataset)))
    if seen:
        raise CalibrationError(
            f"{dataset.source}: a member of {card.name} was trained or validated on {len(seen)} of the {len(frames)} "
            f"frames, the first is {seen[0]}; leave them out"
        )
    check_sizes(len(card.members), len(frames), coverage)
    _check_distinct(dataset, frames)
    models = [loaded.model for loaded in locate_members(card.path)]
    chosen = dataset._replace(frames=[dataset.frames[i] for i in frames])
    moved = None if driver is None else evaluate_dataset([driver], chosen, device=device).member(0)
    errors = evaluate_dataset(models, chosen, device=device).ensemble_errors(moved)
    _check_familiar(card, errors, dataset.source)
    members = tuple(member.sha256 for member in card.members)
    return calibrate(
        errors,
        coverage=coverage,
        file=dataset.source,
        sha256=dataset.sha256,
        members=members,
        false_flag_rate=FALSE_FLAG_RATE if card.calibration is None else card.calibration.false_flag_rate,
    )


def _check_distinct(dataset: Dataset, frames: Sequence[int]) -> None:
    """Refuse repeated frames: a frame that counts twice would promise more certainty than its label supports."""
    first: dict[bytes, int] = {}
    for i in frames:
        earlier = first.setdefault(content(dataset.frames[i]), i)
        if earlier != i:
            raise CalibrationError(f"{dataset.source}: frame {i} repeats frame {earlier}; give each frame once")


def _check_familiar(card: Card, errors: EnsembleErrors, source: str) -> None:
    for name, unit, found, known in (
        ("energy", "eV", errors.energy_error, [m.validation.energy_mae for m in card.members]),
        ("force", "eV/Å", errors.force_errors, [m.validation.force_mae for m in card.members]),
    ):
        validation = [value for value in known if value is not None]
        if found is None or not validation:
            continue
        here = float(np.nanmean(np.abs(found)))
        if not here <= max(UNFAMILIAR * max(validation), MUCH):
            raise CalibrationError(
                f"{source}: {name} MAE of {card.name} is {here:.3g} {unit} on these frames, but in validation it was "
                f"{max(validation):.3g}; give frames of the system, reference method and units that it was trained on"
            )
