#!/usr/bin/env bash
# Versions: PySCF 2.14.0.
# Guess: a basis that is made for an effective core potential, such as def2-SVP for iodine, brings it along.
# Seen: only `ecp=` does. With `basis="def2-svp"` alone all 53 electrons of iodine fill its valence functions: the SCF
#   converges, and the force on HI near its bond length is above 100 eV/Å instead of below 1.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check pyscf==2.14.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from pyscf import gto, scf

EV_PER_ANGSTROM = 51.422067  # of a hartree per bohr
forces = {}
for name, core in (("basis alone", {}), ("basis and ecp", {"ecp": "def2-svp"})):
    molecule = gto.M(atom="H 0 0 0; I 0 0 1.61", basis="def2-svp", verbose=0, **core)
    method = scf.RHF(molecule).run()
    forces[name] = -method.nuc_grad_method().kernel()[1, 2] * EV_PER_ANGSTROM
    print(f"{name}: {molecule.nelectron} electrons, converged {method.converged}, force on I {forces[name]:.2f} eV/Å")
sys.exit(not (abs(forces["basis alone"]) > 50 and abs(forces["basis and ecp"]) < 5))
PYTHON
