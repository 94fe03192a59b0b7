"""Data sets made by hand, and what their summary says of them."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT

from schnet_ase.data import Dataset, Frame
from schnet_ase.data.summary import Summary, findings, page
from schnet_ase.geometry.system import Geometry


def frame(atoms: Atoms, energy: float | None = None, forces: np.ndarray | None = None, **more: object) -> Frame:
    geometry = Geometry(atoms.numbers.astype(np.int64), atoms.positions.copy(), atoms.cell.array.copy(), atoms.pbc)
    return Frame(geometry, energy, forces, **more)


def dataset(frames: list[Frame]) -> Dataset:
    return Dataset(frames, "hand.extxyz", "0123456789abcdef", "Å, eV, eV/Å (assumed, as ASE files have it)")


def labelled(atoms: Atoms) -> Frame:
    atoms.calc = EMT()
    return frame(atoms, atoms.get_potential_energy(), atoms.get_forces())


def found(summary: Summary, name: str) -> str:
    """What a check says, its action too."""
    return " | ".join(f"{f.text} -> {f.action}" for f in findings(summary) if f.name == name)


def suspicious(summary: Summary) -> list[str]:
    return [f.name for f in findings(summary) if f.action]


def verdict(summary: Summary) -> str:
    text = "\n".join(page(summary))
    return text[max(text.rfind("\nReady"), text.rfind("\nBefore")) + 1 :].replace("\n", " ")
