"""The folder of a run: its configuration, the calculation in progress, and failures to retry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from schnet_ase.errors import LearnError
from schnet_ase.learn.audit import Audit, Failed, Flagged, Generation, Labelled
from schnet_ase.learn.config import LearnConfig
from schnet_ase.learn.reference import Label, ReferenceFailed
from schnet_ase.output.files import atomic_write, sha256

ATTEMPT = "attempt.json"
"""File with the frame that the reference is calculating, and the number of the attempt."""
ATTEMPTS = 2
"""A frame has failed if the process ended during its calculation this many times."""


def claim(config: LearnConfig, folder: Path) -> None:
    """Write the configuration into a new folder, or compare it with the one there.

    Raises
    ------
    LearnError
        The folder holds something else or another run with labels, or the arguments are not JSON.
    """
    start = Path(config.start)
    digest = {"start_sha256": sha256(start)}  # the first labels are those of its frames, in order
    try:
        identity = json.dumps({**asdict(config), "start": start.name, **digest}, indent=2)
    except (TypeError, ValueError) as error:
        raise LearnError(
            f"reference.arguments cannot be written to config.json ({error}); give numbers, words, lists and "
            "tables, or as reference.calculator a function of your own that makes the rest"
        ) from error
    file = folder / "config.json"
    other = file.exists() and {**digest, **json.loads(file.read_text())} != json.loads(identity)
    if not file.exists():
        if any(not p.name.startswith(".") for p in folder.iterdir()):  # hidden: the lock, and files being written
            raise LearnError(f"{folder} exists and holds no run of learning; choose another folder")
        atomic_write(file, identity)
    elif other and not (folder / "labels.extxyz").exists():
        for name in ("audit.jsonl", ATTEMPT):  # there are only failures: the reference was set up wrongly
            (folder / name).unlink(missing_ok=True)
        atomic_write(file, identity)
    elif other:
        raise LearnError(
            f"{folder} holds a run of another configuration or of other first frames, see {file}; choose "
            "another folder, and give its labels.extxyz as start to keep the labels"
        )


def attempt(folder: Path, flag: int | None, frame: int, calculate: Callable[[], Label]) -> Label:
    """Return the label that `calculate` makes; a file records the attempt, because some references end the process.

    Raises
    ------
    ReferenceFailed
        `calculate` raised it, or the process ended in it too many times.
    """
    file, times = folder / ATTEMPT, 1
    if file.exists():
        before = json.loads(file.read_text())
        times += before["times"] if (before["flag"], before["frame"]) == (flag, frame) else 0
    if times <= ATTEMPTS:
        atomic_write(file, json.dumps({"flag": flag, "frame": frame, "times": times}))
    try:
        if times > ATTEMPTS:
            raise ReferenceFailed(f"ended the process {ATTEMPTS} times")
        return calculate()
    finally:  # not reached if the process ends
        file.unlink(missing_ok=True)


def forget_failures(audit: Audit, folder: Path, barren: int, too_few: Callable[[int], bool]) -> None:
    """Discard the failures with which an earlier start ended, because their cause, such as a licence, may be gone.

    Parameters
    ----------
    audit
        Log of which nothing has been read yet.
    folder
        Folder of the run.
    barren
        Number of successive flags without a label that end a run.
    too_few
        Whether this many first labels are too few.
    """
    events = audit.recorded
    kept = 1 + max((k for k, event in enumerate(events) if isinstance(event, Labelled | Generation)), default=-1)
    last = events[kept:]
    if not any(isinstance(event, Failed) for event in last) or (folder / ATTEMPT).exists():
        return  # otherwise it was killed
    flags = [event.number for event in last if isinstance(event, Flagged)]
    n_labels = sum(isinstance(event, Labelled) for event in events)
    untrained = not any(isinstance(event, Generation) for event in events)
    if (untrained and too_few(n_labels)) or len(flags) == barren:
        for number in flags[1:]:  # where the dynamics began again without a label
            exploration = folder / f"exploration-{number:03d}"
            if exploration.exists():
                shutil.rmtree(exploration)
        audit.cut(kept)
