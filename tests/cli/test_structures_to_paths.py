"""`relax` of cells and many structures, `vibrations` and `neb`, as commands."""

import csv

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from ase.units import GPa
from ase.vibrations.data import VibrationsData

from schnet_ase import SchNetEnsembleCalculator


def test_a_cell_is_relaxed(here, run, mistake):
    assert "add --cell" in mistake("relax", "ethanol-emt", "--pressure", 1)
    assert "expected some of xx,yy" in mistake("relax", "ethanol-emt", "--cell", "--mask", "xx,ab")
    assert "leave out --cell" in mistake("relax", "ethanol-emt", "--cell")
    box = molecule("CH3CH2OH", cell=[9, 9, 9], pbc=True)
    write("box.xyz", box, format="extxyz")
    box.calc = SchNetEnsembleCalculator("ethanol-emt", dtype="float64")
    pressure = -box.get_stress()[0] / GPa  # at which the cell is relaxed in x from the start
    arguments = ("--cell", "--pressure", pressure, "--mask", "xx", "--fmax", 1e6)
    status, out, _ = run("relax", "ethanol-emt", "box.xyz", *arguments)
    assert status == 0
    assert f"cell at {pressure:g} GPa" in out
    with open("ethanol-emt-relax.csv") as file:
        header, *rows = file.read().splitlines()
    assert header.endswith("volume_A3,max_stress_GPa")
    assert float(rows[-1].split(",")[-1]) <= 0.01


def test_many_structures_are_relaxed(here, run, mistake):
    frames = []
    for seed in range(3):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    write("many.extxyz", [*frames, molecule("CH3SH")])
    arguments = ("relax", "ethanol-emt", "many.extxyz", "--fmax", 0.05, "--workers", 1)
    status, out, _ = run(*arguments)
    assert status == 0
    assert "structure 3 CH4S refused: the model was not trained on S" in out
    assert "3 of 4 structures relaxed" in out
    assert len(read("ethanol-emt-relax.xyz", ":")) == 3
    assert "--overwrite" in mistake(*arguments)
    write("none.extxyz", [molecule("CH3SH"), molecule("SO2")])
    status, _, said = run("relax", "ethanol-emt", "none.extxyz", "--output", "none", "--workers", 1)
    assert status == 2
    assert "none of the 2 structures is relaxed; none.csv says why" in said


def test_vibrations(here, run, mistake):
    status, out, _ = run("vibrations", "ethanol-emt", "--temperature", 350)
    assert status == 0
    assert "zero-point energy" in out
    assert "ideal gas at 350 K" in out
    with open("ethanol-emt-vibrations.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    own = [(-1 if int(row["imaginary"]) else 1) * float(row["wavenumber_per_cm"]) for row in rows]
    theirs = VibrationsData.read("ethanol-emt-vibrations.json").get_frequencies()
    theirs = np.sort(theirs.real - theirs.imag)
    assert len(theirs) == 27
    assert np.sort(np.concatenate([own, np.zeros(6)])) == pytest.approx(theirs, abs=1e-2)
    rattled = molecule("CH3CH2OH")
    rattled.rattle(0.1, seed=0)
    write("rattled.xyz", rattled)
    _, _, said = run("vibrations", "ethanol-emt", "rattled.xyz", "--no-relax", "--output", "as-it-is")
    assert "these are no vibrations about a minimum" in said
    both = ("rattled.xyz", "--smiles", "CCO", "--output", "both")
    assert "STRUCTURE and --smiles" in mistake("vibrations", "ethanol-emt", *both)


def test_neb(here, run, mistake):
    atoms = molecule("CH3CH2OH")
    write("a.xyz", atoms)
    other = atoms[[1, 2, 0, *range(3, 9)]]
    write("b.xyz", other)
    line = mistake("neb", "ethanol-emt", "a.xyz", "b.xyz")
    first = next(i for i in range(9) if atoms.numbers[i] != other.numbers[i])
    assert f"atom {first} is {atoms.symbols[first]} in the first end and {other.symbols[first]} in the other" in line
    moved = atoms.copy()
    moved.positions[8] += (0.0, 0.2, 0.2)
    write("c.xyz", moved)
    status, out, _ = run("neb", "ethanol-emt", "a.xyz", "c.xyz", "--no-relax", "--images", 5, "--fmax", 5)
    assert status == 0
    assert len(read("ethanol-emt-neb.xyz", ":")) == 5
    assert "spread (meV)" in out
    with open("ethanol-emt-neb.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image"]) for row in rows] == [0, 1, 2, 3, 4]
    assert float(rows[0]["energy_eV"]) == 0.0
    assert all(float(row["max_forces_deviation_eV_per_A"]) > 0.0 for row in rows)
