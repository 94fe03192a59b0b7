"""The audit log: what was decided, when and why, a JSON line each, and the memory of a run that was killed.

Learning is a chain of decisions that follow from its configuration alone. A run that is started again takes them again
in the same order; one that the log holds already is read from there, the first one that it does not hold is made.
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
    """Position in ``labels.extxyz``, from 0."""
    flag: int | None
    """Number of the flag; None for the first frames."""
    frame: int
    """In the flag's order of choice, or in the file of the first frames."""
    served: str
    """``"given"`` with the first frames, or ``"reference"``."""
    group: str
    """``"fold-2"``: kept from training the second member, which validates on it; or ``"calibration"``."""
    energy_error: float | None
    """eV, of the ensemble that flagged it: absolute, of the mean."""
    force_mae: float | None
    """eV/Å, the same over components."""
    deviation: float | None
    """eV/Å, its largest ``forces_deviation`` then."""


class Failed(NamedTuple):
    """A reference calculation gave no label and was skipped."""

    flag: int | None
    frame: int
    reason: str


class Flagged(NamedTuple):
    """The dynamics reached a frame above the threshold, or one that had failed otherwise, and went back."""

    number: int
    generation: int
    step: int
    time_fs: float
    temperature_K: float | None
    """None where it is no number."""
    atom: int
    deviation: float | None
    """eV/Å, of that atom; None where it is no number."""
    threshold: float
    status: str
    """``"candidate"`` or ``"failed"``, see `UncertaintyMonitor`."""
    safe_step: int | None
    """The step it goes back to, the last under the threshold; None where the dynamics began above it, and begins there
    again."""
    candidates: int
    """Frames to choose labels from."""


class Generation(NamedTuple):
    """An ensemble was trained and calibrated."""

    generation: int
    labels: int
    """In all; of them"""
    calibration_labels: int
    force_mae: float
    """eV/Å, over all folds, each member on the frames that it did not train on."""
    energy_mae: float
    """eV, the same."""
    new_force_mae_before: float | None
    """eV/Å, on the newest labels, by the ensemble before."""
    new_force_mae_after: float | None
    """eV/Å, on the same, by members that did not train on them."""
    threshold: float
    """eV/Å, from now on."""
    failed_above: float


class Finished(NamedTuple):
    """Learning is over."""

    reason: str
    labels: int
    generations: int
    time_fs: float
    """Of the dynamics, without what was gone back."""


Event = Labelled | Failed | Flagged | Generation | Finished
KINDS: dict[str, type[Event]] = {k.__name__.lower(): k for k in (Labelled, Failed, Flagged, Generation, Finished)}
E_co = TypeVar("E_co", bound=Event)


class Audit:
    """The log of a run, read again from its start.

    Parameters
    ----------
    path
        JSON lines; a line that was cut off is taken away.
    report
        Told about every event when it is new.
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
            raise LearnError(f"{path} is there and no audit log ({error}); choose another folder") from error
        self._position = 0

    @property
    def events(self) -> list[Event]:
        """Those up to here."""
        return self._events[: self._position]

    @property
    def recorded(self) -> list[Event]:
        """All that earlier starts wrote."""
        return self._events

    @property
    def next(self) -> Event | None:
        """The event that was recorded here by an earlier start; None where nothing was."""
        return self._events[self._position] if self._position < len(self._events) else None

    def accept(self) -> None:
        """Go on from the recorded event."""
        self._position += 1

    def cut(self, length: int) -> None:
        """Forget all but the first `length` events, before the first is read."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        atomic_write(self._path, b"".join(lines[:length]))
        del self._events[length:]

    def record(self, kind: type[E_co], make: Callable[[], E_co]) -> E_co:
        """The event at this place: the recorded one, or a new one, which is on disk when this returns.

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
    """All events of a log."""
    return [_parse(json.loads(line)) for line in path.read_text().splitlines()]


def _parse(table: dict[str, Any]) -> Event:
    return KINDS[table.pop("event")](**table)


def _rounded(event: E_co) -> E_co:
    """Six digits of every number: what a person reads, and what a last bit does not change."""
    fields: dict[str, Any] = event._asdict()
    for name, value in fields.items():
        if isinstance(value, float):
            fields[name] = float(f"{value:.6g}")
    return type(event)(**fields)


def describe(event: Event) -> str:
    """An event in a line."""
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
