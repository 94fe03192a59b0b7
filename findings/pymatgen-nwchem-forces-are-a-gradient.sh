#!/usr/bin/env bash
# Versions: pymatgen 2026.10.24, ASE 3.29.0.
# Guess: `forces` of pymatgen's `NwOutput` are forces, in eV/Å beside its energies in eV, or at least in hartree/bohr.
# Seen: they are the columns `gradient` of the output as they stand: hartree/bohr, and the derivative of the energy, which has
#   the opposite sign. The output below has NWChem's layout, shortened to what is read, with HF/STO-3G for H2 stretched to 1 Å.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 ase==3.29.0
cd "$venv"

cat >nwchem.out <<'OUTPUT'
              Northwest Computational Chemistry Package (NWChem) 7.0.2
              ------------------------------------------------------

                                NWChem Input Module
                                -------------------

                             Geometry "geometry" -> ""
                             -------------------------

 Output coordinates in angstroms (scale by  1.889725989 to convert to a.u.)

  No.       Tag          Charge          X              Y              Z
 ---- ---------------- ---------- -------------- -------------- --------------
    1 H                    1.0000     0.00000000     0.00000000     0.50000000
    2 H                    1.0000     0.00000000     0.00000000    -0.50000000

                                 NWChem SCF Module
                                 -----------------

         Total SCF energy =     -1.066108649320

                            NWChem Gradients Module
                            -----------------------

                         RHF ENERGY GRADIENTS

    atom               coordinates                        gradient
                 x          y          z           x          y          z
   1 H       0.000000   0.000000   0.944863    0.000000   0.000000   0.148572
   2 H       0.000000   0.000000  -0.944863    0.000000   0.000000  -0.148572

                 ----------------------------------------
                 |  Time  |  1-e(secs)   |  2-e(secs)   |
                 ----------------------------------------

 Task  times  cpu:        0.1s     wall:        0.1s
OUTPUT

bin/python -W ignore - <<'PYTHON'
import sys

import ase.io
from pymatgen.io.nwchem import NwOutput

data = NwOutput("nwchem.out").data[0]
force = data["forces"][0][2]
atoms = ase.io.read("nwchem.out", format="nwchem-out")
direct = atoms.get_forces()[0, 2]
print("force along z on the upper atom of stretched H2, eV/Å; a negative one pulls the atoms together")
print(f"pymatgen: {force:.3f}, beside an energy of {data['energies'][0]:.2f} eV")
print(f"ASE: {direct:.3f}, beside an energy of {atoms.get_potential_energy():.2f} eV")
sys.exit(not (abs(force - 0.148572) < 1e-6 and direct < -7 and abs(data["energies"][0] - atoms.get_potential_energy()) < 1e-3))
PYTHON
