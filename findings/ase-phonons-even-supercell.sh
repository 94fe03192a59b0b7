#!/usr/bin/env bash
# Versions: ASE 3.29.0, phonopy 4.10.0.
# Guess: `ase.phonons.Phonons` with 4x4x4 cells of a crystal has the frequencies that phonopy has from the same cells, and
#   two equal transverse modes along a fourfold axis.
# Seen: at points that fit into the supercell it has, and between them not. There aluminium's transverse pair is 5.1 and
#   7.9 meV, where phonopy has twice 7.3, as ASE itself has with 5x5x5 cells: of two images on the edges of an even supercell
#   that are equally near, one gets the whole force constant.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 phonopy==4.10.0

cd "$venv"
OMP_NUM_THREADS=1 bin/python -W ignore - <<'PYTHON'
import sys

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.phonons import Phonons
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

aluminium = bulk("Al", a=4.0)
POINTS = {"between, (0.1, 0.1, 0)": (0.1, 0.1, 0), "fitting, (0.5, 0.5, 0)": (0.5, 0.5, 0)}


def by_ase(cells):
    """Energies in meV at the points."""
    phonons = Phonons(aluminium, EMT(), supercell=(cells, cells, cells), delta=0.01, name=f"ase-{cells}")
    phonons.run()
    phonons.read(acoustic=True)
    return phonons.band_structure(list(POINTS.values())) * 1e3


def by_phonopy(cells):
    """The same by phonopy."""
    unit = PhonopyAtoms(aluminium.get_chemical_symbols(), cell=aluminium.cell.array, scaled_positions=[[0, 0, 0]])
    phonons = Phonopy(unit, np.eye(3, dtype=int) * cells, primitive_matrix=np.eye(3))
    phonons.generate_displacements(distance=0.01)
    forces = []
    for cell in phonons.supercells_with_displacements:
        atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    phonons.forces = forces
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants()
    terahertz = np.array([phonons.get_frequencies(point) for point in POINTS.values()])
    return terahertz * 1e12 * units._hplanck / units._e * 1e3


energies = {"ASE, 4x4x4": by_ase(4), "ASE, 5x5x5": by_ase(5), "phonopy, 4x4x4": by_phonopy(4)}
for name, values in energies.items():
    for point, row in zip(POINTS, values):
        print(f"{name}, {point}: {np.sort(row).round(2)} meV")
gaps = {name: np.ptp(np.sort(values[0])[:2]) for name, values in energies.items()}
fitting = [np.sort(values[1]) for values in energies.values()]
same = np.ptp(fitting, axis=0).max() < 0.1
sys.exit(not (gaps["ASE, 4x4x4"] > 1 and gaps["ASE, 5x5x5"] < 0.1 and gaps["phonopy, 4x4x4"] < 0.1 and same))
PYTHON
