"""The teacher: the mean of an entry's members, where its dynamics start, and the labels that it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import FixedCalculator, SchNetCalculator
from schnet_ase.data import Frame
from schnet_ase.data.frames import molecules
from schnet_ase.errors import RegistryError, TrainingError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.monitor.arguments import FAILED_ABOVE
from schnet_ase.registry.card import Card
from schnet_ase.registry.lookup import find_card, named_member, unknown_model
from schnet_ase.training.distill.labelled import Labelled

FMAX, RELAX_STEPS = 0.05, 200
"""eV/Å, and most steps: dynamics from there need not begin at the very minimum."""


class Teacher(NamedTuple):
    """An entry whose mean is learned."""

    card: Card
    calculator: FixedCalculator
    """Its results are means over the members."""
    failed_above: float
    """eV/Å: a frame whose largest ``forces_deviation`` is above it has left the world; infinite where not known."""

    @classmethod
    def of(cls, entry: str) -> Teacher:
        """The teacher of the name, or folder, of an entry.

        Raises
        ------
        RegistryError
            There is no such entry, or it has no card.
        TrainingError
            The entry was taught no forces.
        """
        card = find_card(entry)
        if card is None:
            if not (named_member(entry) or Path(entry).exists()):
                raise unknown_model(entry)
            raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
        if card.best.validation.force_mae is None:
            raise TrainingError(f"{card.name} was taught no forces, so that nothing can move by it; give another entry")
        if len(card.members) == 1:
            return cls(card, SchNetCalculator(card.path / card.members[0].file), math.inf)
        calculator = SchNetEnsembleCalculator(card.path)
        calibration = calculator.calibration
        return cls(card, calculator, math.inf if calibration is None else FAILED_ABOVE * calibration.threshold())

    def deviation(self) -> float:
        """The largest ``forces_deviation`` of the frame computed last, eV/Å; 0 for one member."""
        return float(np.max(self.calculator.results.get("forces_deviation", 0.0)))

    def starts(self, own: Sequence[Frame]) -> list[Atoms]:
        """Where dynamics start: the card's structure, and for each other molecule of `own` its lowest frame, relaxed.

        Raises
        ------
        TrainingError
            The card has no structure, or names more systems than there are starts.
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
                f"{self.card.name} knows {len(formulas)} compositions, and its card has the structure of one; for "
                f"{', '.join(missing[:3])} to start from give --data-root, the folder of {self.card.data.file}"
            )
        first = structure.get_chemical_formula()
        return [found.pop(first), *(self._relaxed(found[name]) for name in sorted(found))]

    def _relaxed(self, atoms: Atoms) -> Atoms:
        """The atoms near the next minimum of the mean energy, where the card's structure is too."""
        self.calculator.reset()
        atoms.calc = self.calculator
        with BFGS(atoms, logfile=None, maxstep=0.05) as optimizer:
            optimizer.run(fmax=FMAX, steps=RELAX_STEPS)
        atoms.calc = None
        return atoms

    def label(self, frames: Sequence[Frame], report: Callable[[int], None] = lambda n: None) -> list[Labelled]:
        """The teacher's labels of other frames, those of one system together; frames that left the world are not there.

        Parameters
        ----------
        frames
            Their own labels are not looked at.
        report
            Called with the number of frames that are done.
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
        """Keep the frame that the calculator has just computed."""
        results = atoms.calc.results
        cell, forces = atoms.cell.array.copy(), results["forces"].copy()
        stress: Floats = results["stress"].copy() if atoms.pbc.all() else np.zeros(0)
        self.rows.append((cell, atoms.positions.copy(), results["energy"], forces, stress))

    def labelled(self) -> Labelled:
        """What has been recorded."""
        return Labelled(self._numbers, self._pbc, *(np.array(column) for column in zip(*self.rows, strict=True)))
