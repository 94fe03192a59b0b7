"""What a monitor says of a frame that it flags."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from schnet_ase.geometry.arrays import Floats


class Verdict(NamedTuple):
    """What the ensemble's spread says of a frame."""

    status: str
    """``"accurate"``, or as of a `Flag`."""
    atom: int
    largest: float
    lone: tuple[int, ...]


class Flag(NamedTuple):
    """A frame that was flagged."""

    step: int
    time_fs: float
    """NaN in an optimization."""
    temperature: float
    """K."""
    deviation: Floats
    """(N,) ``forces_deviation``, eV/Å."""
    atom: int
    """Of the watched atoms the one with the largest."""
    threshold: float
    """eV/Å, which that exceeds, unless the frame has failed otherwise."""
    status: str
    """``"candidate"``, or ``"failed"``: too far off to learn from."""
    lone: tuple[int, ...]
    """Watched atoms that no other is within the cutoff of: the members agree on them, and know nothing."""

    @property
    def largest(self) -> float:
        """The deviation of `atom`, eV/Å."""
        return float(self.deviation[self.atom])

    def sentence(self, symbol: str, file: Path) -> str:
        """What is said where a run is stopped here; `symbol` of `atom`, and the file that candidates are in."""
        saved = f"frame written to {file}" if self.status == "candidate" else "frame not saved"
        reason = f"above the threshold of {self.threshold:.3g}"
        if self.lone:
            reason = f"and atom {self.lone[0]} has no other within the cutoff"
        return (
            f"step {self.step}: forces_deviation of atom {self.atom} ({symbol}) is {self.largest:.3g} eV/Å, "
            f"{self.status}, {reason}; {saved}"
        )
