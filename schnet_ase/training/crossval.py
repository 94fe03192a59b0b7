"""k-fold cross-validation: the members of an ensemble, trained side by side, and the registry entry they become."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from scipy.optimize import minimize

from schnet_ase.card import Card, Member, Metrics, Structure, TrainingData, read_card, write_card
from schnet_ase.checkpoint import save_model
from schnet_ase.data import CrossValidationSplit, Dataset, split_folds
from schnet_ase.errors import TrainingError
from schnet_ase.files import sha256
from schnet_ase.forces import predict
from schnet_ase.graph import build_graph, geometry
from schnet_ase.metrics import Errors
from schnet_ase.model import SchNet, StackedSchNet
from schnet_ase.neighbors import Floats
from schnet_ase.training.batches import make_example
from schnet_ase.training.config import RunConfig
from schnet_ase.training.evaluate import Evaluation, evaluate
from schnet_ase.training.history import Row
from schnet_ase.training.run import load_frames
from schnet_ase.training.trainer import TrainingResult, library_versions, train

SECONDS_BETWEEN_REPORTS = 0.5


class FoldProgress(NamedTuple):
    """A fold's state, as it is reported."""

    fold: int
    """Counted from 1."""
    step: int
    row: Row | None
    """The newest validation, once after it was made."""


class _Interrupted(Exception):
    """The run is being ended from outside; the fold's last checkpoint is where it goes on."""


def crossval(
    config: RunConfig,
    folder: Path,
    models: Path,
    *,
    device: str = "cpu",
    workers: int | None = None,
    command: str = "schnet_ase.training.crossval",
    report: Callable[[FoldProgress], None] = lambda progress: None,
) -> Card:
    """Train the folds and write a registry entry; the same call goes on with one that was interrupted.

    Parameters
    ----------
    config
        Validated configuration; `config.folds` members, `config.data.calibration` frames that no fold touches.
    folder
        Of the run: one folder a fold with its checkpoints, metrics and learning curve.
    models
        Where the entry ``<models>/<config.name>/`` is written, whole or not at all.
    device
        ``"cpu"`` or ``"cuda"``.
    workers
        Folds trained at the same time, each in a process of its own; None: one a core (cpu), one (cuda). A script
        that calls this needs ``if __name__ == "__main__":``, as always with processes.
    command
        What to write into the card as the command that made the entry.
    report
        Told about the folds while they train.

    Returns
    -------
    Card
        Of the new entry.

    Raises
    ------
    TrainingError
        There is an entry of this name already, or a fold cannot go on.
    DataError
        The data cannot be trained on.
    """
    entry = models / config.name
    if entry.exists():
        raise TrainingError(f"{entry}: an entry of this name exists; remove it or give the configuration another name")
    dataset = load_frames(config.data.file, config)
    test = None if config.data.test is None else load_frames(config.data.test, config)
    split = split_folds(len(dataset.frames), config.folds, config.data.calibration, config.seed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    n_workers = min(config.folds, workers or (cores if device == "cpu" else 1))
    threads = max(1, cores // n_workers)
    results = _train_folds(config, folder, device, n_workers, threads, report)
    return _write_entry(config, dataset, test, split, results, entry, command)


def _train_folds(
    config: RunConfig,
    folder: Path,
    device: str,
    workers: int,
    threads: int,
    report: Callable[[FoldProgress], None],
) -> list[TrainingResult]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, mp_context=context) as pool:
        queue, stop = manager.Queue(), manager.Event()
        futures: list[Future[TrainingResult]] = [
            pool.submit(_train_fold, config, k, folder / fold_name(k), device, threads, queue, stop)
            for k in range(config.folds)
        ]
        try:
            while wait(futures, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_EXCEPTION).not_done:
                _drain(queue, report)
                if any(f.done() and f.exception() for f in futures):
                    break
            _drain(queue, report)
            for future in futures:
                if future.done() and (error := future.exception()):
                    raise error
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def fold_name(k: int) -> str:
    """Name of the fold with index `k`, counted from 1."""
    return f"fold-{k + 1}"


def _drain(queue: Queue[FoldProgress], report: Callable[[FoldProgress], None]) -> None:
    while True:
        try:
            report(queue.get_nowait())
        except Empty:
            return


def _train_fold(
    config: RunConfig,
    k: int,
    folder: Path,
    device: str,
    threads: int,
    queue: Queue[FoldProgress],
    stop: Event,
) -> TrainingResult:
    """In a process of its own."""
    torch.set_num_threads(threads)
    parent, last = os.getppid(), time.monotonic()

    def report(step: int, row: Row | None) -> None:
        nonlocal last
        now = time.monotonic()
        if row is not None or now - last >= SECONDS_BETWEEN_REPORTS:
            last = now
            # A parent that was killed cannot tell; its folds must not train on beside those of the next start.
            if os.getppid() != parent or stop.is_set():
                raise _Interrupted
            queue.put(FoldProgress(k + 1, step, row))

    dataset = load_frames(config.data.file, config)
    split = split_folds(len(dataset.frames), config.folds, config.data.calibration, config.seed)
    seed = config.folds * config.seed + k
    return train(config, dataset, split.folds[k], folder, seed=seed, device=device, report=report)


def _write_entry(
    config: RunConfig,
    dataset: Dataset,
    test: Dataset | None,
    split: CrossValidationSplit,
    results: list[TrainingResult],
    entry: Path,
    command: str,
) -> Card:
    models = [result.model for result in results]
    ensemble = StackedSchNet(models)
    calibration = _evaluate(ensemble, dataset, split.calibration.tolist())
    tested = None if test is None else _evaluate(ensemble, test, list(range(len(test.frames))))
    entry.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}."))
    try:
        building.chmod(0o755)
        members = []
        for k, result in enumerate(results):
            file = f"{fold_name(k)}.safetensors"
            save_model(
                result.model,
                building / file,
                name=f"{config.name}/{fold_name(k)}",
                training=asdict(config.training),
                seed=config.folds * config.seed + k,
                data_file=dataset.source,
                data_sha256=dataset.sha256,
                training_frames=split.folds[k].training.tolist(),
                validation_frames=split.folds[k].validation.tolist(),
                calibration_frames=split.calibration.tolist(),
                best_step=result.best.step,
                versions=library_versions(),
            )
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
            data=_describe(config, dataset, test, split),
            members=tuple(members),
            metrics=Metrics(
                calibration=None if calibration is None else calibration.mean().errors(),
                test=None if tested is None else tested.mean().errors(),
            ),
            structure=Structure.from_atoms(relax(models, _lowest(dataset))),
            command=command,
            versions=library_versions(),
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
    return evaluate(ensemble, [make_example(dataset.frames[i], ensemble.config.pair_cutoff) for i in indices])


