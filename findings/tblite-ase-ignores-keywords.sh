#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: `TBLite(charges=1)` or `TBLite(uhf=2)` is refused as unknown, and `initial_guess`, which the class's table of
#   keywords documents, chooses the guess.
# Seen: all three are accepted and change nothing, even `initial_guess="rubbish"`; the names that work are `charge`,
#   `multiplicity` and `guess`.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase.build import molecule
from tblite.ase import TBLite


def energy(**keywords):
    atoms = molecule("H2O")
    atoms.calc = TBLite(verbosity=0, **keywords)
    return atoms.get_potential_energy()


plain = energy()
ignored = [{"charges": 1}, {"uhf": 2}, {"initial_guess": "rubbish"}]
known = [{"charge": 1}, {"multiplicity": 3}]
for keywords in (*ignored, *known):
    print(keywords, f"changes the energy of water by {energy(**keywords) - plain:.6f} eV")
sys.exit(not (all(energy(**k) == plain for k in ignored) and all(energy(**k) - plain > 1 for k in known)))
PYTHON
