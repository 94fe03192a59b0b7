#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: a multiplicity that does not fit the number of electrons is an error.
# Seen: `multiplicity=2` for water is one, but `multiplicity=1` for the hydroxyl radical is silently the doublet.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase.build import molecule
from tblite.ase import TBLite


def energy(name, multiplicity):
    atoms = molecule(name)
    atoms.calc = TBLite(verbosity=0, multiplicity=multiplicity)
    try:
        return atoms.get_potential_energy()
    except Exception as error:
        return type(error).__name__


water, one, two = energy("H2O", 2), energy("OH", 1), energy("OH", 2)
print(f"H2O, multiplicity 2: {water}\nOH, multiplicity 1: {one}\nOH, multiplicity 2: {two}")
sys.exit(not (water == "CalculationFailed" and one == two))
PYTHON
