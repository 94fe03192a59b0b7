"""Write a registry entry from trained folds: checkpoints, errors, a relaxed structure and the card."""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.optimize import BFGS

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import SchNetCalculator
from schnet_ase.data import CrossValidationSplit, Dataset
from schnet_ase.errors import StructureError, TrainingError
from schnet_ase.evaluation.evaluate import Evaluation, evaluate_frames
from schnet_ase.networks import SchNet, StackedSchNet
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, Member, Metrics, Structure, TrainingData, read_card, write_card
from schnet_ase.registry.checkpoint import save_model
from schnet_ase.registry.provenance import Provenance, library_versions
from schnet_ase.training.config import RunConfig
from schnet_ase.training.identity import entry_differences
from schnet_ase.training.normalization import is_isolated_atom
from schnet_ase.training.state import TrainingResult
from schnet_ase.uncertainty.fit import calibrate
from schnet_ase.uncertainty.metrics import Errors

log = logging.getLogger("schnet_ase")


def fold_seed(config: RunConfig, k: int) -> int:
    """Return the seed of the initial weights and the batch order of the fold with index `k`."""
    return config.folds * config.seed + k


def fold_name(k: int) -> str:
    """Return the name of the fold with index `k`; names count from 1."""
    return f"fold-{k + 1}"


def earlier_entry(entry: Path, data: TrainingData, members: Sequence[Provenance]) -> Card | None:
    """Return the card of the entry that an earlier call of the same run wrote; None if there is none.

    Parameters
    ----------
    entry
        Folder of the entry.
    data, members
        See `entry_differences`.

    Raises
    ------
    TrainingError
        The folder holds the entry of another run.
    """
    if not entry.exists():
        return None
    card = read_card(entry)
    if changed := entry_differences(card, data, members):
        more = "" if len(changed) <= 5 else f" and {len(changed) - 5} more"
        raise TrainingError(
            f"{entry}: an entry of this name exists, with other {', '.join(changed[:5])}{more}; "
            "remove it or give the configuration another name"
        )
    log.info("%s: exists already, with the same configuration and data", entry)
    return card


def write_entry(
    config: RunConfig,
    dataset: Dataset,
    test: Dataset | None,
    split: CrossValidationSplit,
    results: list[TrainingResult],
    entry: Path,
    command: str,
    data: TrainingData | None = None,
) -> Card:
    """Write the folder `entry` from the trained folds of a cross-validation, or from a single training.

    Parameters
    ----------
    config
        Configuration of the run.
    dataset, test
        Frames of the folds and of the calibration; test frames, or None.
    split
        Split of `dataset`.
    results
        Result of each fold, in order.
    entry
        Folder to write, which must not exist. It is written under a temporary name beside it and renamed.
    command
        Command that made the entry, for the card.
    data
        Description of the frames for the card; None: that of `describe_data` for a run from random weights.

    Returns
    -------
    Card
        The card of the new entry.

    Raises
    ------
    CalibrationError
        There are calibration frames, but too few of them or too few folds.
    OSError
        The disk is full or the folder is not writable; nothing is left behind.
    """
    data = data or describe_data(
        config, dataset, test, split, formulas=Provenance.read(results[0].path).origin.formulas
    )
    models = [result.model for result in results]
    ensemble = StackedSchNet(models)
    calibration = _evaluate(ensemble, dataset, split.calibration.tolist())
    tested = None if test is None else _evaluate(ensemble, test, list(range(len(test.frames))))
    building = entry.with_name(f".{entry.name}.new")
    if building.exists():  # left by a process that was killed
        shutil.rmtree(building)
    building.mkdir(parents=True)
    try:
        members = []
        for k, result in enumerate(results):
            file = f"{fold_name(k)}.safetensors"
            provenance = replace(
                Provenance.read(result.path),
                validation=None,
                versions=library_versions(),
                name=f"{config.name}/{fold_name(k)}",
                calibration_frames=tuple(split.calibration.tolist()),
                best_step=result.best.step,
            )
            save_model(result.model, building / file, **provenance.to_json())
            members.append(
                Member(
                    file,
                    sha256(building / file),
                    validation=_evaluate_one(result.model, dataset, split.folds[k].validation.tolist()),
                    test=None if tested is None else tested.member(k).errors(),
                    seconds=round(result.history[-1].seconds, 1),
                )
            )
        card = Card(
            name=config.name,
            elements=tuple(chemical_symbols[z] for z in dataset.elements),
            data=data,
            members=tuple(members),
            metrics=Metrics(
                calibration=None if calibration is None else calibration.mean().errors(),
                test=None if tested is None else tested.mean().errors(),
            ),
            structure=Structure.from_atoms(relax(models, _lowest(dataset))),
            command=command,
            versions=library_versions(),
            calibration=None
            if calibration is None
            else calibrate(
                calibration.ensemble_errors(),
                file=dataset.source,
                sha256=dataset.sha256,
                members=tuple(member.sha256 for member in members),
                false_flag_rate=config.data.false_flag_rate,
            ),
        )
        write_card(card, building)
        building.rename(entry)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return read_card(entry)


