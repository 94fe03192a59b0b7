"""Frames from a teacher's own Langevin dynamics; each run has its own file, so that a kill loses at most one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from schnet_ase.errors import StructureError, TrainingError
from schnet_ase.geometry.motion import draw_velocities
from schnet_ase.monitor.guard import Guard
from schnet_ase.output.files import atomic_write
from schnet_ase.training.distill.config import Sampling
from schnet_ase.training.distill.labelled import Labelled, load_labelled, save_labelled
from schnet_ase.training.distill.teacher import Recorder, Teacher
from schnet_ase.training.state import differences

TIMESTEP_FS, FRICTION_PER_PS = 0.5, 10.0
SPACING = 20
"""Number of steps between frames, 10 fs."""
LOOK = 10
"""Number of steps between checks by the guard."""
SETTLE = 1000
"""Number of steps before the first frame, 0.5 ps."""
UNSURE = 10
"""Number of last frames, 0.1 ps, that are discarded when a run ends because it left the teacher's training domain."""
MOST_ENDS = 20
"""Number of attempts at a run before it is given up."""
PLAN = "sampling.json"


class Run(NamedTuple):
    """Parameters of one run."""

    start: Atoms
    temperature: float
    """Temperature, K."""
    frames: int
    """Number of frames."""
    seed: tuple[int, int]


def sample(
    teacher: Teacher, sampling: Sampling, starts: list[Atoms], folder: Path, report: Callable[[int], None]
) -> list[Path]:
    """Make the runs that are missing in `folder`, and return the files of all runs.

    Parameters
    ----------
    teacher, sampling
        Teacher, which moves the atoms and labels the frames, and parameters of its dynamics.
    starts
        Structures to start from, in turns.
    folder
        Folder that keeps the files. Files from an earlier call with the same arguments are kept.
    report
        Callback that receives the number of frames made.

    Raises
    ------
    TrainingError
        The folder has frames of another teacher or sampling, or a run leaves the training domain again and again.
    """
    _claim(folder, teacher, sampling, starts)
    files, done = [], 0
    for k, frames in enumerate(sampling.runs):
        file = folder / f"run-{k + 1:04d}.npz"
        if not file.exists():
            run = Run(starts[k % len(starts)], sampling.temperature(k), frames, (sampling.seed, k))
            save_labelled(_run(teacher, run, partial(_add, report, done)), file)
        files.append(file)
        done += frames
        report(done)
    return files


def _claim(folder: Path, teacher: Teacher, sampling: Sampling, starts: list[Atoms]) -> None:
    plan: dict[str, Any] = {
        "members": [member.sha256 for member in teacher.card.members],
        "frames": sampling.frames,
        "temperatures": list(sampling.temperatures),
        "seed": sampling.seed,
        "starts": [atoms.get_chemical_formula() for atoms in starts],
    }
    file = folder / PLAN
    if not file.exists():
        atomic_write(file, json.dumps(plan, indent=2) + "\n")
    elif changed := differences(json.loads(file.read_text()), plan):
        raise TrainingError(
            f"{folder}: has frames of a distillation with other {', '.join(changed)}; choose another folder, remove "
            "this one, or go back to the old values"
        )


def _run(teacher: Teacher, run: Run, report: Callable[[int], None]) -> Labelled:
    """Make the frames of a run; if it leaves the training domain, start again with other velocities for the rest."""
    kept = Recorder(run.start)
    for attempt in range(MOST_ENDS):
        atoms = run.start.copy()
        earlier, reason = len(kept.rows), None
        for reason in _steps(teacher, atoms, run.temperature, np.random.default_rng((*run.seed, attempt))):
            if reason is not None:
                break
            kept.record(atoms)
            report(len(kept.rows))
            if len(kept.rows) == run.frames:
                return kept.labelled()
        del kept.rows[max(earlier, len(kept.rows) - UNSURE) :]
    raise TrainingError(
        f"dynamics of {teacher.card.name} at {run.temperature:.0f} K left its training domain {MOST_ENDS} times, "
        f"the last time because {reason}; give lower --temperatures"
    )


def _steps(teacher: Teacher, atoms: Atoms, kelvin: float, rng: np.random.Generator) -> Iterator[str | None]:
    """Run the dynamics and yield at each frame None or, if the run has to end, the reason."""
    teacher.calculator.reset()
    atoms.calc = teacher.calculator
    draw_velocities(atoms, kelvin, rng)
    friction = FRICTION_PER_PS / (1000.0 * units.fs)
    dynamics = Langevin(atoms, TIMESTEP_FS * units.fs, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)
    guard = Guard(atoms, kelvin)
    step = 0
    while True:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                dynamics.run(LOOK)
        except StructureError as error:
            yield str(error)
            return
        step += LOOK
        left = guard(step)
        if left is None and not teacher.deviation() <= teacher.failed_above:
            left = f"the members differ by {teacher.deviation():.3g} eV/Å, above {teacher.failed_above:.3g}"
        if left is not None or (step >= SETTLE and (step - SETTLE) % SPACING == 0):
            yield left


def _add(report: Callable[[int], None], before: int, n: int) -> None:
    report(before + n)


def load_runs(files: list[Path], kept_apart: int) -> tuple[list[Labelled], list[Labelled]]:
    """Return the training frames, and those of the last `kept_apart` runs as validation frames."""
    runs = [load_labelled(file) for file in files]
    return runs[:-kept_apart], runs[-kept_apart:]
