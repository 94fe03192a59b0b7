#!/usr/bin/env bash
# Versions: qc-iodata 1.0.1, ASE 3.29.0.
# Guess: IOData holds everything in atomic units, and so has from an extxyz file of ASE the positions in bohr and the energy in
#   hartree; the forces are, with the other sign, its `atgradient`.
# Seen: positions, cell and masses are in atomic units, but `energy` is the number of the file, in electronvolt. `atgradient`
#   is None, and the forces are in `extra`, in eV/Å.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check qc-iodata==1.0.1 ase==3.29.0

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import ase.io
import numpy as np
from ase import units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from iodata import load_one

water = molecule("H2O")
water.calc = SinglePointCalculator(water, energy=-76.4 * units.Hartree, forces=np.full((3, 3), 0.5))
ase.io.write("water.extxyz", water)
read = load_one("water.extxyz")
bond = np.linalg.norm(read.atcoords[1] - read.atcoords[0])
print(f"bond {bond:.4f}: {water.get_distance(0, 1):.4f} Å are {water.get_distance(0, 1) / units.Bohr:.4f} bohr")
print(f"energy {read.energy:.4f}: {-76.4 * units.Hartree:.4f} eV are -76.4 hartree")
print(f"gradient {read.atgradient}, first force in `extra` {read.extra['forces'][0]}")
energy_as_stored = abs(read.energy + 76.4 * units.Hartree) < 1e-6
sys.exit(not (energy_as_stored and abs(bond - water.get_distance(0, 1) / units.Bohr) < 1e-4 and read.atgradient is None))
PYTHON
