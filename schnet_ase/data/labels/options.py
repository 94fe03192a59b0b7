"""Options for the labels of a file, where the file and its format do not state units or keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelOptions:
    """Units and keys of the labels of a file. None: as the file states, or else as its format defines."""

    energy_unit: str | None = None
    force_unit: str | None = None
    """None: the energy's unit per the unit of length."""
    length_unit: str | None = None
    """Unit of positions and cell."""
    stress_unit: str | None = None
    """Unit of a stress or, where it is a unit of energy, of a virial."""
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    """Name of a stress or a virial."""


UNSAID = LabelOptions()
