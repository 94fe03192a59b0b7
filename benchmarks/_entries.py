"""Entries given to benchmarks by name or folder."""

from __future__ import annotations

from schnet_ase.errors import CalibrationError
from schnet_ase.registry.card import Card
from schnet_ase.registry.lookup import find_card, get_card
from schnet_ase.uncertainty.calibration import Calibration


def calibrated(entry: str) -> tuple[Card, Calibration]:
    """Return an entry, given by name or folder, and its calibration.

    Raises
    ------
    RegistryError
        There is no such entry.
    CalibrationError
        The entry has no calibration.
    """
    card = find_card(entry) or get_card(entry)
    if card.calibration is None:
        raise CalibrationError(f"{entry} has no calibration, so no threshold; run schnet-ase calibrate {entry} DATA")
    return card, card.calibration
