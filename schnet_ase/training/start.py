"""The trained weights that a training starts from, and whether they have seen frames that are to judge it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from ase.formula import Formula

from schnet_ase.data import CrossValidationSplit, Dataset
from schnet_ase.data.frames import formulas
from schnet_ase.errors import DataError, TrainingError
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance
from schnet_ase.registry.lookup import owning_card
from schnet_ase.registry.provenance import all_hashes, extra_hashes
from schnet_ase.training.config import RunConfig
from schnet_ase.training.run import content, load_frames

log = logging.getLogger("schnet_ase")
MANY = 100
"""Formulas that a card has room for."""


def check_start(
    files: Sequence[Path], config: RunConfig, dataset: Dataset, split: CrossValidationSplit, test: Dataset | None
) -> str:
    """Refuse weights that have seen a frame of validation, calibration or tests; say what could not be checked.

    Frames are compared one by one where those of the start lie beside the data. Elsewhere a frame of another chemical
    formula than all of the start's cannot be one of them, and of the others it is not known.

    Parameters
    ----------
    files
        Checkpoint of each fold of `split`.
    config, dataset, split, test
        Of the training that starts from them.

    Returns
    -------
    str
        The start's data and what could not be checked, for the card.

    Raises
    ------
    TrainingError
        A frame has been seen for sure, or the folds' weights come from different data.
    """
    earlier = [read_provenance(file) for file in files]
    if len({e.get("data_sha256") for e in earlier}) > 1:
        raise TrainingError(f"{files[0]}: the other folds were trained on other data; give one run")
    for file, provenance in zip(files, earlier, strict=True):
        if {dataset.sha256, *dataset.parts}.intersection(extra_hashes(provenance)):
            raise TrainingError(
                f"{file}: was trained on all of {dataset.source}, as its data.extra; give other weights"
            )
    data = _data_of_start(earlier[0], config, dataset)
    if data is None:
        return _compare_formulas(files[0], earlier[0], config, dataset, test)
    tested = {} if test is None else {content(frame): i for i, frame in enumerate(test.frames)}
    for file, provenance, fold in zip(files, earlier, split.folds, strict=True):
        trained, validated = (
            _in_both(data, provenance.get(key, []), dataset) for key in ("training_frames", "validation_frames")
        )
        for known, verb, use, frames in (
            (trained, "trained", "validation", fold.validation),
            (trained, "trained", "calibration", split.calibration),
            (validated, "validated", "calibration", split.calibration),
        ):
            _refuse_if(file, verb, use, len(known.intersection(frames.tolist())), len(frames))
        for key, verb in (("training_frames", "trained"), ("validation_frames", "validated")):
            both = sum(content(data.frames[i]) in tested for i in provenance.get(key, [])) if tested else 0
            _refuse_if(file, verb, "tests", both, len(tested))
    return data.source


def formulas_behind(file: Path) -> set[str] | None:
    """The chemical formulas of the frames behind a model, as its file or its entry's card says; None: neither does."""
    known = read_provenance(file).get("formulas")
    if known is None:
        card = owning_card(file)
        known = None if card is None else card.data.formulas
    return None if known is None else set(known)


def formulas_to_keep(dataset: Dataset, extra: Dataset | None, initial: Path | None) -> list[str] | None:
    """The chemical formulas of all frames behind a training, those of its start too; None: unknown, or very many."""
    found = {*formulas(dataset.frames), *(() if extra is None else formulas(extra.frames))}
    if initial is not None:
        earlier = formulas_behind(initial)
        if earlier is None:
            return None
        found |= earlier
    return sorted(found) if len(found) <= MANY else None


def _refuse_if(file: Path, verb: str, use: str, both: int, of: int) -> None:
    if both:
        raise TrainingError(
            f"{file}: was {verb} on {both} of the {of} frames that are for {use} here; "
            "give a run that splits them in the same way (of several molecules: with data.by_molecule)"
        )


def _data_of_start(earlier: dict[str, Any], config: RunConfig, dataset: Dataset) -> Dataset | None:
    """The frames behind earlier weights; None where they are not there, or are others by now."""
    if earlier.get("data_sha256") == dataset.sha256:
        return dataset
    beside = _beside(earlier, config)
    if beside is None:
        return None
    try:
        data = load_frames(str(beside), config)
    except DataError:
        return None
    return data if data.sha256 == earlier.get("data_sha256") else None


def _beside(earlier: dict[str, Any], config: RunConfig) -> Path | None:
    name = earlier.get("data_file")
    return None if name is None else Path(config.data.file).with_name(name)


def _compare_formulas(
    file: Path, earlier: dict[str, Any], config: RunConfig, dataset: Dataset, test: Dataset | None
) -> str:
    source = str(earlier.get("data_file", "unknown data"))
    if all_hashes(earlier).intersection((dataset.sha256, *dataset.parts)):
        raise TrainingError(
            f"{file}: was trained on frames of {dataset.source}; on which cannot be seen without {source} beside it: "
            "copy that there, or give other weights"
        )
    known, elements = formulas_behind(file), load_checkpoint(file).elements
    symbols = None if elements is None else {chemical_symbols[z] for z in elements}
    here = {*formulas(dataset.frames), *(() if test is None else formulas(test.frames))}
    possible = {f for f in here if symbols is None or symbols >= Formula(f).count().keys()}
    shared = sorted(possible if known is None else possible & known)
    if not shared:
        log.info("%s: was not trained on any %s, so none of these frames can be one of its own", file, _some(here))
        return source
    log.warning(
        "%s: was trained on %s, which is not beside %s: whether frames of %s that validate, calibrate or test here are "
        "among its training frames could not be checked; if they are, the errors are too small",
        file,
        source,
        config.data.file,
        _some(shared),
    )
    return f"{source}; whether frames of {_some(shared)} here are among those could not be checked"


def _some(names: Sequence[str] | set[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - 5} other formulas" if len(names) > 5 else "")


def _in_both(data: Dataset, frames: list[int], dataset: Dataset) -> set[int]:
    """Those of `frames` of `data` that are in `dataset`, by their index there."""
    if data is dataset:
        return set(frames)
    contents = {content(data.frames[i]) for i in frames}
    return {i for i, frame in enumerate(dataset.frames) if content(frame) in contents}
