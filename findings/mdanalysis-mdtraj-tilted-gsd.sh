#!/usr/bin/env bash
# Versions: gsd 5.0.1, MDAnalysis 2.11.0, mdtraj 1.11.1.post2.
# Guess: the tilted box of a GSD file is read as HOOMD-blue defines it: the second vector is (xy Ly, Ly, 0), so that xy = 0.5
#   is an angle of 63.4 degrees, and it is longer than Ly.
# Seen: MDAnalysis takes the edges for the lengths of the vectors and the tilt factors for cosines, in the order in which they
#   stand: xy gives alpha instead of gamma, as an angle of 60 degrees. mdtraj takes the columns of the matrix of the vectors for
#   the vectors. Neither says a word; the volumes and the periodic distances are wrong. Boxes without a tilt are right.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check gsd==5.0.1 mdanalysis==2.11.0 mdtraj==1.11.1.post2

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import gsd.hoomd
import MDAnalysis
import mdtraj
import numpy as np

L, XY, XZ, YZ = 10.0, 0.5, 0.2, -0.3
vectors = L * np.array([[1, 0, 0], [XY, 1, 0], [XZ, YZ, 1]])  # rows


def lengths_and_angles(rows):
    """Lengths of the vectors and the angles between them in degrees."""
    lengths = np.linalg.norm(rows, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))
    angles = [np.degrees(np.arccos(rows[i] @ rows[j] / lengths[i] / lengths[j])) for i, j in pairs]
    return np.array([*lengths, *angles])


frame = gsd.hoomd.Frame()
frame.particles.N, frame.particles.position = 1, [[0, 0, 0]]
frame.particles.types, frame.particles.typeid = ["A"], [0]
frame.configuration.box = [L, L, L, XY, XZ, YZ]
with gsd.hoomd.open("box.gsd", "w") as file:
    file.append(frame)

expected = lengths_and_angles(vectors)
mdanalysis = np.array(MDAnalysis.Universe("box.gsd").dimensions)
read = mdtraj.load("box.gsd")
traj = np.array([*read.unitcell_lengths[0], *read.unitcell_angles[0]])
for name, box in (("the box itself", expected), ("MDAnalysis", mdanalysis), ("mdtraj", traj)):
    print(f"{name}: lengths {box[:3].round(3)}, alpha, beta, gamma {box[3:].round(2)}")
cosines = np.degrees(np.arccos([XY, XZ, YZ]))
as_seen = np.allclose(mdanalysis, [L, L, L, *cosines], atol=1e-3) and np.allclose(traj, lengths_and_angles(vectors.T), atol=1e-3)
sys.exit(not as_seen)
PYTHON
