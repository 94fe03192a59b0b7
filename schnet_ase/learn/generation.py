"""One generation of the ensemble: train its members from the previous ones, calibrate it, and write an entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.crossval.folds import FoldProgress, checkpoints
from schnet_ase.crossval.run import train_folds
from schnet_ase.data import CrossValidationSplit, Dataset, read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.learn.config import LearnConfig
from schnet_ase.monitor.arguments import FAILED_ABOVE
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.card import Card, read_card
from schnet_ase.registry.loading import locate_members
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.training.entry import write_entry

Progress = Callable[[str, int, int], None]
"""Callback that receives the name of the work, its amount done, and its total."""


class Trained:
    """A trained generation.

    Attributes
    ----------
    number : int
        Number, counted from 0.
    thresholds : tuple of float
        eV/Å; above the first a frame is flagged, above the second it has failed.
    """

    def __init__(
        self, number: int, card: Card, dataset: Dataset, split: CrossValidationSplit, config: LearnConfig
    ) -> None:
        self.number, self.card, self._dataset, self._split = number, card, dataset, split
        self.models = [loaded.model for loaded in locate_members(card.path)]
        wanted = config.flags.threshold
        if isinstance(wanted, tuple):
            self.thresholds = wanted
        else:
            assert card.calibration is not None  # the first labels were enough for a calibration
            lo = card.calibration.threshold() if wanted == "auto" else wanted
            self.thresholds = (lo, FAILED_ABOVE * lo)

    @cached_property
    def calculator(self) -> SchNetEnsembleCalculator:
        """Return a calculator for dynamics."""
        return SchNetEnsembleCalculator(self.card.path)

    def errors(self, frame: Atoms) -> tuple[float, float]:
        """Return the errors of the mean on a labelled frame: of the energy, eV, and the MAE of force components,
        eV/Å."""
        self.calculator.reset()  # no neighbour list from another frame, so that sums are equal to the bit after a kill
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=self.calculator)
        energy = abs(atoms.get_potential_energy() - frame.get_potential_energy())
        return energy, float(np.abs(atoms.get_forces() - frame.get_forces()).mean())

    def validation(self) -> tuple[float, float]:
        """Return MAEs of energy, eV, and force components, eV/Å, of each member on the frames that it did not train
        on."""
        found = [member.validation for member in self.card.members]
        frames = [errors.n_frames for errors in found]
        energy, force = ([getattr(errors, name) for errors in found] for name in ("energy_mae", "force_mae"))
        return float(np.average(energy, weights=frames)), float(np.average(force, weights=frames))

    def held_out_mae(self, numbers: list[int]) -> float:
        """Return the MAE of force components on some labels, eV/Å, by the member that did not train on each, or by
        all."""
        found = evaluate_dataset(self.models, self._dataset._replace(frames=[self._dataset.frames[n] for n in numbers]))
        assert found.reference_forces is not None
        errors = []
        for n, end, n_atoms in zip(numbers, np.cumsum(found.n_atoms), found.n_atoms, strict=True):
            atoms = slice(end - n_atoms, end)
            unseen = [k for k, fold in enumerate(self._split.folds) if n not in fold.training]
            forces = found.forces[unseen, atoms].mean(axis=0)
            errors.append(np.abs(forces - found.reference_forces[atoms]).mean())
        return float(np.mean(errors))


def train_generation(
    config: LearnConfig,
    number: int,
    split: CrossValidationSplit,
    labels: Path,
    folder: Path,
    workers: int | None,
    progress: Progress,
) -> Trained:
    """Train and calibrate the generation `number`, or resume it; do nothing if it is complete.

    Parameters
    ----------
    config
        Configuration of the run.
    number
        Number, counted from 0; each generation except the first starts from the weights of the previous one.
    split
        Split of the current labels.
    labels
        File of the labels; a copy is kept with the ensemble.
    folder
        Folder of the run.
    workers, progress
        As in `learn`.
    """
    generation = folder / f"generation-{number:03d}"
    entry, data = generation / config.name, generation / "labels.extxyz"
    if not data.exists():
        atomic_write(data, labels.read_bytes())
    dataset = read_dataset(data)
    if not entry.exists():
        run = RunConfig(
            name=config.name,
            data=DataConfig(
                file=str(data),
                level_of_theory=config.reference.level_of_theory,
                temperature=f"{config.dynamics.temperature:g} K",
                description=f"learned on the fly with {config.reference.calculator}, generation {number}",
            ),
            model=config.model,
            training=config.warm if number else config.training,
            folds=config.folds,
            seed=config.seed,
        )
        done = [0] * config.folds

        def report(fold: FoldProgress) -> None:
            done[fold.fold - 1] = fold.step
            progress(f"training generation {number}", sum(done), config.folds * run.training.steps)

        earlier = folder / f"generation-{number - 1:03d}" / "folds"
        weights = checkpoints(earlier, config.folds) if number else None
        folds = generation / "folds"
        results = train_folds(run, split.folds, folds, initial=weights, workers=workers, report=report)
        write_entry(run, dataset, None, split, results, entry, "schnet_ase.learn")
    return Trained(number, read_card(entry), dataset, split, config)
