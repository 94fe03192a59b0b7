#!/usr/bin/env bash
# Versions: ASE 3.29.0.
# Guess: `externalstress=p` means the same for the two barostats of `ase.md` that take it.
# Seen: 10 GPa compresses copper in MelchionnaNPT and expands it in LangevinBAOAB.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.melchionna import MelchionnaNPT
from ase.md.velocitydistribution import thermalize_momenta


def volume(barostat, pressure):
    """Mean volume of an atom, Å³, in the second half of a run."""
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    atoms.calc = EMT()
    thermalize_momenta(atoms, temperature_K=100, rng=rng)
    common = {"temperature_K": 100, "externalstress": pressure * units.GPa}
    if barostat is MelchionnaNPT:
        factor = (75 * units.fs) ** 2 * 140 * units.GPa
        dynamics = MelchionnaNPT(atoms, 2 * units.fs, ttime=25 * units.fs, pfactor=factor, **common)
    else:
        times = {"T_tau": 50 * units.fs, "P_tau": 200 * units.fs}
        dynamics = LangevinBAOAB(atoms, 2 * units.fs, hydrostatic=True, rng=rng, **times, **common)
    volumes = []
    dynamics.attach(lambda: volumes.append(atoms.get_volume() / len(atoms)))
    dynamics.run(400)
    return np.mean(volumes[200:])


change = {}
for barostat in (MelchionnaNPT, LangevinBAOAB):
    free, pressed = (volume(barostat, pressure) for pressure in (0.0, 10.0))
    change[barostat] = pressed - free
    print(f"{barostat.__name__}: {free:.2f} Å³ per atom without, {pressed:.2f} with externalstress = 10 GPa")
sys.exit(not (change[MelchionnaNPT] < -0.3 and change[LangevinBAOAB] > 0.3))
PYTHON
