#!/usr/bin/env bash
# Versions: ASE 3.29.0.
# Guess: given all 3N energies of a vibrational analysis at a saddle, `IdealGasThermo` leaves out the imaginary one and takes
#   the 3N-7 real vibrations.
# Seen: it takes the 3N-6 largest real parts in silence, so that a rotation is counted as a vibration.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0

"$venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from ase.build import molecule
from ase.thermochemistry import IdealGasThermo

# Three atoms at a saddle: one imaginary mode, three translations, three rotations (here up to 10 meV), two vibrations.
modes = np.array([0.1j, 0.0004, 0.0005, 0.001, 0.002, 0.003, 0.010, 0.45, 0.47])
thermo = IdealGasThermo(modes, geometry="nonlinear", atoms=molecule("H2O"), symmetrynumber=2, spin=0)
zpe = thermo.get_ZPE_correction()
print("modes taken:", thermo.vib_energies, "eV")
print(f"zero-point energy {zpe:.3f} eV; that of the two vibrations is {0.5 * (0.45 + 0.47):.3f} eV")
sys.exit(not np.isclose(zpe, 0.5 * (0.010 + 0.45 + 0.47)))
PYTHON
