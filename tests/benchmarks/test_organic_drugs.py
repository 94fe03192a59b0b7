"""Relaxed structures and energies of conformers of molecules of the test set."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from benchmarks.organic import drugs

ENTRY = str(ROOT / "models" / "rmd17-ethanol")


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Two families with ethanol, benzene, which is too large, and methane, which is of a fold."""
    monkeypatch.setattr(drugs, "SMALLEST", 5)
    monkeypatch.setattr(drugs, "LARGEST", 9)
    monkeypatch.setattr(drugs, "split_of", lambda group: "fold-1" if group == "C" else "test")
    (tmp_path / "molecules").mkdir()
    for name, smiles in (("drugs", "C"), ("like-drugs", "c1ccccc1")):
        rows = ["name,smiles,by_scaffold", f"{name}-0,{smiles},1", f"{name}-1,CCO,1"]
        (tmp_path / "molecules" / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_molecules_are_of_the_test_set_and_of_the_sizes(output):
    assert [entry.name for entry, _ in drugs.molecules(output, 10)] == ["drugs-1", "like-drugs-1"]
    assert [len(atoms) for _, atoms in drugs.molecules(output, 1)] == [9]


def test_an_ensemble_finds_the_minimum_and_knows_the_energies_of_the_molecule_that_it_was_trained_on(output, capsys):
    drugs.minima(output, ENTRY, 1)
    assert "within 0.1 Å of GFN2-xTB's nearest minimum: 1, of which flagged: 0" in capsys.readouterr().out
    drugs.conformers(output, ENTRY, 1)
    error = float(re.search(r"(\S+) meV", capsys.readouterr().out).group(1))
    assert error < 50.0  # another level of theory
