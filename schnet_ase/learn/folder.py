"""The folder of a run: whose it is, which calculation is under way in it, and which failures it forgets."""

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
"""Which frame the reference is asked about now, and for which time."""
ATTEMPTS = 2
"""A frame during whose calculation the process ended so often has failed."""


def claim(config: LearnConfig, folder: Path) -> None:
    """Write the configuration into a new folder, or compare it with what stands there.

    Raises
    ------
    LearnError
        The folder holds something else or another run with labels, or the arguments cannot be written down.
    """
    start = Path(config.start)
    digest = {"start_sha256": sha256(start)}  # labels are those of its frames, one after the other
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
        if any(not p.name.startswith(".") for p in folder.iterdir()):  # the lock, a file half written
            raise LearnError(f"{folder} is there and holds no learning; choose another folder")
        atomic_write(file, identity)
    elif other and not (folder / "labels.extxyz").exists():
        for name in ("audit.jsonl", ATTEMPT):  # of failures alone: the reference was set up wrongly
            (folder / name).unlink(missing_ok=True)
        atomic_write(file, identity)
    elif other:
        raise LearnError(
            f"{folder} holds a run of another configuration or of other first frames, see {file}; choose "
            "another folder, and give its labels.extxyz as start to keep the labels"
        )


def attempt(folder: Path, flag: int | None, frame: int, calculate: Callable[[], Label]) -> Label:
    """The label that `calculate` makes; on disk stands that it is asked, as some end the process without a word.

    Raises
    ------
    ReferenceFailed
        `calculate` raised it, or the process ended in it too often.
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
    finally:  # not reached where the process ends
        file.unlink(missing_ok=True)


def forget_failures(audit: Audit, folder: Path, barren: int, too_few: Callable[[int], bool]) -> None:
    """Forget the failures that an earlier start ended with: their cause, a licence or a path, may be gone.

    Parameters
    ----------
    audit
        Of which nothing has been read.
    folder
        Of the run.
    barren
        So many flags in a row without a label ended it.
    too_few
        Whether so many first labels did.
    """
    events = audit.recorded
    kept = 1 + max((k for k, event in enumerate(events) if isinstance(event, Labelled | Generation)), default=-1)
    last = events[kept:]
    if not any(isinstance(event, Failed) for event in last) or (folder / ATTEMPT).exists():
        return  # or it did not end, but was killed
    flags = [event.number for event in last if isinstance(event, Flagged)]
    n_labels = sum(isinstance(event, Labelled) for event in events)
    untrained = not any(isinstance(event, Generation) for event in events)
    if (untrained and too_few(n_labels)) or len(flags) == barren:
        for number in flags[1:]:  # where the dynamics went for want of a label
            exploration = folder / f"exploration-{number:03d}"
            if exploration.exists():
                shutil.rmtree(exploration)
        audit.cut(kept)
