#!/usr/bin/env bash
# Versions: extxyz 0.4.6, ASE 3.29.0.
# Guess: the package extxyz reads what ASE writes as extxyz, or says that it cannot.
# Seen: ASE puts no quotation marks around a text with a comma, an equals sign or a backslash. The package takes a header with
#   one such value for a plain comment: the frame has neither a cell nor an energy, without a word. Where the atoms have
#   columns beyond the positions, such as forces, it says "expected 4 fields on atom line 0".
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check extxyz==0.4.6 ase==3.29.0

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import ase.io
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from extxyz import read_dicts

kept = {}
for text in ("bulk", "bulk;rattled", "bulk,rattled", "seed=1", "C/C=C\\C"):
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5)
    atoms.info["note"] = text
    ase.io.write("copper.extxyz", atoms)
    frame, again = read_dicts("copper.extxyz"), ase.io.read("copper.extxyz")
    kept[text] = frame.info.get("energy") == -3.5 and abs(frame.cell).sum() > 0
    print(f"{text}: extxyz has energy {frame.info.get('energy')} and cell {frame.cell.tolist()}", end="; ")
    print(f"ASE has energy {again.get_potential_energy()} and volume {again.get_volume():.2f} Å³")
sys.exit(list(kept.values()) != [True, True, False, False, False])
PYTHON
