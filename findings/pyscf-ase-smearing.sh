#!/usr/bin/env bash
# Versions: PySCF 2.14.0, ASE 3.29.0.
# Guess: with a smeared occupation PySCF's ASE calculator has the free energy, to which its forces belong, or a `free_energy`
#   beside its energy, as other calculators do.
# Seen: there is only `energy`, which is `e_tot`; the forces are the derivatives of `e_free`, off by eV/Å for stretched N2.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check pyscf==2.14.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase import Atoms
from pyscf import gto, scf
from pyscf.pbc.tools.pyscf_ase import PySCF

EV = 27.211386


def smeared(distance):
    molecule = gto.M(atom=f"N 0 0 0; N 0 0 {distance}", basis="sto-3g", verbose=0)
    method = scf.addons.smearing_(scf.RHF(molecule), sigma=0.05, method="fermi")
    method.conv_tol = 1e-11
    return method


atoms = Atoms("N2", [(0, 0, 0), (0, 0, 1.6)])
atoms.calc = PySCF(method=smeared(1.6))
force = atoms.get_forces()[1, 2]
ends = [smeared(distance).run() for distance in (1.599, 1.601)]
of_energy, of_free = (-EV * (getattr(ends[1], n) - getattr(ends[0], n)) / 2e-3 for n in ("e_tot", "e_free"))
print("results:", sorted(atoms.calc.results))
print(f"force {force:.3f} eV/Å; difference of e_tot {of_energy:.3f}, of e_free {of_free:.3f}")
sys.exit(not ("free_energy" not in atoms.calc.results and abs(force - of_free) < 0.01 < abs(force - of_energy)))
PYTHON
