#!/usr/bin/env bash
# Versions: ASE 3.29.0, netCDF4 1.7.5.1.post1, MDAnalysis 2.11.0.
# Guess: `NetCDFTrajectory`, which reads trajectories of AMBER, has their velocities in the unit of ASE: the file states
#   angstrom/picosecond.
# Seen: the numbers in Å/ps are taken for ASE's unit, Å per 10.18 fs. The atoms are 98 times too fast and the temperature is
#   9,600 times too high. MDAnalysis reads the same file right.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 netCDF4==1.7.5.1.post1 mdanalysis==2.11.0

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import MDAnalysis
import netCDF4
import numpy as np
from ase import units
from ase.io.netcdftrajectory import NetCDFTrajectory

SPEED = 2.0455  # Å/ps, 0.1 in the file's own unit
with netCDF4.Dataset("amber.nc", "w", format="NETCDF3_64BIT_OFFSET") as file:
    file.setncatts({"Conventions": "AMBER", "ConventionVersion": "1.0", "program": "sander", "programVersion": "9.0"})
    for name, size in (("frame", None), ("spatial", 3), ("atom", 2), ("cell_spatial", 3), ("cell_angular", 3), ("label", 5)):
        file.createDimension(name, size)
    file.createVariable("spatial", "S1", ("spatial",))[:] = np.array(list("xyz"), "S1")
    file.createVariable("cell_spatial", "S1", ("cell_spatial",))[:] = np.array(list("abc"), "S1")
    angles = [list("alpha"), list("beta "), list("gamma")]
    file.createVariable("cell_angular", "S1", ("cell_angular", "label"))[:] = np.array(angles, "S1")
    for name, kind, dimensions, unit, factor, value in (
        ("time", "f4", ("frame",), "picosecond", None, 1.0),
        ("coordinates", "f4", ("frame", "atom", "spatial"), "angstrom", None, [[0, 0, 0], [1.13, 0, 0]]),
        ("velocities", "f4", ("frame", "atom", "spatial"), "angstrom/picosecond", 20.455, [[SPEED, 0, 0], [-SPEED, 0, 0]]),
        ("cell_lengths", "f8", ("frame", "cell_spatial"), "angstrom", None, [10, 10, 10]),
        ("cell_angles", "f8", ("frame", "cell_angular"), "degree", None, [90, 90, 90]),
    ):
        variable = file.createVariable(name, kind, dimensions)
        variable.units = unit
        if factor:
            variable.scale_factor = factor
        variable[0] = value

universe = MDAnalysis.Universe.empty(2, trajectory=False)
universe.load_new("amber.nc", format="NCDF")
by_mdanalysis = universe.trajectory.ts.velocities[0, 0]
by_ase = NetCDFTrajectory("amber.nc")[0].get_velocities()[0, 0] * 1000 * units.fs  # ASE's unit to Å/ps
print(f"velocity in Å/ps: {SPEED} in the file, {by_mdanalysis:.4f} by MDAnalysis, {by_ase:.1f} by ASE")
print(f"too large by {by_ase / SPEED:.2f}; a picosecond is {1000 * units.fs:.2f} of ASE's units of time")
sys.exit(not (abs(by_mdanalysis - SPEED) < 1e-4 and abs(by_ase / SPEED - 1000 * units.fs) < 1e-3))
PYTHON
