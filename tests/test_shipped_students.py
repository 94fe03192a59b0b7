"""The shipped students: their files, and that they are as good as their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest

from schnet_ase import SchNetCalculator, load_model
from schnet_ase.data import read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.output.files import sha256
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.lookup import get_card
from tests.support.paths import DATA, ROOT

STUDENTS = sorted(file.parent.name for file in (ROOT / "models").glob("*/student.safetensors"))
AIM = 1.05
"""Largest force MAE on test frames, in that of the mean of the members."""


@pytest.fixture(params=STUDENTS)
def card(request):
    return get_card(request.param)


def test_the_file_is_that_of_the_card(card):
    assert sha256(card.path / card.student.file) == card.student.sha256
    provenance = read_provenance(card.path / card.student.file)
    assert card.data.sha256 in provenance["initial_data"], "its teachers' data are behind it"
    assert provenance["teacher"] == [member.sha256 for member in card.members]


def test_it_is_nearly_as_good_as_the_mean(card):
    assert card.student.test.n_frames == card.metrics.test.n_frames
    assert card.student.ratio(card.metrics.test) <= AIM


def test_errors_are_those_of_the_card(card):
    (file,) = [*DATA.glob(f"**/{card.data.test_file}")][:1] or [Path()]
    if not file.is_file():
        pytest.skip(f"{card.data.test_file} is not here")
    errors = evaluate_dataset([load_model(f"{card.name}/student")], read_dataset(file)).member(0).errors()
    assert errors.force_mae == pytest.approx(card.student.test.force_mae, rel=1e-3)
    assert errors.energy_mae == pytest.approx(card.student.test.energy_mae, rel=1e-2)


@pytest.mark.parametrize("document", ["students.md", "entries.md"])
def test_documents_quote_the_card(document):
    card = get_card("rmd17-ethanol")
    test = card.student.test
    (row,) = re.findall(r"^\| student[^|]*\| (\d.*)$", (ROOT / "docs" / document).read_text(), re.M)[:1]
    assert row.rstrip(" |").split(" | ")[:2] == [f"{1000 * test.energy_mae:.2f}", f"{1000 * test.force_mae:.2f}"]


def test_the_page_quotes_the_ratio():
    card = get_card("rmd17-ethanol")
    page = (ROOT / "docs" / "students.md").read_text()
    assert f"force MAE is {card.student.ratio(card.metrics.test):.3f} times that of the mean" in page
    assert card.student.command in page


def test_it_moves_the_molecule_that_it_knows(card):
    atoms = card.structure.atoms()
    atoms.calc = SchNetCalculator(card.name)
    assert atoms.calc.engine.name == "compiled"
    assert np.abs(atoms.get_forces()).max() < 0.1, "the minimum of the mean is nearly its own"
