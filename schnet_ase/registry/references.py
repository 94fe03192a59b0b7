"""What a card says of the reference environments of its entry."""

from __future__ import annotations

from typing import Final

from pydantic.dataclasses import dataclass

ENVIRONMENTS_FILE: Final = "environments.safetensors"


@dataclass(frozen=True)
class ReferenceEnvironments:
    """Surroundings of atoms in training frames, which tell what a structure has that the training never saw."""

    sha256: str
    """SHA-256 of the file `ENVIRONMENTS_FILE`."""
    per_element: int
    """Largest number of references of an element."""
    n_frames: int
    """Number of training frames that they were chosen from."""
    source: str
    """File of these frames."""
    command: str
    """Command that made them."""
