"""The audit log: decisions and their reasons, a JSON line each, from which a killed run resumes.

Learning is a chain of decisions that follow only from its configuration. A resumed run takes them again in the same
order: it reads those that the log holds, and makes the first one that it does not hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from schnet_ase.errors import LearnError
from schnet_ase.output.files import atomic_write


class Labelled(NamedTuple):
    """A frame got its label."""

    number: int
    """Position in ``labels.extxyz``, counted from 0."""
    flag: int | None
    """Number of the flag; None for the first frames."""
    frame: int
    """Position in the flag's order of choice, or in the file of the first frames."""
    served: str
    """Origin of the label: ``"given"`` with the first frames, or ``"reference"``."""
    group: str
    """Use of the label: ``"fold-2"`` validates the second member and never trains it; or ``"calibration"``."""
    energy_error: float | None
    """eV, absolute error of the mean of the ensemble that flagged it."""
    force_mae: float | None
    """eV/Å, its mean absolute error over force components."""
    deviation: float | None
    """eV/Å, largest ``forces_deviation`` of the frame at that time."""


class Failed(NamedTuple):
    """A reference calculation gave no label and was skipped."""

    flag: int | None
    frame: int
    reason: str


class Flagged(NamedTuple):
    """The dynamics reached a frame above the threshold, or one that had failed otherwise, and returned."""

    number: int
    generation: int
    step: int
    time_fs: float
    temperature_K: float | None
    """None if it is not finite."""
    atom: int
    deviation: float | None
    """eV/Å, of that atom; None if it is not finite."""
    threshold: float
    status: str
    """``"candidate"`` or ``"failed"``, see `UncertaintyMonitor`."""
    safe_step: int | None
    """The step to which it returns, the last under the threshold; None if the dynamics began above the threshold, and
    begins there again."""
    candidates: int
    """Number of frames to choose from."""


class Generation(NamedTuple):
    """An ensemble was trained and calibrated."""

    generation: int
    labels: int
    """Number of labels so far."""
    calibration_labels: int
    """Number of these that are used for calibration."""
    force_mae: float
    """eV/Å, over all folds; each member counts on the frames that it did not train on."""
    energy_mae: float
    """eV, MAE over all folds; each member counts on the frames that it did not train on."""
    new_force_mae_before: float | None
    """eV/Å, on the newest labels, by the previous ensemble."""
    new_force_mae_after: float | None
    """eV/Å, on the same labels, by members that did not train on them."""
    threshold: float
    """eV/Å; frames above it are flagged from now on."""
    failed_above: float


class Finished(NamedTuple):
    """Learning is over."""

    reason: str
    labels: int
    generations: int
    time_fs: float
    """Time of the dynamics, without steps that were undone."""


Event = Labelled | Failed | Flagged | Generation | Finished
KINDS: dict[str, type[Event]] = {k.__name__.lower(): k for k in (Labelled, Failed, Flagged, Generation, Finished)}
E_co = TypeVar("E_co", bound=Event)


class Audit:
    """The log of a run, replayed from its start.

    Parameters
    ----------
    path
        File of JSON lines; a truncated line is removed.
    report
        Callback for every new event.
    """

    def __init__(self, path: Path, report: Callable[[Event], None]) -> None:
        self._path, self._report = path, report
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(path, len(whole))
        try:
            self._events = [_parse(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise LearnError(f"{path} exists and is no audit log ({error}); choose another folder") from error
        self._position = 0

    @property
    def events(self) -> list[Event]:
        """The events up to the current place."""
        return self._events[: self._position]

    @property
    def recorded(self) -> list[Event]:
        """All events that earlier starts wrote."""
        return self._events

    @property
    def next(self) -> Event | None:
        """Return the event that an earlier start recorded at this place; None if there is none."""
        return self._events[self._position] if self._position < len(self._events) else None

    def accept(self) -> None:
        """Continue after the recorded event."""
        self._position += 1

    def cut(self, length: int) -> None:
        """Discard all events except the first `length`, before the first is read."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        atomic_write(self._path, b"".join(lines[:length]))
        del self._events[length:]

    def record(self, kind: type[E_co], make: Callable[[], E_co]) -> E_co:
        """Return the event at this place: the recorded one, or a new one, which is then on disk.

        Raises
        ------
        LearnError
            Another kind of event was recorded here.
        """
        event = self.next
        if event is None:
            event = _rounded(make())
            line = json.dumps({"event": kind.__name__.lower(), **event._asdict()}, allow_nan=False) + "\n"
            with open(self._path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            self._events.append(event)
            self._report(event)
        elif not isinstance(event, kind):
            raise LearnError(
                f"{self._path}: line {self._position + 1} is {type(event).__name__.lower()}, where this run has "
                f"{kind.__name__.lower()}; the folder holds a run of other data or another version, choose another"
            )
        self._position += 1
        return event


def read_audit(path: Path) -> list[Event]:
    """Return all events of a log."""
    return [_parse(json.loads(line)) for line in path.read_text().splitlines()]


def _parse(table: dict[str, Any]) -> Event:
    return KINDS[table.pop("event")](**table)


def _rounded(event: E_co) -> E_co:
    """Round every number to six digits, which are easy to read and do not depend on the last bit."""
    fields: dict[str, Any] = event._asdict()
    for name, value in fields.items():
        if isinstance(value, float):
            fields[name] = float(f"{value:.6g}")
    return type(event)(**fields)


def describe(event: Event) -> str:
    """Describe an event in a line."""
    match event:
        case Labelled():
            of = "first frames" if event.flag is None else f"flag {event.flag}"
            error = "" if event.force_mae is None else f", force MAE {1000.0 * event.force_mae:.1f} meV/Å before"
            return f"label {event.number} ({of}, {event.served}) to {event.group}{error}"
        case Failed():
            of = "first frames" if event.flag is None else f"flag {event.flag}"
            return f"no label for frame {event.frame} of {of}, skipped: {event.reason}"
        case Flagged():
            off = "atoms fly apart"
            if event.deviation is not None:
                below = event.deviation <= event.threshold
                reason = "and one has no other within the cutoff" if below else f"above {event.threshold:.3f}"
                off = f"atom {event.atom} is off by {event.deviation:.3f} eV/Å, {reason}"
            temperature = "" if event.temperature_K is None else f", {event.temperature_K:.0f} K"
            back = "where it began" if event.safe_step is None else f"back to step {event.safe_step}"
            return f"flag {event.number} at {event.time_fs:.1f} fs{temperature}: {off} ({event.status}); {back}"
        case Generation():
            new = ""
            if event.new_force_mae_before is not None and event.new_force_mae_after is not None:
                before, after = 1000.0 * event.new_force_mae_before, 1000.0 * event.new_force_mae_after
                new = f", on the newest {before:.1f} before and {after:.1f} after"
            return (
                f"generation {event.generation}: {event.labels} labels, held-out force MAE "
                f"{1000.0 * event.force_mae:.1f} meV/Å{new}; threshold {event.threshold:.3f} eV/Å"
            )
        case Finished():
            return f"finished at {event.time_fs:.0f} fs"
