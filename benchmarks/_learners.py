"""Methods that learn the energies of a molecule from frames: SchNet, and kernel methods of other packages."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist

from schnet_ase import SchNetCalculator
from schnet_ase.data import Dataset, Frame, TrainingSplit
from schnet_ase.geometry.arrays import Floats
from schnet_ase.training.config import DataConfig, RunConfig, TrainingConfig
from schnet_ase.training.single import train

SIGMAS = (5, 10, 20, 40)
"""Candidate widths of sGDML's kernel, in units of its descriptor's coordinates."""
WIDTHS = (1.0, 4.0, 16.0, 64.0)
"""Candidate widths of the ridge regression's kernel, in medians of the distances between training descriptors."""
ALPHAS = (1e-2, 1e-4, 1e-6, 1e-8)
"""Candidate strengths of the ridge regression's regularization."""


class Task(NamedTuple):
    """Data to learn from."""

    dataset: Dataset
    split: TrainingSplit
    steps: int
    """Number of training steps of SchNet."""
    folder: Path
    """Folder of SchNet's training."""


class Labels(NamedTuple):
    """Predictions for B frames of N atoms."""

    energy: Floats
    """(B,) eV."""
    forces: Floats | None
    """(B, N, 3) eV/Å."""


class Learned(NamedTuple):
    """A trained model."""

    predict: Callable[[Sequence[Frame]], Labels]
    seconds: float
    """Processor time of the training with the chosen hyperparameters."""
    parameters: int
    chosen: str
    """Hyperparameters chosen on the validation frames."""


Report = Callable[[float], None]
"""Callback that receives the share of the work that is done."""


class Method(NamedTuple):
    """Learning method."""

    name: str
    packages: tuple[str, ...]
    """Additional modules that the method needs."""
    learn: Callable[[Task, Report], Learned]
    kernel_rows: Callable[[int, int], int]
    """Number of rows of its kernel matrix as a function of the numbers of frames and atoms."""


def learn_schnet(task: Task, report: Report) -> Learned:
    """Train the preset md from the start, since a resumed training has no total time; predict as in dynamics."""
    shutil.rmtree(task.folder, ignore_errors=True)
    config = RunConfig(
        name="scaling",
        data=DataConfig(file=task.dataset.source),
        training=replace(TrainingConfig(), steps=task.steps),
    )
    start = time.process_time()
    result = train(config, task.dataset, task.split, task.folder, report=lambda step, row: report(step / task.steps))
    seconds = time.process_time() - start

    def predict(frames: Sequence[Frame]) -> Labels:
        atoms = frames[0].atoms()
        atoms.calc = SchNetCalculator(result.path, threads=1)
        energy, forces = [], []
        for frame in frames:
            atoms.positions = frame.geometry.positions
            forces.append(atoms.get_forces())
            energy.append(atoms.get_potential_energy())
        return Labels(np.array(energy), np.array(forces))

    parameters = sum(p.numel() for p in result.model.parameters())
    return Learned(predict, seconds, parameters, f"step {result.best.step:,}")


def learn_gradients(task: Task, report: Report) -> Learned:
    """Train sGDML: forces are the gradient of a kernel expansion, and symmetries are found in the frames.

    References
    ----------
    Chmiela, Sauceda, Müller, Tkatchenko, Nat. Commun. 9, 3887 (2018).
    """
    from sgdml.predict import GDMLPredict  # not installed with the package, and not needed by the other methods
    from sgdml.train import GDMLTrain

    logging.disable(logging.INFO + 1)  # importing it makes loggers verbose, including PyTorch's
    frames = task.dataset.frames
    training, validation = ([frames[i] for i in part] for part in task.split)
    trainer = GDMLTrain(max_processes=1)

    def predict_with(model: dict[str, Any], frames: Sequence[Frame]) -> Labels:
        positions = np.array([frame.geometry.positions for frame in frames])
        energy, forces = GDMLPredict(model, max_processes=1).predict(positions.reshape(len(frames), -1))
        return Labels(energy, forces.reshape(positions.shape))

    start = time.process_time()
    description = trainer.create_task(
        _sgdml_frames(training), len(training), _sgdml_frames(validation), len(validation), sig=SIGMAS[0]
    )
    before = time.process_time() - start
    tried: list[tuple[float, float, dict[str, Any]]] = []
    for k, sigma in enumerate(SIGMAS):
        start = time.process_time()
        model = trainer.train({**description, "sig": sigma})
        seconds = before + time.process_time() - start
        tried.append((_force_error(predict_with(model, validation), validation), seconds, model))
        report((k + 1) / len(SIGMAS))
    _, seconds, best = min(tried, key=lambda t: t[0])
    chosen = f"σ = {best['sig']}, solver {best['solver_name']}"
    return Learned(lambda frames: predict_with(best, frames), seconds, best["alphas_F"].size, chosen)


