"""The loop: explore, flag, go back, label, retrain, recalibrate, go on.

Every stage leaves its result on disk in one step (a label, an exploration, an ensemble) before the audit log says so,
and follows from the configuration alone. So a start after a kill walks through the same stages, takes what is there,
and makes the first that is not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from filelock import FileLock, Timeout

from schnet_ase.calibration import check_sizes
from schnet_ase.errors import CalibrationError, LearnError
from schnet_ase.files import atomic_write, sha256
from schnet_ase.learn.audit import Audit, Event, Failed, Finished, Flagged, Generation, Labelled
from schnet_ase.learn.config import CALIBRATION_EVERY, LearnConfig
from schnet_ase.learn.explore import Excursion, State, begin, explore, load_excursion, save_excursion
from schnet_ase.learn.generation import Progress, Trained, train_generation
from schnet_ase.learn.labels import LabelStore, group_name, split_labels
from schnet_ase.learn.reference import Label, ReferenceFailed, find_reference, label
from schnet_ase.learn.selection import farthest_first
from schnet_ase.learn.start import given_label, moved, read_start
from schnet_ase.plots import learning

BARREN_FLAGS = 5
"""So many flags in a row without a label end the run."""
ATTEMPT = "attempt.json"
"""Which frame the reference is asked about now, and for which time."""
ATTEMPTS = 2
"""A frame during whose calculation the process ended so often has failed."""


class LearnResult(NamedTuple):
    """What a finished run leaves."""

    ensemble: Path
    """Folder of the last generation, for `SchNetEnsembleCalculator`."""
    labels: Path
    """extxyz."""
    audit: Path
    """JSON lines, see `schnet_ase.learn.audit`."""
    end: Finished


def learn(
    config: LearnConfig,
    folder: str | Path,
    *,
    workers: int | None = None,
    report: Callable[[Event], None] = lambda event: None,
    progress: Progress = lambda what, done, total: None,
) -> LearnResult:
    """Learn on the fly; the same call goes on with a run that was interrupted, also by a kill.

    The ensemble runs Langevin dynamics under an `UncertaintyMonitor`. At a flag the dynamics goes back to the last
    frame under the threshold; frames from the flag on are labelled, the strangest first; all members are trained on
    from their weights, and calibrated; and the same dynamics goes on. It is over when `config.dynamics.quiet` passes
    without a flag, or with `config.max_labels`.

    Parameters
    ----------
    config
        What to do.
    folder
        Of the run: ``labels.extxyz``, ``audit.jsonl``, ``learning.png``, a folder for each generation with its
        ensemble, and one for each exploration with its log and flagged frames.
    workers
        Members trained at the same time, see `schnet_ase.training.crossval`; more than one need
        ``if __name__ == "__main__":`` in a script. None: one a core.
    report
        Told about every event that is new.
    progress
        Told about long work.

    Returns
    -------
    LearnResult

    Raises
    ------
    LearnError
        The folder holds another run, another process learns in it, the reference cannot be imported or its arguments
        not be written down, the first frames are too few or more than `max_labels`, or five flags in a row gave no
        label.
    DataError
        The first frames cannot be read, or their labels not be trusted.
    TrainingError
        A member cannot be trained.
    """
    folder = Path(folder).absolute()  # a reference may change the working folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LearnError(f"{folder} cannot be made a folder ({error.strerror}); choose another") from error
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return _Run(config, folder, workers, report, progress).run()
    except Timeout as error:
        raise LearnError(f"{folder}: another process learns here; wait for it or choose another folder") from error


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
        self.make_calculator = find_reference(config.reference)
        self.start = read_start(Path(config.start))
        self._check_sizes(len(self.start), "frames")
        if len(self.start) > config.max_labels:
            raise LearnError(
                f"{config.start} has {len(self.start)} frames and max_labels is {config.max_labels}, which counts "
                "them; give fewer first frames or a larger max_labels"
            )
        self._check_folder()
        self.audit = Audit(folder / "audit.jsonl", report)
        self._ask_again()
        self.labels = LabelStore(folder / "labels.extxyz")
        self.n_labels = 0
        """Of those in the store, how many the log has reached."""
        self.failed: list[Atoms] = []
        """What the reference gave no label for."""

    def run(self) -> LearnResult:
        labelled = [f for index, f in enumerate(self.start) if self._label(f, None, index, None, None)]
        self._check_sizes(self.n_labels, "labels" + self._failures())
        generation = self._train(0, [])
        card = generation.card
        energies = [f.get_potential_energy() / len(f) for f in self.labels.frames[: self.n_labels]]
        calmest = labelled[int(np.argmin(energies))]
        lowest = moved(calmest, calmest.positions)
        state = begin(lowest, self.config.dynamics.temperature, self.config.seed)
        quiet_steps = round(1000.0 * self.config.dynamics.quiet / self.config.dynamics.timestep)
        flags = barren = 0
        reason = f"{self.config.max_labels} labels"
        while self.n_labels < self.config.max_labels:
            outcome = self._explore(flags, lowest, state, state.step + quiet_steps, generation)
            if isinstance(outcome, State):
                state, reason = outcome, f"{self.config.dynamics.quiet:g} ps without a flag"
                break
            self._record_flag(flags, generation, outcome)
            new = self._label_excursion(flags, lowest, outcome, generation)
            state = outcome.safe
            if new:
                barren = 0
                generation = self._train(generation.number + 1, new)
                card = generation.card
            else:
                barren += 1  # from where the dynamics is it would come to the same end
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
        end = self.audit.record(Finished, lambda: Finished(reason, self.n_labels, generation.number + 1, time_fs))
        self._draw()
        return LearnResult(card.path, self.labels.path, self.folder / "audit.jsonl", end)

    def _check_folder(self) -> None:
        start = Path(self.config.start)
        digest = {"start_sha256": sha256(start)}  # labels are those of its frames, one after the other
        try:
            identity = json.dumps({**asdict(self.config), "start": start.name, **digest}, indent=2)
        except (TypeError, ValueError) as error:
            raise LearnError(
                f"reference.arguments cannot be written to config.json ({error}); give numbers, words, lists and "
                "tables, or as reference.calculator a function of your own that makes the rest"
            ) from error
        file = self.folder / "config.json"
        other = file.exists() and {**digest, **json.loads(file.read_text())} != json.loads(identity)
        if not file.exists():
            if any(not p.name.startswith(".") for p in self.folder.iterdir()):  # the lock, a file half written
                raise LearnError(f"{self.folder} is there and holds no learning; choose another folder")
            atomic_write(file, identity)
        elif other and not (self.folder / "labels.extxyz").exists():
            for name in ("audit.jsonl", ATTEMPT):  # of failures alone: the reference was set up wrongly
                (self.folder / name).unlink(missing_ok=True)
            atomic_write(file, identity)
        elif other:
            raise LearnError(
                f"{self.folder} holds a run of another configuration or of other first frames, see {file}; choose "
                "another folder, and give its labels.extxyz as start to keep the labels"
            )

    def _ask_again(self) -> None:
        """Forget the failures that an earlier start ended with: their cause, a licence or a path, may be gone."""
        events = self.audit.recorded
        kept = 1 + max((k for k, event in enumerate(events) if isinstance(event, Labelled | Generation)), default=-1)
        last = events[kept:]
        if not any(isinstance(event, Failed) for event in last) or (self.folder / ATTEMPT).exists():
            return  # or it did not end, but was killed
        flags = [event.number for event in last if isinstance(event, Flagged)]
        n_labels = sum(isinstance(event, Labelled) for event in events)
        too_few = not any(isinstance(event, Generation) for event in events) and self._too_few(n_labels) is not None
        if too_few or len(flags) == BARREN_FLAGS:
            for number in flags[1:]:  # where the dynamics went for want of a label
                folder = self.folder / f"exploration-{number:03d}"
                if folder.exists():
                    shutil.rmtree(folder)
            self.audit.cut(kept)

    def _failures(self) -> str:
        reasons = [event.reason for event in self.audit.events if isinstance(event, Failed)]
        return f", as the reference failed on {len(reasons)} frames ({reasons[0]})" if reasons else ""

    def _check_sizes(self, n: int, what: str) -> None:
        if (error := self._too_few(n)) is not None:
            raise LearnError(f"{n} first {what}; one in {CALIBRATION_EVERY} calibrates: {error}") from error

    def _too_few(self, n: int) -> CalibrationError | None:
        """What is wrong with so many first labels."""
        n_calibration = len(split_labels(n, self.config.folds, self.config.seed).calibration)
        try:
            check_sizes(self.config.folds, n_calibration)
        except CalibrationError as error:
            return error
        return None

    def _label(
        self,
        frame: Atoms,
        flag: int | None,
        index: int,
        generation: Trained | None,
        deviation: float | None,
    ) -> bool:
        """Label one frame unless that was done; whether it has a label."""
        if isinstance(self.audit.next, Failed):
            self.audit.accept()
            self.failed.append(frame)
            return False
        number, given = self.n_labels, given_label(frame)
        served, name = "given" if given else "reference", group_name(number, self.config.folds, self.config.seed)
        if number == len(self.labels):
            try:
                found = given or self._ask(frame, flag, index)
            except ReferenceFailed as error:
                reason = str(error)
                self.audit.record(Failed, lambda: Failed(flag, index, reason))
                self.failed.append(frame)
                return False
            self.labels.append(frame, found, name)

        def event() -> Labelled:
            energy_error = force_mae = None
            if generation is not None:
                energy_error, force_mae = generation.errors(self.labels.frames[number])
            return Labelled(number, flag, index, served, name, energy_error, force_mae, deviation)

        self.audit.record(Labelled, event)
        self.n_labels += 1
        return True

    def _ask(self, frame: Atoms, flag: int | None, index: int) -> Label:
        """The reference's label; on disk stands that it is asked, as some end the process without a word."""
        file, times = self.folder / ATTEMPT, 1
        if file.exists():
            before = json.loads(file.read_text())
            times += before["times"] if (before["flag"], before["frame"]) == (flag, index) else 0
        if times <= ATTEMPTS:
            atomic_write(file, json.dumps({"flag": flag, "frame": index, "times": times}))
        try:
            if times > ATTEMPTS:
                raise ReferenceFailed(f"ended the process {ATTEMPTS} times")
            return label(frame, self.make_calculator)
        finally:  # not reached where the process ends
            file.unlink(missing_ok=True)

    def _label_excursion(self, flag: int, atoms: Atoms, excursion: Excursion, generation: Trained) -> list[int]:
        """Label frames of an excursion, the strangest first; numbers of the labels."""
        frames = [moved(atoms, positions) for positions in excursion.candidates]
        wanted = min(self.config.flags.labels, self.config.max_labels - self.n_labels)
        before = self.n_labels
        known = [*self.labels.frames[:before], *self.failed]
        for place in farthest_first(frames, known, generation.models[0]):
            if self.n_labels - before == wanted:
                break
            self.progress(f"labels of flag {flag}", self.n_labels - before, wanted)
            self._label(frames[place], flag, place, generation, excursion.deviations[place])
        return list(range(before, self.n_labels))

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
        """The ensemble of a generation, trained and calibrated unless it is there; `new` are the newest labels."""
        split = split_labels(self.n_labels, self.config.folds, self.config.seed)
        trained = train_generation(
            self.config, number, split, self.labels.path, self.folder, self.workers, self.progress
        )

        def event() -> Generation:
            before = after = None
            if new:
                known = {e.number: e.force_mae for e in self.audit.events if isinstance(e, Labelled)}
                before = float(np.mean([known[n] for n in new]))
                after = trained.held_out_mae(new)
            energy_mae, force_mae = trained.validation()
            return Generation(
                number, self.n_labels, len(split.calibration), force_mae, energy_mae, before, after, *trained.thresholds
            )

        self.audit.record(Generation, event)
        self._draw()
        return trained

    def _draw(self) -> None:
        generations = [e for e in self.audit.events if isinstance(e, Generation)]
        flags = [e for e in self.audit.events if isinstance(e, Flagged)]
        learning(generations, flags, self.folder / "learning.png")
