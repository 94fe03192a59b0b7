"""Total energies against those less reference energies, benchmarks/report/references.py."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import kcal, mol
from click.testing import CliRunner
from report import references
from report._fit import BOTH, read_case, train_schnet, training_for
from report.references import HEADER, NETWORK

from schnet_ase import load_model
from schnet_ase.output.progress import Progress
from tests.support.frames import labelled_ethanol


def run(frames, folder):
    write(folder / "data.extxyz", frames, format="extxyz")
    arguments = [str(folder / "data.extxyz"), "--held-out", "4", "--steps", "3"]
    arguments += ["--runs", str(folder / "runs"), "--output", str(folder)]
    pages = []
    for _ in range(2):
        result = CliRunner().invoke(references.main, arguments)
        assert result.exit_code == 0, result.output
        pages.append((folder / "references.md").read_text())
    assert pages[0] == pages[1]
    with (folder / "references.csv").open() as table:
        header, row = csv.reader(table)
    assert header == list(HEADER)
    assert " | ".join(row) in pages[0]
    assert (folder / "references.png").read_bytes().startswith(b"\x89PNG")
    return [cell if cell in ("–", "data") else float(cell) for cell in row]


def test_one_molecule(tmp_path):
    """References change how the energies are learned, and not how much they vary."""
    frames = labelled_ethanol(14)
    for atoms in frames:
        atoms.calc.results["energy"] -= 4000.0
    energies = np.array([atoms.get_potential_energy() for atoms in frames]) / (kcal / mol)
    row = run(frames, tmp_path)
    assert row[1] == pytest.approx(energies.mean(), abs=0.051)
    assert row[2] == pytest.approx(energies.std(), abs=0.0051)
    assert row[3] == pytest.approx(energies.std() / -energies.mean(), rel=6e-3)
    assert row[4] == row[2]
    assert row[5] > 1000.0 * row[6]
    folder = tmp_path / "runs" / "data"
    total, less = (load_model(folder / name / "best.safetensors") for name in ("total-both", "both"))
    assert total.scale.item() == kcal / mol
    assert not total.reference.any()
    assert less.reference[1].item() == pytest.approx(energies.mean() * kcal / mol / 9, rel=1e-3)


def test_both_ways_start_from_the_same_weights(tmp_path):
    """A step of a rate of 1e-30 leaves what they started from."""
    write(tmp_path / "data.extxyz", labelled_ethanol(14), format="extxyz")
    case = read_case("data", tmp_path / "data.extxyz", 4, 10)
    training, progress = replace(training_for(1, BOTH), learning_rate=1e-30), Progress(2, "steps")
    total, less = (
        train_schnet(case, NETWORK, training, tmp_path / str(way), progress, total_energies=way).model
        for way in (True, False)
    )
    assert not total.reference.any()
    assert less.reference.any()
    for a, b in zip(total.parameters(), less.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-20)


def test_energies_of_several_molecules(tmp_path):
    """Sums over atoms but for some noise: little is left less the references. No forces: none are learned."""
    of_element, rng = {"H": -16.0, "C": -1030.0, "O": -2040.0}, np.random.default_rng(0)
    frames = []
    for name in ("H2O", "CH4", "CH3OH", "CO", "CH3CH2OH") * 4:
        atoms = molecule(name)
        energy = sum(of_element[symbol] for symbol in atoms.symbols) + 0.01 * rng.normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    row = run(frames, tmp_path)
    assert row[4] < 1e-3 * row[2]
    assert row[7:] == ["–", "–"]
