"""Reference codes that fail, end the process, wander, or record what they were asked."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT


class FailsWhenStretched(EMT):
    """EMT that gives up on some frames, and always on the same."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if atoms.get_distance(0, 1) > self.longest:
            raise RuntimeError("SCF not converged\nafter 100 cycles")
        super().calculate(atoms, list(properties), list(system_changes))

    longest = 1.62


class AlwaysFails(FailsWhenStretched):
    longest = 0.0
    asked: ClassVar[list[np.ndarray]] = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        self.asked.append(atoms.get_positions())
        super().calculate(atoms, properties, system_changes)


class EndsTheProcess(EMT):
    """EMT that ends the process, as a fault in compiled code would."""

    mended: ClassVar[bool] = False

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if not self.mended:
            os.kill(os.getpid(), 9)
        super().calculate(atoms, list(properties), list(system_changes))


class Wandering(EMT):
    """EMT in another working folder."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if Path("elsewhere").exists():
            os.chdir("elsewhere")
        super().calculate(atoms, list(properties), list(system_changes))


class Recording(EMT):
    """EMT that keeps what it was asked about."""

    asked: ClassVar[list[Atoms]] = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        self.asked.append(atoms.copy())
        super().calculate(atoms, list(properties), list(system_changes))
