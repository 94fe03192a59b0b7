#!/usr/bin/env bash
# Versions: openbabel-wheel 3.1.1.23.
# Guess: `OBForceField.GetGradient(atom)` is the derivative of `Energy()` by the position of the atom.
# Seen: it is minus that, the force, in each of the four force fields tried.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check openbabel-wheel==3.1.1.23

"$venv/bin/python" - <<'PYTHON'
import sys

from openbabel import openbabel

STEP = 1e-3  # Å

ethanol = openbabel.OBMol()
reader = openbabel.OBConversion()
reader.SetInFormat("smi")
reader.ReadString(ethanol, "CCO")
ethanol.AddHydrogens()
openbabel.OBBuilder().Build(ethanol)
carbon = ethanol.GetAtom(2)
x = carbon.GetX() + 0.1
carbon.SetVector(x, carbon.GetY(), carbon.GetZ())

minus = []
for name in ("MMFF94", "UFF", "GAFF", "Ghemical"):
    field = openbabel.OBForceField.FindForceField(name)
    field.Setup(ethanol)
    field.Energy(True)  # with derivatives
    given = field.GetGradient(carbon).GetX()
    energies = []
    for sign in (1, -1):
        moved = openbabel.OBMol(ethanol)
        atom = moved.GetAtom(2)
        atom.SetVector(x + sign * STEP, atom.GetY(), atom.GetZ())
        field.SetCoordinates(moved)
        energies.append(field.Energy(False))
    slope = (energies[0] - energies[1]) / (2 * STEP)
    minus.append(abs(given + slope) < 0.01 * abs(slope))
    print(f"{name}: GetGradient {given:.2f}, slope of the energy {slope:.2f} {field.GetUnit()}/Å")
sys.exit(not all(minus))
PYTHON
