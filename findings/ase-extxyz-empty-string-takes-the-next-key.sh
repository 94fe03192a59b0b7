#!/usr/bin/env bash
# Versions: ASE 3.29.0.
# Guess: an empty string in `atoms.info`, such as a comment that nobody filled in, comes back from extxyz as an empty string.
# Seen: it is written as `note=` without quotation marks, and the reader takes the next key for its value. The energy that
#   follows is gone; where `pbc` follows, a slab is read as periodic in all three directions.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0

"$venv/bin/python" - <<'PYTHON'
import io
import sys

from ase.build import fcc111
from ase.io import read, write


def again(info):
    """A slab with this info, written to extxyz and read."""
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    slab.info = info
    text = io.StringIO()
    write(text, slab, format="extxyz")
    print(text.getvalue().splitlines()[1])
    text.seek(0)
    atoms = read(text, format="extxyz")
    print("  read as", atoms.info, "pbc", atoms.pbc)
    return atoms


last = again({"REF_energy": -3.0, "note": ""})
first = again({"note": "", "REF_energy": -3.0})
sys.exit(not (last.pbc.all() and last.info["note"] == "pbc=T T F" and "REF_energy" not in first.info))
PYTHON
