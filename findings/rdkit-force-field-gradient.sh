#!/usr/bin/env bash
# RDKit 2026.9.1: ForceField.CalcGrad(positions) is only right the first time.
# Guess: the gradient is that of the positions given, whatever was asked for before, as the energy of CalcEnergy(positions) is.
# Seen: after one call, CalcGrad(other positions) mixes in distances kept from the first ones, and is wrong by as much as the
# gradient itself, silently, for MMFF94 and UFF. Calling Initialize() before each CalcGrad gives the right numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rdkit==2026.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers as helpers

mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
rdDistGeom.EmbedMolecule(mol, randomSeed=1)
makers = {
    "MMFF94": lambda: helpers.MMFFGetMoleculeForceField(mol, helpers.MMFFGetMoleculeProperties(mol)),
    "UFF": lambda: helpers.UFFGetMoleculeForceField(mol),
}
rng = np.random.default_rng(0)
first = mol.GetConformer().GetPositions()
second = first + rng.normal(0.0, 0.1, first.shape)


def error(field):
    """Largest deviation of the gradient at the second positions from differences of the energy there."""
    gradient = np.array(field.CalcGrad(second.ravel().tolist()))
    slopes = []
    for k in range(second.size):
        up, down = second.ravel().copy(), second.ravel().copy()
        up[k] += 1e-4
        down[k] -= 1e-4
        slopes.append((field.CalcEnergy(up.tolist()) - field.CalcEnergy(down.tolist())) / 2e-4)
    return np.abs(gradient - slopes).max(), np.abs(slopes).max()


changed = False
for name, make in makers.items():
    once, used, mended = make(), make(), make()
    for field in (once, used, mended):
        field.Initialize()
    for field in (used, mended):
        field.CalcGrad(first.ravel().tolist())
    mended.Initialize()
    (fresh, size), (stale, _), (again, _) = error(once), error(used), error(mended)
    print(f"{name}, largest slope {size:.0f} kcal/mol/Å; gradient off by: first call {fresh:.1e}, second {stale:.1e}, "
          f"second after Initialize() {again:.1e}")
    changed |= not (fresh < 1e-2 and again < 1e-2 and stale > 10.0)
raise SystemExit(changed)
PYTHON
