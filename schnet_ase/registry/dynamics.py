"""Dynamics on the card of an entry: how long it was stable, when it was flagged, and how fast it was."""

from __future__ import annotations

from pydantic.dataclasses import dataclass


@dataclass(frozen=True)
class OtherRun:
    """Run with another seed, or from the structure of another entry whose molecule this entry was trained on too."""

    structure: str | None
    """Name of the other entry; None: the entry's own structure."""
    stable: float
    """Stable time in ps, see `Dynamics`."""
    flagged: float | None
    """Time of the first flag in ps, see `Dynamics`."""
    seed: int = 0

    def which(self) -> str:
        """Return in what this run differs from the main one."""
        seed = f"seed {self.seed}"
        if self.structure is None:
            return seed
        return f"{self.structure}, {seed}" if self.seed else self.structure


@dataclass(frozen=True)
class Dynamics:
    """Stability of the ensemble's dynamics at a temperature, first flag of a monitor, and speed of the members."""

    temperature: float
    """Temperature, K."""
    picoseconds: float
    """Requested length of the run."""
    stable: float
    """ps until a bond was more than 0.5 Å off its relaxed length (shared protons excepted), else the whole length."""
    threshold: float | None
    """Threshold of the monitor, eV/Å; None without a calibration."""
    flagged: float | None
    """ps until the monitor's first flag; None if there was none."""
    milliseconds: tuple[float, ...]
    """Time per step of velocity Verlet for each member on one thread."""
    processor: str
    command: str
    """Command that made the run; the times may be newer."""
    yardstick: float | None = None
    """ms per step of an untrained network (three interactions, 128 features, 5 Å), timed in turns with the members."""
    others: tuple[OtherRun, ...] = ()
    """Further runs of the same length and temperature with the same threshold."""
    before_prior: bool = False
    """Whether runs and times are those of the networks before they were given a prior."""

    def lines(self) -> list[str]:
        """Return a description for the terminal."""
        run = f"{self.picoseconds:g} ps at {self.temperature:g} K"
        at = "" if self.threshold is None else f", at {self.threshold:.4f} eV/Å"
        times = ", ".join(f"{t:.2f}" for t in self.milliseconds)
        beside = "" if self.yardstick is None else f", {self.yardstick:.2f} of a network of 3 × 128"
        return [
            f"{run}: {self.outcome(self.stable, self.flagged)}{at}",
            *(f"the same from {other.which()}: {self.outcome(other.stable, other.flagged)}" for other in self.others),
            f"{times} ms a step of each member{beside} ({self.processor})",
            *(["these runs and times are of the networks before the prior was added"] if self.before_prior else []),
        ]

    def outcome(self, stable: float, flagged: float | None) -> str:
        """Return the outcome of a run of this length and threshold, in words."""
        end = "stable" if stable >= self.picoseconds else f"a bond broke after {stable:.3f} ps"
        if self.threshold is None:
            return f"{end}; not watched, without a calibration"
        return f"{end}; {'none flagged' if flagged is None else f'first flag after {flagged:.3f} ps'}"

    def broken(self) -> str | None:
        """Return in words in which runs a bond broke; None if none broke."""
        runs = [("", self.stable), *((f" ({other.which()})", other.stable) for other in self.others)]
        broken = [f"{stable:.3f} ps{which}" for which, stable in runs if stable < self.picoseconds]
        return f"at {self.temperature:g} K a bond broke after {' and '.join(broken)}" if broken else None
