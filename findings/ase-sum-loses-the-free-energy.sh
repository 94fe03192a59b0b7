#!/usr/bin/env bash
# Versions: ASE 3.29.0.
# Guess: `SumCalculator([dft, dispersion])` has the free energy of the first, to which its forces belong, plus the energy of
#   the second.
# Seen: where the second does not declare `free_energy` the sum has none; `energy` is that at zero smearing, beside forces
#   of the free energy, and `get_potential_energy(force_consistent=True)` raises.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.mixing import SumCalculator


class Smeared(Calculator):
    implemented_properties = ["energy", "free_energy", "forces"]

    def calculate(self, atoms, properties, changes):
        super().calculate(atoms, properties, changes)
        self.results = {"energy": -2.0, "free_energy": -2.5, "forces": np.ones((len(atoms), 3))}


class Dispersion(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms, properties, changes):
        super().calculate(atoms, properties, changes)
        self.results = {"energy": -0.1, "forces": np.ones((len(atoms), 3))}


atoms = molecule("H2O")
atoms.calc = SumCalculator([Smeared(), Dispersion()])
atoms.get_forces()
print("the sum has", {name: value for name, value in atoms.calc.results.items() if name.endswith("energy")})
try:
    print("force consistent:", atoms.get_potential_energy(force_consistent=True))
    raised = False
except PropertyNotImplementedError as error:
    print("force consistent:", error)
    raised = True
sys.exit(not (raised and atoms.calc.results["energy"] == -2.1))
PYTHON
