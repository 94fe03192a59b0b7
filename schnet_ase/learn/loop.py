"""The loop: explore, flag, return, label, retrain, recalibrate, resume.

Every stage writes its result in one step (a label, an exploration, an ensemble) before the audit log records it, and
follows only from the configuration. A start after a kill therefore goes through the same stages, takes the results on
disk, and makes the first one that is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from filelock import FileLock, Timeout

from schnet_ase.errors import CalibrationError, LearnError
from schnet_ase.learn.audit import Audit, Event, Finished, Flagged, Generation, Labelled
from schnet_ase.learn.config import CALIBRATION_EVERY, LearnConfig
from schnet_ase.learn.explore import Excursion, State, begin, explore, load_excursion, save_excursion
from schnet_ase.learn.fitness import advice, doubts, unquiet
from schnet_ase.learn.folder import claim, forget_failures
from schnet_ase.learn.generation import Progress, Trained, train_generation
from schnet_ase.learn.labeller import Labeller
from schnet_ase.learn.labels import split_labels
from schnet_ase.learn.reference import check_reference, find_reference
from schnet_ase.learn.start import moved, read_start
from schnet_ase.uncertainty.fit import check_sizes

BARREN_FLAGS = 5
"""Number of successive flags without a label that end the run."""
log = logging.getLogger("schnet_ase")


class LearnResult(NamedTuple):
    """Result of a finished run."""

    ensemble: Path
    """Folder of the last generation, for `SchNetEnsembleCalculator`."""
    labels: Path
    """File of all labelled frames, extxyz."""
    audit: Path
    """The audit log, JSON lines; see `schnet_ase.learn.audit`."""
    end: Finished
    doubts: tuple[str, ...]
    """Reasons why the ensemble is not yet fit for dynamics; empty if it is fit."""


def learn(
    config: LearnConfig,
    folder: str | Path,
    *,
    workers: int | None = None,
    report: Callable[[Event], None] = lambda event: None,
    progress: Progress = lambda what, done, total: None,
) -> LearnResult:
    """Learn on the fly; the same call resumes a run that was interrupted or killed.

    The ensemble runs Langevin dynamics under an `UncertaintyMonitor`. At a flag, the dynamics returns to the last frame
    under the threshold. Frames from the flag on are labelled, the most different ones first; all members train on from
    their weights; the ensemble is calibrated; and the same dynamics resumes. The run ends when `config.dynamics.quiet`
    passes without a flag, or with `config.max_labels` labels.

    Parameters
    ----------
    config
        Configuration of the run.
    folder
        Folder of the run, for ``labels.extxyz``, ``audit.jsonl``, ``learning.png``, a folder for each generation with
        its ensemble, and one for each exploration with its log and flagged frames.
    workers
        Members trained at the same time, see `schnet_ase.training.crossval`; for more than one, a script needs
        ``if __name__ == "__main__":``. None: one per core.
    report
        Callback for every new event.
    progress
        Callback for the progress of long work.

    Returns
    -------
    LearnResult

    Raises
    ------
    LearnError
        The folder holds another run, another process learns in it, the reference cannot be imported, its arguments are
        not JSON, the first frames are too few or more than `max_labels`, or five successive flags gave no label.
    DataError
        The first frames cannot be read, or their labels cannot be trusted.
    TrainingError
        A member cannot be trained.
    """
    folder = Path(folder).absolute()  # a reference may change the working folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LearnError(f"{folder} cannot be created as a folder ({error.strerror}); choose another") from error
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return _Run(config, folder, workers, report, progress).run()
    except Timeout as error:
        raise LearnError(f"{folder}: another process learns in it; wait for it or choose another folder") from error


class _Run:
    def __init__(
        self,
        config: LearnConfig,
        folder: Path,
        workers: int | None,
        report: Callable[[Event], None],
        progress: Progress,
    ) -> None:
        self.config, self.folder, self.workers, self.progress = config, folder, workers, progress
        make_calculator = find_reference(config.reference)
        self.start = read_start(Path(config.start))
        self._check_sizes(len(self.start), "frames")
        if len(self.start) > config.max_labels:
            raise LearnError(
                f"{config.start} has {len(self.start)} frames and max_labels is {config.max_labels}, which counts "
                "them; give fewer first frames or a larger max_labels"
            )
        check_reference(config.reference, make_calculator, self.start[0])
        claim(config, folder)
        self.audit = Audit(folder / "audit.jsonl", report)
        forget_failures(self.audit, folder, BARREN_FLAGS, lambda n_labels: self._too_few(n_labels) is not None)
        self.labeller = Labeller(config, folder, self.audit, make_calculator, progress)

    def run(self) -> LearnResult:
        labelled = self.labeller.first_frames(self.start)
        self._check_sizes(self.labeller.n_labels, "labels" + self.labeller.failures())
        generation = self._train(0, [])
        card = generation.card
        if self.audit.next is None and (unfit := self._doubts()):
            log.warning("the first ensemble is not fit for dynamics: %s; %s", "; ".join(unfit), advice(self.config))
        energies = [f.get_potential_energy() / len(f) for f in self.labeller.frames]
        calmest = labelled[int(np.argmin(energies))]
        lowest = moved(calmest, calmest.positions)
        state = begin(lowest, self.config.dynamics.temperature, self.config.seed)
        quiet_steps = round(1000.0 * self.config.dynamics.quiet / self.config.dynamics.timestep)
        flags = barren = 0
        reason, quiet = f"{self.config.max_labels} labels", False
        while self.labeller.n_labels < self.config.max_labels:
            outcome = self._explore(flags, lowest, state, state.step + quiet_steps, generation)
            if isinstance(outcome, State):
                state, reason, quiet = outcome, f"{self.config.dynamics.quiet:g} ps without a flag", True
                break
            self._record_flag(flags, generation, outcome)
            new = self.labeller.excursion_frames(flags, lowest, outcome, generation)
            state = outcome.safe
            if new:
                barren = 0
                generation = self._train(generation.number + 1, new)
                card = generation.card
            else:
                barren += 1  # from its present state the dynamics would end in the same way
                state = begin(lowest, self.config.dynamics.temperature, [self.config.seed, flags], state.step)
            if barren == BARREN_FLAGS:
                raise LearnError(
                    f"{BARREN_FLAGS} flags in a row gave no label: the reference failed, or no new frame that holds "
                    f"together lies between {generation.thresholds[0]:.3g} and {generation.thresholds[1]:.3g} eV/Å; "
                    f"see {self.folder / 'audit.jsonl'}; start again, which asks the reference again, raise "
                    "flags.threshold or give more first frames"
                )
            flags += 1
        time_fs = state.step * self.config.dynamics.timestep
        end = self.audit.record(
            Finished, lambda: Finished(reason, self.labeller.n_labels, generation.number + 1, time_fs)
        )
        unfit = self._doubts() + (() if quiet else (unquiet(self.config),))
        if unfit:
            log.warning(
                "the ensemble is not yet fit for dynamics: %s; %s, in a new run; it can start with the labels of this "
                "one, %s, but look at them before: those that an unfit ensemble flags may be distorted",
                "; ".join(unfit),
                advice(self.config),
                self.labeller.store.path,
            )
        return LearnResult(card.path, self.labeller.store.path, self.folder / "audit.jsonl", end, unfit)

    def _doubts(self) -> tuple[str, ...]:
        last = [event for event in self.audit.events if isinstance(event, Generation)][-1]
        return doubts(last, self.labeller.frames)

    def _check_sizes(self, n: int, what: str) -> None:
        if (error := self._too_few(n)) is not None:
            raise LearnError(f"{n} first {what}; one in {CALIBRATION_EVERY} calibrates: {error}") from error

    def _too_few(self, n: int) -> CalibrationError | None:
        """Return the error if there are too few first labels."""
        n_calibration = len(split_labels(n, self.config.folds, self.config.seed).calibration)
        try:
            check_sizes(self.config.folds, n_calibration)
        except CalibrationError as error:
            return error
        return None

    def _explore(self, flag: int, atoms: Atoms, start: State, until: int, generation: Trained) -> Excursion | State:
        folder = self.folder / f"exploration-{flag:03d}"
        file = folder / "excursion.npz"
        if file.exists():
            return load_excursion(file)
        moving = moved(atoms, start.positions)
        moving.calc = generation.calculator
        n_after = round(self.config.flags.explore / self.config.dynamics.timestep)
        outcome = explore(
            moving,
            start,
            until,
            generation.thresholds,
            self.config.dynamics,
            n_after,
            folder,
            lambda step: self.progress("quiet steps", step - start.step, until - start.step),
        )
        if isinstance(outcome, Excursion):
            save_excursion(outcome, file)
        return outcome

    def _record_flag(self, number: int, generation: Trained, excursion: Excursion) -> None:
        flag = excursion.flag
        self.audit.record(
            Flagged,
            lambda: Flagged(
                number,
                generation.number,
                flag.step,
                flag.time_fs,
                flag.temperature if np.isfinite(flag.temperature) else None,
                flag.atom,
                flag.largest if np.isfinite(flag.largest) else None,
                flag.threshold,
                flag.status,
                None if excursion.safe.step == flag.step else excursion.safe.step,
                len(excursion.candidates),
            ),
        )

    def _train(self, number: int, new: list[int]) -> Trained:
        """Train and calibrate the ensemble of a generation unless it exists; `new` are the newest labels."""
        split = split_labels(self.labeller.n_labels, self.config.folds, self.config.seed)
        trained = train_generation(
            self.config, number, split, self.labeller.store.path, self.folder, self.workers, self.progress
        )

        def event() -> Generation:
            before = after = None
            if new:
                known = {e.number: e.force_mae for e in self.audit.events if isinstance(e, Labelled)}
                before = float(np.mean([known[n] for n in new]))
                after = trained.held_out_mae(new)
            energy_mae, force_mae = trained.validation()
            return Generation(
                number,
                self.labeller.n_labels,
                len(split.calibration),
                force_mae,
                energy_mae,
                before,
                after,
                *trained.thresholds,
            )

        self.audit.record(Generation, event)
        self._draw()
        return trained

    def _draw(self) -> None:
        generations = [e for e in self.audit.events if isinstance(e, Generation)]
        flags = [e for e in self.audit.events if isinstance(e, Flagged)]
        if len(generations) > 1:  # a curve needs more than one point
            from schnet_ase.learn.pictures import learning  # matplotlib is loaded where something is drawn

            learning(generations, flags, self.folder / "learning.png")
