#!/usr/bin/env bash
# ASE 3.29.0: reading an SDF file gives its first record only, without its charge, and an empty structure for V3000.
# Guess: read("conformers.sdf", ":") gives every record, as it gives every frame of other formats; a molfile V3000, which RDKit
# writes for more than 999 atoms or on request, is refused where it is not supported.
# Seen: one structure, whatever the index ":" asks for; nothing of `M  CHG`; and for V3000, whose counts line says 0 atoms
# because the atoms follow in a block of their own, Atoms() with no atoms and no error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ase==3.29.0 rdkit==2026.9.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from ase.io import read
from rdkit import Chem
from rdkit.Chem import AllChem

molecules = []
for smiles in ("CC(=O)[O-]", "CCO", "c1ccccc1"):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    molecules.append(molecule)
for name, new in (("v2000.sdf", False), ("v3000.sdf", True)):
    with Chem.SDWriter(name) as writer:
        writer.SetForceV3000(new)
        for molecule in molecules:
            writer.write(molecule)
old, new = read("v2000.sdf", ":"), read("v3000.sdf", ":")
print(f"3 records, V2000: {[str(a.symbols) for a in old]}, info {old[0].info}, charges {old[0].get_initial_charges().sum()}")
print(f"3 records, V3000: {[str(a.symbols) for a in new]}")
same = len(old) == 1 and not old[0].info and not old[0].get_initial_charges().any() and [len(a) for a in new] == [0]
raise SystemExit(not same)
PYTHON
