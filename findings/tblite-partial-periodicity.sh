#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: `pbc = (True, True, False)` is a slab and `(False, False, True)` a wire: other energies than a crystal's in the same
#   cell.
# Seen: the energy is that of the crystal to the last digit, with a stress along the direction that is not periodic.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase.build import molecule
from tblite.ase import TBLite

found = {}
for pbc in ((False, False, False), (False, False, True), (True, True, False), (True, True, True)):
    atoms = molecule("H2O", cell=[4, 4, 4], pbc=pbc)
    atoms.calc = TBLite(verbosity=0)
    found[sum(pbc)] = atoms.get_potential_energy()
    print(pbc, f"{found[sum(pbc)]:.10f} eV, stress {atoms.calc.results.get('stress')}")
sys.exit(not (found[1] == found[2] == found[3] and abs(found[3] - found[0]) > 0.1))
PYTHON
