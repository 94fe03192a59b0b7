"""Report progress: a bar on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20.0


class Progress:
    """Progress of `total` units of work, on standard error.

    Parameters
    ----------
    total
        Total number of units of work; None: not known.
    description
        Name of the work.
    unit
        Name of a unit. Bytes, ``"B"``, are shown as k and M.
    """

    def __init__(self, total: int | None, description: str, unit: str = "step") -> None:
        self.total, self.description, self.unit = total, description, unit
        self.done = 0
        self._last_line, self._last_done = time.monotonic(), 0
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, desc=description, unit=unit, unit_scale=unit == "B", dynamic_ncols=True)
            if terminal
            else None
        )

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units as done; show `note` beside the rate."""
        self.done += n
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            rate = (self.done - self._last_done) / (now - self._last_line)
            self._last_line, self._last_done = now, self.done
            show = self._show
            amount = show(self.done) if self.total is None else f"{show(self.done)}/{show(self.total)}"
            line = f"{self.description}: {amount}{'' if self.unit == 'B' else f' {self.unit}s'}, {show(rate)}/s"
            if self.total is not None:
                left = tqdm.format_interval((self.total - self.done) / rate) if self.done > 1 and rate else "?"
                line = f"{line}, {left} left"
            print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)

    def _show(self, amount: float) -> str:
        if self.unit == "B":
            return f"{tqdm.format_sizeof(amount)}B"
        return str(amount) if isinstance(amount, int) else f"{amount:.1f}"

    def print(self, line: str) -> None:
        """Print a line on standard output, above the bar if there is one."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class Stages:
    """Progress of successive stages; the first report of a stage begins it."""

    def __init__(self) -> None:
        self._name = ""
        self._current: Progress | None = None

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total` steps of the stage `name`; show `note` beside the rate."""
        if self._current is None or name != self._name or done < self._current.done or total != self._current.total:
            self.close()
            self._name, self._current = name, Progress(total, name)
        self._current.update(done - self._current.done, note)

    def print(self, line: str) -> None:
        """Print a line on standard output."""
        if self._current is None:
            print(line, flush=True)
        else:
            self._current.print(line)

    def close(self) -> None:
        """End the last stage."""
        if self._current is not None:
            self._current.__exit__(None, None, None)
            self._current = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
