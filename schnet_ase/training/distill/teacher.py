"""The teacher: the mean of an entry's members, the starting structures of its dynamics, and its labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.calculators.single import SchNetCalculator
from schnet_ase.data import Frame
from schnet_ase.data.frames import molecules
from schnet_ase.errors import RegistryError, TrainingError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.monitor.arguments import FAILED_ABOVE
from schnet_ase.registry.card import Card
from schnet_ase.registry.lookup import find_card, named_member, unknown_model
from schnet_ase.training.distill.labelled import Labelled

FMAX, RELAX_STEPS = 0.05, 200
"""Largest force in eV/Å, and largest number of steps; dynamics need not start exactly at the minimum."""


class Teacher(NamedTuple):
    """Entry whose mean a student learns."""

    card: Card
    calculator: FixedCalculator
    """Calculator whose results are means over the members."""
    failed_above: float
    """Largest ``forces_deviation`` in eV/Å for frames within the training domain; infinite if there is no limit."""

    @classmethod
    def of(cls, entry: str) -> Teacher:
        """Return the teacher for an entry, given by name or folder.

        Raises
        ------
        RegistryError
            There is no such entry, or it has no card.
        TrainingError
            The entry was not trained on forces.
        """
        card = find_card(entry)
        if card is None:
            if not (named_member(entry) or Path(entry).exists()):
                raise unknown_model(entry)
            raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
        if card.best.validation.force_mae is None:
            raise TrainingError(f"{card.name} was not trained on forces, so it cannot move atoms; give another entry")
        if len(card.members) == 1:
            return cls(card, SchNetCalculator(card.path / card.members[0].file), math.inf)
        calculator = SchNetEnsembleCalculator(card.path)
        calibration = calculator.calibration
        return cls(card, calculator, math.inf if calibration is None else FAILED_ABOVE * calibration.threshold())

    def deviation(self) -> float:
        """Return the largest ``forces_deviation`` of the last frame in eV/Å; 0 for a single member."""
        return float(np.max(self.calculator.results.get("forces_deviation", 0.0)))

    def starts(self, own: Sequence[Frame], most: int) -> list[Atoms]:
        """Return the structures to start from: that of the card and, relaxed, the lowest frame of each other molecule.

        Parameters
        ----------
        own
            Frames of the entry's data, with the energies of their labels.
        most
            Largest number of structures. Of more molecules than that, some are taken, spread evenly over their formulas
            in alphabetical order.

        Raises
        ------
        TrainingError
            The card has no structure, or neither the card nor `own` has a structure for one of the card's formulas.
        """
        structure = self.card.structure.atoms()
        if not len(structure):
            raise TrainingError(f"{self.card.path / 'card.json'}: has no structure for dynamics to start from")
        lowest: dict[int, Frame] = {}
        for frame, kind in zip(own, molecules(frame.geometry.numbers for frame in own).tolist(), strict=True):
            if kind not in lowest or (frame.energy or 0.0) < (lowest[kind].energy or 0.0):
                lowest[kind] = frame
        known = [structure, *(frame.atoms() for frame in lowest.values())]
        found = {atoms.get_chemical_formula(): atoms for atoms in reversed(known)}
        formulas = self.card.data.formulas or ()
        if missing := sorted(set(formulas) - found.keys()):
            raise TrainingError(
                f"{self.card.name} knows {len(formulas)} compositions, but its card has the structure of one only; to "
                f"start from {', '.join(missing[:3])}, give --data-root, the folder of {self.card.data.file}"
            )
        first = structure.get_chemical_formula()
        start, names = found.pop(first), sorted(found)
        chosen = np.linspace(0, len(names), min(most - 1, len(names)), endpoint=False).astype(int)
        return [start, *(self._relaxed(found[names[i]]) for i in chosen)]

    def _relaxed(self, atoms: Atoms) -> Atoms:
        """Relax atoms to near the next minimum of the mean energy, as the structure on the card is."""
        self.calculator.reset()
        atoms.calc = self.calculator
        with BFGS(atoms, logfile=None, maxstep=0.05) as optimizer:
            optimizer.run(fmax=FMAX, steps=RELAX_STEPS)
        atoms.calc = None
        return atoms

    def label(self, frames: Sequence[Frame], report: Callable[[int], None] = lambda n: None) -> list[Labelled]:
        """Label frames with the teacher, grouped by system, leaving out frames outside its training domain.

        Parameters
        ----------
        frames
            Frames, whose own labels are not used.
        report
            Callback that receives the number of frames computed.
        """
        groups: dict[bytes, Recorder] = {}
        for n, frame in enumerate(frames):
            atoms = frame.atoms()
            self.calculator.reset()
            atoms.calc = self.calculator
            atoms.get_forces()
            recorder = groups.setdefault(atoms.numbers.tobytes() + atoms.pbc.tobytes(), Recorder(atoms))
            if self.deviation() <= self.failed_above:
                recorder.record(atoms)
            report(n + 1)
        return [recorder.labelled() for recorder in groups.values() if recorder.rows]


class Recorder:
    """Collects frames of one system with the results of its calculator."""

    def __init__(self, atoms: Atoms) -> None:
        self._numbers, self._pbc = atoms.numbers.copy(), atoms.pbc.copy()
        self.rows: list[tuple[Any, ...]] = []

    def record(self, atoms: Atoms) -> None:
        """Record the frame that the calculator has just computed."""
        results = atoms.calc.results
        cell, forces = atoms.cell.array.copy(), results["forces"].copy()
        stress: Floats = results["stress"].copy() if atoms.pbc.all() else np.zeros(0)
        self.rows.append((cell, atoms.positions.copy(), results["energy"], forces, stress))

    def labelled(self) -> Labelled:
        """Return the recorded frames."""
        return Labelled(self._numbers, self._pbc, *(np.array(column) for column in zip(*self.rows, strict=True)))
