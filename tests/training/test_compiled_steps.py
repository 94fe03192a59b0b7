"""Compiled training steps: one serves batches of any size, and a line says when there is another to compile."""

from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from schnet_ase.data import Frame
from schnet_ase.data.batches import collate, make_example
from schnet_ase.geometry.system import geometry
from schnet_ase.training.step.compiled import can_compile, compiled_step, without_small_batches
from schnet_ase.training.step.loss import LossTerms, eager_step

TERMS = LossTerms(0.01, 1.0)
COMPILE = torch.compile


def batch_of(*atoms):
    rng = np.random.default_rng(0)
    return collate(
        [make_example(Frame(geometry(a), float(rng.normal()), rng.normal(size=(len(a), 3))), 4.0) for a in atoms]
    )


def molecules(*names):
    return batch_of(*(molecule(name) for name in names))


def chain(n):
    """A row of atoms that are 1.3 Å apart: three pairs an atom within 4 Å, but for the ends."""
    return Atoms(f"C{n}", positions=[(1.3 * k, 0.0, 0.0) for k in range(n)])


def check(step, model, batch, terms):
    expected = eager_step(model, terms)(batch).item()
    gradients = [p.grad.clone() for p in model.parameters()]
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert step(batch).item() == pytest.approx(expected, rel=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).abs().max().item() <= 1e-4 * gradient.abs().max().item() + 1e-7


def compilations(caplog):
    return [record.getMessage() for record in caplog.records if "compiling the training step" in record.getMessage()]


@pytest.fixture
def traced(monkeypatch, caplog):
    """Everything of a compilation but the code that it makes."""
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend="eager"))
    caplog.set_level("INFO", "schnet_ase")
    yield caplog
    torch._dynamo.reset()


def test_one_step_serves_all_sizes_and_periodic_batches_have_their_own_and_a_line_says_so(traced, make_model):
    """Water has as many pairs as atoms, three of it as many as the network has features; others have not."""
    model = make_model(n_features=9, n_interactions=1)
    step = compiled_step(model, TERMS, one_shape=False)
    for names in (["H2O"] * 3, ["CH4", "H2O"], ["CH3CH2OH", "NH3", "CH4", "H2O"]):
        check(step, model, molecules(*names), TERMS)
    assert len(compilations(traced)) == 1
    check(step, model, batch_of(bulk("Cu", cubic=True), molecule("CH4")), TERMS)
    first, second = compilations(traced)
    assert "across cell faces" not in first
    assert "across cell faces" in second


def test_batches_of_one_atom_or_pair_are_not_compiled_for(make_model):
    model, asked = make_model(), []

    def counted(batch):
        asked.append(len(batch.graph.numbers))
        return eager_step(model, TERMS)(batch)

    step = without_small_batches(counted, eager_step(model, TERMS))
    for batch in (
        batch_of(Atoms("H")),  # one atom
        batch_of(Atoms("H"), Atoms("O")),  # no pair
        batch_of(Atoms("H"), molecule("H2")),  # one pair
    ):
        expected = eager_step(model, TERMS)(batch).item()
        assert step(batch).item() == expected
    assert asked == []
    step(molecules("H2", "H2"))
    assert asked == [4]


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
def test_a_batch_with_more_pairs_than_torch_sums_at_once_has_a_step_of_its_own_and_a_line_says_so(make_model, caplog):
    """As ``SUMMED_AT_ONCE`` has it: torch's own code for sums is another one from there on; none is compiled twice."""
    caplog.set_level("INFO", "schnet_ase")
    model, terms = make_model(n_features=4, n_interactions=1, n_rbf=4), LossTerms(0.01, 1.0, "absolute")
    step = compiled_step(model, terms, one_shape=False)
    for lengths, lines in (((20, 10), 1), ((30, 1366), 2), ((1400, 10), 2), ((10, 1, 1, 10), 2)):  # 3 n - 6 pairs
        check(step, model, batch_of(*(chain(n) for n in lengths)), terms)
        assert len(compilations(caplog)) == lines, lengths
    assert "batches of more than" not in compilations(caplog)[0]
    assert "batches of more than 4,096 pairs" in compilations(caplog)[1]