def _evaluate(ensemble: StackedSchNet, dataset: Dataset, indices: list[int]) -> Evaluation | None:
    if not indices:
        return None
    return evaluate_frames(ensemble, dataset.frames, indices)


def _evaluate_one(model: SchNet, dataset: Dataset, indices: list[int]) -> Errors:
    return evaluate_frames(model, dataset.frames, indices).errors()


def describe_data(
    config: RunConfig,
    dataset: Dataset,
    test: Dataset | None,
    split: CrossValidationSplit,
    initial: str | None = None,
    formulas: Sequence[str] | None = None,
) -> TrainingData:
    """Describe the frames of a run for its card.

    Parameters
    ----------
    config, dataset, test, split
        Configuration of the run, its data, test frames and split.
    initial
        Description of the data of the initial weights; None: random weights.
    formulas
        Chemical formulas of all frames, see `TrainingData`.
    """
    energies = [f.energy for f in dataset.frames if f.energy is not None]
    forces = [float(np.linalg.norm(f.forces, axis=1).max()) for f in dataset.frames if f.forces is not None]
    return TrainingData(
        description=config.data.description,
        file=dataset.source,
        sha256=dataset.sha256,
        test_file=None if test is None else test.source,
        test_sha256=None if test is None else test.sha256,
        units=dataset.units,
        level_of_theory=config.data.level_of_theory,
        temperature=config.data.temperature,
        licence=config.data.licence,
        n_frames=len(dataset.frames),
        energy_min=min(energies, default=None),
        energy_max=max(energies, default=None),
        force_max=max(forces, default=None),
        split=f"{_in_words(split)}, seed {config.seed}",
        initial=initial,
        extra=None if config.data.extra is None else Path(config.data.extra).name,
        formulas=None if formulas is None else tuple(formulas),
    )


def _in_words(split: CrossValidationSplit) -> str:
    if len(split.folds) == 1:
        (only,) = split.folds
        return f"{split.rule}, {len(only.training)} frames to train and {len(only.validation)} to validate on"
    n_folded = sum(len(fold.validation) for fold in split.folds)
    folds = f"{len(split.folds)} {split.rule} folds over {n_folded} frames"
    return f"{folds}, {len(split.calibration)} kept for calibration"


def _lowest(dataset: Dataset) -> Atoms:
    """Return the frame with the lowest energy among those of the most frequent composition, isolated atoms excepted."""
    usable = [frame for frame in dataset.frames if not is_isolated_atom(frame)] or dataset.frames
    compositions = [tuple(sorted(frame.geometry.numbers.tolist())) for frame in usable]
    (usual, _), *_ = Counter(compositions).most_common(1)
    alike = [frame for frame, composition in zip(usable, compositions, strict=True) if composition == usual]
    return min(alike, key=lambda frame: math.inf if frame.energy is None else frame.energy).atoms()


def relax(models: list[SchNet], start: Atoms) -> Atoms:
    """Relax `start` to the nearest minimum of the mean energy in float64, with a fixed cell.

    Steps are small, because a line search can find unphysical minima that a network has far from its training data.
    Where atoms fall into each other nevertheless, as they do with a network that was hardly trained, the start is
    returned: a training of hours must not be lost for it.
    """
    atoms: Atoms = start.copy()
    settings: dict[str, Any] = {"device": "cpu", "dtype": "float64", "engine": "autograd", "skin": 0.0}
    one = len(models) == 1
    atoms.calc = SchNetCalculator(models[0], **settings) if one else SchNetEnsembleCalculator(models, **settings)
    try:
        with BFGS(atoms, logfile=None, maxstep=0.05) as optimizer:
            optimizer.run(fmax=1e-3, steps=1000)
    except StructureError as error:
        log.warning("the relaxation of %s failed (%s): the entry keeps it as it was", start.symbols, error)
        atoms.positions = start.positions
    atoms.calc = None
    return atoms
