#!/usr/bin/env bash
# Versions: PySCF 2.14.0, ASE 3.29.0.
# Guess: the stress of PySCF's ASE calculator is in eV/Å³, as that of every calculator of ASE: the derivative of the energy by
#   the strain, divided by the volume.
# Seen: it is converted as a force is, from hartree per bohr, and comes out too small by the square of the bohr in Å, 0.28.
#   The sign is right, so that a relaxation of the cell runs, and stops early.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check pyscf==2.14.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

from ase import Atoms, units
from pyscf.pbc import dft
from pyscf.pbc.tools.pyscf_ase import PySCF, cell_from_ase


def helium(edge):
    """A cubic crystal of helium."""
    atoms = Atoms("He", cell=[edge] * 3, pbc=True)
    cell = cell_from_ase(atoms)
    cell.set(basis="gth-szv", pseudo="gth-pade", mesh=[25] * 3, verbose=0).build()
    atoms.calc = PySCF(method=dft.KRKS(cell, xc="lda,vwn", kpts=cell.make_kpts([1, 1, 1])).set(verbose=0))
    return atoms


EDGE, STEP = 2.2, 2e-3  # Å
stress = helium(EDGE).get_stress()[:3].mean()
slope = helium(EDGE + STEP).get_potential_energy() - helium(EDGE - STEP).get_potential_energy()
expected = slope / (2 * STEP) / (3 * EDGE**2)  # the derivative of the energy by the volume
print(f"stress {stress:.4f}, derivative of the energy by the volume {expected:.4f} eV/Å³")
print(f"ratio {stress / expected:.4f}; the bohr in Å, squared, is {units.Bohr**2:.4f}")
sys.exit(not abs(stress / expected - units.Bohr**2) < 0.003)
PYTHON
