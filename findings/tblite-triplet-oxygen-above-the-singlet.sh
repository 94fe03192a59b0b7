#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: with the magnetic moments that ASE gives O2, GFN2-xTB has the triplet below the closed-shell singlet, as nature has.
# Seen: the triplet is above it: moments only set occupations, and GFN2-xTB has no energy of spin unless `spin_polarization`
#   is given, which puts the triplet below.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase.build import molecule
from tblite.ase import TBLite


def energy(multiplicity, **keywords):
    atoms = molecule("O2")
    atoms.calc = TBLite(verbosity=0, multiplicity=multiplicity, **keywords)
    return atoms.get_potential_energy()


plain = energy(3) - energy(1)
polarized = energy(3, spin_polarization=1.0) - energy(1, spin_polarization=1.0)
print(f"triplet less singlet: {plain:.3f} eV, with spin_polarization {polarized:.3f} eV")
sys.exit(not plain > 0 > polarized)
PYTHON
