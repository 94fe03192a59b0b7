"""Results of a monitor for a frame: its verdict, and its flag."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from schnet_ase.geometry.arrays import Floats


class Verdict(NamedTuple):
    """Classification of a frame by the ensemble's spread."""

    status: str
    """``"accurate"``, or a status of `Flag`."""
    atom: int
    """Watched atom with the largest deviation."""
    largest: float
    """Deviation of `atom`, eV/Å."""
    lone: tuple[int, ...]
    """Watched atoms without a neighbour, see `Flag`."""


class Flag(NamedTuple):
    """A flagged frame."""

    step: int
    time_fs: float
    """Time in fs; NaN in an optimization."""
    temperature: float
    """Temperature, K."""
    deviation: Floats
    """(N,) ``forces_deviation``, eV/Å."""
    atom: int
    """Watched atom with the largest deviation."""
    threshold: float
    """Threshold in eV/Å that this deviation exceeds, unless the frame has failed for another reason."""
    status: str
    """``"candidate"``, or ``"failed"``: too far from the training data to learn from."""
    lone: tuple[int, ...]
    """Watched atoms without a neighbour within the cutoff; the members agree on these without any knowledge."""

    @property
    def largest(self) -> float:
        """Deviation of `atom`, eV/Å."""
        return float(self.deviation[self.atom])

    def sentence(self, symbol: str, file: Path) -> str:
        """Return the message for a run that is stopped here, given the symbol of `atom` and the file of candidates."""
        saved = f"frame written to {file}" if self.status == "candidate" else "frame not saved"
        reason = f"above the threshold of {self.threshold:.3g}"
        if self.lone:
            reason = f"and atom {self.lone[0]} has no other within the cutoff"
        return (
            f"step {self.step}: forces_deviation of atom {self.atom} ({symbol}) is {self.largest:.3g} eV/Å, "
            f"{self.status}, {reason}; {saved}"
        )
