"""Request labels from the reference, in the order of their numbers, or find those made before a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from schnet_ase.learn.audit import Audit, Failed, Labelled
from schnet_ase.learn.config import LearnConfig
from schnet_ase.learn.explore import Excursion
from schnet_ase.learn.folder import attempt
from schnet_ase.learn.generation import Progress, Trained
from schnet_ase.learn.labels import LabelStore, group_name
from schnet_ase.learn.reference import Label, ReferenceFailed, label
from schnet_ase.learn.selection import farthest_first
from schnet_ase.learn.start import given_label, moved

log = logging.getLogger("schnet_ase")


class Labeller:
    """Labels frames, or takes existing labels.

    Attributes
    ----------
    store : LabelStore
        All labels on disk.
    n_labels : int
        Number of labels in the store that the log has reached.
    """

    def __init__(
        self,
        config: LearnConfig,
        folder: Path,
        audit: Audit,
        make_calculator: Callable[[Atoms], Calculator],
        progress: Progress,
    ) -> None:
        self.config, self.folder, self.audit, self.progress = config, folder, audit, progress
        self._make_calculator = make_calculator
        self.store = LabelStore(folder / "labels.extxyz")
        self.n_labels = 0
        self._failed: list[Atoms] = []
        """Frames for which the reference gave no label."""
        self._said_free_energy = False

    @property
    def frames(self) -> list[Atoms]:
        """The labelled frames up to the current place."""
        return self.store.frames[: self.n_labels]

    def first_frames(self, start: Sequence[Atoms]) -> list[Atoms]:
        """Label the first frames, and return those that have a label."""
        labelled = []
        for index, frame in enumerate(start):
            self.progress("labels of first frames", index, len(start))
            if self._label(frame, None, index, None, None):
                labelled.append(frame)
        served = [event.served for event in self.audit.events if isinstance(event, Labelled)]
        log.info(
            "first frames: %d with their labels, %d labelled by the reference%s",
            served.count("given"),
            served.count("reference"),
            self.failures(),
        )
        return labelled

    def _label(
        self,
        frame: Atoms,
        flag: int | None,
        index: int,
        generation: Trained | None,
        deviation: float | None,
    ) -> bool:
        """Label one frame unless it has a label; return whether it has one then."""
        if isinstance(self.audit.next, Failed):
            self.audit.accept()
            self._failed.append(frame)
            return False
        number, given = self.n_labels, given_label(frame)
        served, name = "given" if given else "reference", group_name(number, self.config.folds, self.config.seed)
        if number == len(self.store):
            try:
                found = given or self._ask(frame, flag, index)
            except ReferenceFailed as error:
                reason = str(error)
                self.audit.record(Failed, lambda: Failed(flag, index, reason))
                self._failed.append(frame)
                return False
            self._say_free_energy(found)
            self.store.append(frame, found, name)

        def event() -> Labelled:
            energy_error = force_mae = None
            if generation is not None:
                energy_error, force_mae = generation.errors(self.store.frames[number])
            return Labelled(number, flag, index, served, name, energy_error, force_mae, deviation)

        self.audit.record(Labelled, event)
        self.n_labels += 1
        return True

    def _ask(self, frame: Atoms, flag: int | None, index: int) -> Label:
        return attempt(self.folder, flag, index, lambda: label(frame, self._make_calculator))

    def _say_free_energy(self, found: Label) -> None:
        """Log once that the label is not what its calculator calls the energy."""
        if found.other_energy is not None and not self._said_free_energy:
            self._said_free_energy = True
            log.info(
                "labels: the energy is the free energy, %.6f eV, to which the forces belong, not the %.6f eV that the "
                "calculator calls energy, as extrapolated to no smearing",
                found.energy,
                found.other_energy,
            )

    def excursion_frames(self, flag: int, atoms: Atoms, excursion: Excursion, generation: Trained) -> list[int]:
        """Label frames of an excursion, the most different ones first; return the numbers of the labels."""
        frames = [moved(atoms, positions) for positions in excursion.candidates]
        wanted = min(self.config.flags.labels, self.config.max_labels - self.n_labels)
        before = self.n_labels
        known = [*self.store.frames[:before], *self._failed]
        for place in farthest_first(frames, known, generation.models[0]):
            if self.n_labels - before == wanted:
                break
            self.progress(f"labels of flag {flag}", self.n_labels - before, wanted)
            self._label(frames[place], flag, place, generation, excursion.deviations[place])
        return list(range(before, self.n_labels))

    def failures(self) -> str:
        """State how many frames have no label and why the first has none; empty if all have one."""
        reasons = [event.reason for event in self.audit.events if isinstance(event, Failed)]
        return f", as the reference failed on {len(reasons)} frames ({reasons[0]})" if reasons else ""
