#!/usr/bin/env bash
# Versions: PySCF 2.14.0.
# Guess: `mol.atom_mass_list()` has the masses of the most common isotopes, 1.00783 for hydrogen, or the averages of the
#   elements; the frequencies of `pyscf.eph` and `pyscf.hessian.thermo` from one Hessian agree.
# Seen: it has mass numbers, integers such as 1 and 16, unless `isotope_avg=True`. `mol.inertia_moment()` takes them as they
#   are, so that the rotational constant of H2 is 0.8 % too large. `pyscf.eph` multiplies them by the mass of the proton
#   instead of the atomic mass unit: CO's stretch is 0.3 % lower than that of `thermo`, which takes the averages.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check pyscf==2.14.0

OMP_NUM_THREADS=1 "$venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
from pyscf import eph, gto, scf
from pyscf.data import nist
from pyscf.hessian import thermo

hydrogen = gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)
inertia = hydrogen.inertia_moment()[0, 0] / (0.74 / nist.BOHR) ** 2  # the reduced mass
print(f"H2: reduced mass in the moment of inertia {inertia:.5f}, of the isotope {1.00782503 / 2:.5f}")

monoxide = gto.M(atom="C 0 0 0; O 0 0 1.1455", basis="sto-3g", verbose=0)
masses = monoxide.atom_mass_list()
averages = monoxide.atom_mass_list(isotope_avg=True)
print(f"CO: {masses} by default, {averages} as averages")
field = scf.RHF(monoxide).run(conv_tol=1e-12)
hessian = field.Hessian().kernel()
by_thermo = thermo.harmonic_analysis(monoxide, hessian)["freq_wavenumber"].real.max()
by_eph = eph.EPH(field).get_mode(de=hessian)[0].max() * nist.HARTREE2WAVENUMBER
of_masses = np.sqrt((1 / masses).sum() / (1 / averages).sum() * nist.ATOMIC_MASS / nist.PROTON_MASS)
print(f"CO: stretch {by_eph:.1f} 1/cm by eph, {by_thermo:.1f} 1/cm by thermo, ratio {by_eph / by_thermo:.5f}")
print(f"ratio that mass numbers times the proton's mass give: {of_masses:.5f}")
integers = masses.tolist() == [12, 16] and abs(inertia - 0.5) < 1e-6
sys.exit(not (integers and by_eph / by_thermo < 0.998 and abs(by_eph / by_thermo - of_masses) < 1e-4))
PYTHON
