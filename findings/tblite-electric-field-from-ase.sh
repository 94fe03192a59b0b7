#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: `electric_field`, documented as "Uniform electric field vector (in V/A)", takes a list or an array of three numbers.
# Seen: each raises TypeError, and so does an array given to the library's own `Calculator.add`.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from ase.build import molecule
from tblite.ase import TBLite

seen = []
for field in ([0.0, 0.0, 0.1], (0.0, 0.0, 0.1), np.array([0.0, 0.0, 0.1])):
    atoms = molecule("H2O")
    atoms.calc = TBLite(verbosity=0, electric_field=field)
    try:
        seen.append(f"{atoms.get_potential_energy():.6f} eV")
    except Exception as error:
        seen.append(type(error).__name__)
    print(type(field).__name__, seen[-1])
sys.exit(seen != ["TypeError"] * 3)
PYTHON
