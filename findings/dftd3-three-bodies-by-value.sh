#!/usr/bin/env bash
# Versions: dftd3 1.7.0, ASE 3.29.0.
# Guess: the ASE calculator with PBE's four numbers of D3(BJ) in `params_tweaks` has the energy of `method="pbe"`.
# Seen: the name leaves the three-body term out and the numbers put it in, unless they say `s9=0`: 0.26 meV in benzene.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 dftd3==1.7.0

"$venv/bin/python" - <<'PYTHON'
import sys

from ase.build import molecule
from dftd3.ase import DFTD3

PBE = {"s6": 1.0, "s8": 0.7875, "a1": 0.4289, "a2": 4.4407}


def energy(**keywords):
    atoms = molecule("C6H6")
    atoms.calc = DFTD3(damping="d3bj", **keywords)
    return atoms.get_potential_energy()


named, numbers, without = (
    energy(method="pbe"),
    energy(params_tweaks=PBE),
    energy(params_tweaks=PBE | {"s9": 0.0}),
)
print(f"by name {named:.6f} eV, by numbers {numbers:.6f} eV, by numbers with s9=0 {without:.6f} eV")
sys.exit(not (abs(named - without) < 1e-9 and abs(named - numbers) > 1e-4))
PYTHON
