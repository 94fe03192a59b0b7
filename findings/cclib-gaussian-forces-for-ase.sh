#!/usr/bin/env bash
# Versions: cclib 1.8.1, ASE 3.29.0.
# Guess: the forces in the trajectory that cclib's bridge writes for ASE are those of the output that cclib has parsed.
# Seen: of an output of Gaussian they have the opposite sign. `grads` holds the derivative of the energy for ORCA, and for
#   Gaussian the forces that it prints; the bridge takes minus `grads` for either. The two outputs below have the programs'
#   layout, shortened to what is read, with the numbers of HF/STO-3G for H2 stretched to 1 Å.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check cclib==1.8.1 ase==3.29.0
cd "$venv"

cat >gaussian.log <<'OUTPUT'
 Entering Gaussian System, Link 0=g16
 Copyright (c) 1988-2017, Gaussian, Inc.  All Rights Reserved.
 Gaussian 16:  ES64L-G16RevA.03 25-Dec-2016
 ---------------
 # hf/sto-3g force
 ---------------
 Charge =  0 Multiplicity = 1
                          Input orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1          1           0        0.000000    0.000000    0.500000
      2          1           0        0.000000    0.000000   -0.500000
 ---------------------------------------------------------------------
 SCF Done:  E(RHF) =  -1.06610864932     A.U. after    6 cycles
 -------------------------------------------------------------------
 Center     Atomic                   Forces (Hartrees/Bohr)
 Number     Number              X              Y              Z
 -------------------------------------------------------------------
      1        1           0.000000000    0.000000000   -0.148571575
      2        1           0.000000000    0.000000000    0.148571575
 -------------------------------------------------------------------
 Normal termination of Gaussian 16 at Mon Jan  1 00:00:00 2024.
OUTPUT
cat >orca.out <<'OUTPUT'
                                 *****************
                                 * O   R   C   A *
                                 *****************

                         Program Version 5.0.3 -  RELEASE  -

---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  H      0.000000    0.000000    0.500000
  H      0.000000    0.000000   -0.500000

-------------------------   --------------------
FINAL SINGLE POINT ENERGY        -1.066108649320
-------------------------   --------------------

------------------
CARTESIAN GRADIENT
------------------

   1   H   :    0.000000000    0.000000000    0.148571575
   2   H   :    0.000000000    0.000000000   -0.148571575

Difference to translation invariance:
           :    0.0000000000    0.0000000000    0.0000000000
OUTPUT

bin/python -W ignore - <<'PYTHON'
import sys

import ase.io
import cclib
from cclib.bridge.cclib2ase import write_trajectory

print("force along z on the upper atom of stretched H2, eV/Å; a negative one pulls the atoms together")
forces = {}
for name in ("gaussian.log", "orca.out"):
    data = cclib.io.ccread(name)
    write_trajectory("h2.traj", data)
    forces[name] = ase.io.read("h2.traj").get_forces()[0, 2]
    print(f"{name}: {forces[name]:.3f} by cclib's bridge, whose grads are {data.grads[-1][0][2]:.4f} hartree/bohr")
direct = ase.io.read("gaussian.log", format="gaussian-out").get_forces()[0, 2]
print(f"gaussian.log: {direct:.3f} by ASE's own reader")
sys.exit(not (forces["gaussian.log"] > 7 and forces["orca.out"] < -7 and direct < -7))
PYTHON