def _evaluate_one(model: SchNet, dataset: Dataset, indices: list[int]) -> Errors:
    examples = [make_example(dataset.frames[i], model.config.pair_cutoff) for i in indices]
    return evaluate(model, examples).errors()


def _describe(config: RunConfig, dataset: Dataset, test: Dataset | None, split: CrossValidationSplit) -> TrainingData:
    energies = [f.energy for f in dataset.frames if f.energy is not None]
    n_folds, n_calibration = len(split.folds), len(split.calibration)
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
        split=(
            f"{n_folds} random folds over {len(dataset.frames) - n_calibration} frames, "
            f"{n_calibration} kept for calibration, seed {config.seed}"
        ),
    )


def _lowest(dataset: Dataset) -> Atoms:
    """The frame with the lowest energy per atom."""
    energies = [np.inf if f.energy is None else f.energy / len(f.geometry.numbers) for f in dataset.frames]
    return dataset.frames[int(np.argmin(energies))].atoms()


def relax(models: list[SchNet], start: Atoms) -> Atoms:
    """`start` at the nearest minimum of the mean energy, cell fixed; computed in float64."""
    ensemble = StackedSchNet(models).to(torch.device("cpu"), torch.float64)
    atoms: Atoms = start.copy()

    def energy_and_gradient(x: Floats) -> tuple[float, Floats]:
        atoms.positions = x.reshape(-1, 3)
        prediction = predict(ensemble, build_graph(geometry(atoms), ensemble.config.pair_cutoff))
        assert prediction.forces is not None
        return float(prediction.energy.mean()) - offset, -prediction.forces.mean(0).numpy().ravel()

    offset = 0.0
    offset = energy_and_gradient(atoms.positions.ravel())[0]
    found = minimize(
        energy_and_gradient,
        atoms.positions.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-4, "ftol": 1e-14, "maxiter": 2000},
    )
    atoms.positions = found.x.reshape(-1, 3)
    return atoms
