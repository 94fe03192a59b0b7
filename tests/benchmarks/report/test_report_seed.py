"""Every figure of the seed report beside ours."""

import pytest
import torch
from report import seed
from report._dtnn import DTNN


def test_dtnn_is_the_network_whose_parameters_are_counted():
    """The energy does not depend on the order of the atoms, and an atom does not interact with itself."""
    torch.manual_seed(0)
    network, numbers = DTNN().double(), torch.tensor([1, 6, 8])
    radial = torch.rand(3, 3, 100, dtype=torch.float64)
    radial = radial + radial.transpose(0, 1)
    energies = network(numbers, radial)
    order = [2, 0, 1]
    torch.testing.assert_close(network(numbers[order], radial[order][:, order]), energies[order])
    changed = radial.clone()
    changed[range(3), range(3)] = 5.0
    torch.testing.assert_close(network(numbers, changed), energies)
    # Embedding, two maps to the factors, one back, two layers of output.
    assert 20 * 30 + (30 * 60 + 60) + (100 * 60 + 60) + 60 * 30 + (30 * 15 + 15) + (15 + 1) == 10_801
    assert sum(p.numel() for p in network.parameters()) == 10_801


def test_differences_are_those_of_the_reports_table_6():
    """As it prints them, to its digits."""
    printed = {
        ("qm9", "energy"): -2.63,
        ("aspirin", "energy"): 3.45e3,
        ("iso17", "energy"): 1.48e2,
        ("iso17", "force"): -0.57,
    }
    found = {(f.of, f.what.split()[0]): f.report for f in seed.figures() if f.table == "6" and "both" not in f.what}
    for key, value in printed.items():
        assert found[key] == pytest.approx(value, rel=5e-3)


def test_every_table_is_there_and_counts_agree():
    found = seed.figures()
    assert {f.table for f in found} == {"1", "2", "3", "4", "5", "6", "7", "section 4.1"}
    counts = [f for f in found if f.what == "parameters"]
    assert len(counts) == 4
    assert all(f.ours == f.report for f in counts)
    assert all(f.ours is not None for f in found if f.table in "345")
    page = seed.page(found)
    assert all(" | ".join(f.row()[1:]) in page for f in found)