def _sgdml_frames(frames: Sequence[Frame]) -> dict[str, Any]:
    """Return frames in the form that sgdml takes."""
    return {
        "name": np.array("frames"),
        "theory": np.array("not stated"),
        "z": frames[0].geometry.numbers,
        "R": np.array([frame.geometry.positions for frame in frames]),
        "E": np.array([frame.energy for frame in frames]),
        "F": np.array([frame.forces for frame in frames]),
    }


def _force_error(labels: Labels, frames: Sequence[Frame]) -> float:
    return float(np.abs(labels.forces - np.array([frame.forces for frame in frames])).mean())


def learn_energies(task: Task, report: Report) -> Learned:
    """Train kernel ridge regression of energies with a Gaussian kernel of inverse distances, sorted or not."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    frames = task.dataset.frames
    training, validation = ([frames[i] for i in part] for part in task.split)
    n = len(training)
    energies = np.array([frame.energy for frame in (*training, *validation)])
    offset = energies[:n].mean()
    tried = []
    for descriptor in (inverse_distances, sorted_inverse_distances):
        inputs = descriptor([*training, *validation])
        median = np.median(pdist(inputs[:n]))
        search = GridSearchCV(
            KernelRidge(kernel="rbf"),
            {"alpha": ALPHAS, "gamma": [0.5 / (width * median) ** 2 for width in WIDTHS]},
            cv=PredefinedSplit([-1] * n + [0] * len(validation)),
            scoring="neg_mean_absolute_error",
            refit=False,
        )
        search.fit(inputs, energies - offset)
        width = np.sqrt(0.5 / search.best_params_["gamma"]) / median
        tried.append((search.best_score_, descriptor, search.best_params_, width))
    _, descriptor, best, width = max(tried, key=lambda t: t[0])
    start = time.process_time()
    model = KernelRidge(kernel="rbf", **best).fit(descriptor(training), energies[:n] - offset)
    seconds = time.process_time() - start
    report(1.0)

    def predict(frames: Sequence[Frame]) -> Labels:
        return Labels(model.predict(descriptor(frames)) + offset, None)

    order = "sorted" if descriptor is sorted_inverse_distances else "in order"
    return Learned(predict, seconds, n, f"{order}, width {width:.0f} medians, α = {best['alpha']:g}")


def inverse_distances(frames: Sequence[Frame]) -> Floats:
    """Return inverse distances (B, N (N - 1) / 2) in 1/Å, in the order of the atoms."""
    return np.array([1.0 / pdist(frame.geometry.positions) for frame in frames])


def sorted_inverse_distances(frames: Sequence[Frame]) -> Floats:
    """Return inverse distances sorted within each pair of elements, so that permuting like atoms changes nothing."""
    numbers = frames[0].geometry.numbers
    first, second = np.triu_indices(len(numbers), k=1)
    kinds = np.sort([numbers[first], numbers[second]], axis=0)
    values = inverse_distances(frames)
    bags = [values[:, (kinds == kind[:, None]).all(axis=0)] for kind in np.unique(kinds, axis=1).T]
    return np.concatenate([np.sort(bag, axis=1) for bag in bags], axis=1)


METHODS = (
    Method("SchNet", (), learn_schnet, lambda frames, atoms: 0),
    Method("sGDML", ("sgdml.train", "sgdml.predict"), learn_gradients, lambda frames, atoms: 3 * atoms * frames),
    Method(
        "kernel ridge",
        ("sklearn.kernel_ridge", "sklearn.model_selection"),
        learn_energies,
        lambda frames, atoms: frames,
    ),
)
