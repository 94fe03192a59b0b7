"""Learning from the labels of the original MD17, benchmarks/report/original.py."""

import csv

import numpy as np
import pytest
from ase.units import kcal, mol
from click.testing import CliRunner
from report import original

from schnet_ase import load_model
from schnet_ase.data import read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.registry.checkpoint import read_provenance
from tests.support.frames import labelled_ethanol


def save(file, n_frames, seed):
    """A file of rMD17 whose own labels are of no use."""
    frames = labelled_ethanol(n_frames, seed)
    np.savez(
        file,
        nuclear_charges=frames[0].numbers,
        coords=[a.positions for a in frames],
        energies=np.full(n_frames, np.nan),
        forces=np.full((n_frames, 9, 3), np.nan),
        old_energies=[a.get_potential_energy() / (kcal / mol) for a in frames],
        old_forces=[a.get_forces() / (kcal / mol) for a in frames],
    )
    return file


def test_original(tmp_path):
    save(tmp_path / "rmd17_ethanol_train_01.npz", 70, 0)
    test = save(tmp_path / "rmd17_ethanol_test_01.npz", 5, 1)
    arguments = ["ethanol", "--data-root", str(tmp_path), "--steps", "2"]
    arguments += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    result = CliRunner().invoke(original.main, arguments)
    assert result.exit_code == 0, result.output
    with (tmp_path / "original.csv").open() as table:
        header, row = csv.reader(table)
    assert " | ".join(row) in result.output
    of = dict(zip(header, row, strict=True))
    best = tmp_path / "runs" / "original-ethanol" / "best.safetensors"
    labelled = read_dataset(test, energy_key="old_energies", forces_key="old_forces")
    errors = evaluate_dataset([load_model(best)], labelled).member(0).errors()
    assert float(of["force MAE"]) == pytest.approx(errors.force_mae / (kcal / mol), rel=1e-3)
    assert float(of["energy MAE"]) == pytest.approx(errors.energy_mae / (kcal / mol), rel=1e-3)
    assert float(of["force MAE / the last"]) == pytest.approx(float(of["force MAE"]) / 0.86, rel=1e-2)
    assert read_provenance(best)["energy_key"] == "old_energies"
    assert (tmp_path / "original.png").read_bytes().startswith(b"\x89PNG")
