#!/usr/bin/env bash
# Versions: ASE 3.29.0.
# Guess: a SMILES in `atoms.info` comes back from extxyz as the string that was written.
# Seen: backslashes are gone, so that cis-but-2-ene `C/C=C\C` is but-2-ene of either kind, and hydrogen fluoride, `F`, is the
#   truth value False. The writer puts neither in quotation marks. The reader takes a backslash for an escape and F for false.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0

"$venv/bin/python" - <<'PYTHON'
import io
import sys

from ase.build import molecule
from ase.io import read, write

changed = {}
for name, smiles in (
    ("hydrogen cyanide", "C#N"),
    ("L-alanine", "C[C@H](N)C(=O)O"),
    ("trans-but-2-ene", "C/C=C/C"),
    ("cis-but-2-ene", "C/C=C\\C"),
    ("hydrogen fluoride", "F"),
):
    atoms = molecule("H2O")  # any
    atoms.info["smiles"] = smiles
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    text.seek(0)
    again = read(text, format="extxyz").info["smiles"]
    print(f"{name}: {smiles!r} is read as {again!r}")
    if again != smiles:
        changed[name] = again
sys.exit(changed != {"cis-but-2-ene": "C/C=CC", "hydrogen fluoride": False})
PYTHON
