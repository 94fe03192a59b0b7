#!/usr/bin/env bash
# ASE 3.29.0. The guess: the energy that ase.io reads from an output of Quantum ESPRESSO is what the file says in Rydberg
# times ase.units.Rydberg. Seen: the reader has constants of its own, CODATA 2006 instead of 2014, so that 1,000 Rydberg
# read so and 1,000 converted by ase.units are 1 meV apart: enough to see where both are in one data set.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ase==3.29.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ase.io
from ase.units import Rydberg

TEXT = """
     Program PWSCF v.7.1 starts on 12Jan2023 at 10:11:12
     number of atoms/cell      =            1
     celldm(1)=  10.000000  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )
     site n.     atom                  positions (alat units)
         1           Al  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
!    total energy              =   -1000.00000000 Ry
   JOB DONE.
"""
open("a.pwo", "w").write(TEXT)
read, converted = ase.io.read("a.pwo").get_potential_energy(), -1000.0 * Rydberg
print(f"read {read:.6f} eV, converted {converted:.6f} eV, {1000 * (read - converted):.3f} meV apart")
sys.exit(0 if 0.5e-3 < abs(read - converted) < 2e-3 else "the constants have changed")
PYTHON
