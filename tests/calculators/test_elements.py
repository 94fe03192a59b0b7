"""The elements that a calculator takes, as programs ask for them."""

from collections.abc import Sequence

import pytest
from ase import Atoms

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from tests.support.factories import ModelFactory


def with_elements(make_model: ModelFactory, lists: Sequence[Sequence[int]]) -> list[SchNet]:
    models = [make_model(seed) for seed in range(len(lists))]
    for model, elements in zip(models, lists, strict=True):
        model.elements = tuple(elements)
    return models


def test_exactly_these_elements_are_taken(make_model: ModelFactory) -> None:
    (model,) = with_elements(make_model, [(1, 8)])
    calc = SchNetCalculator(model)
    assert calc.elements == (1, 8)
    assert calc.allowed_atomic_numbers == {1, 8}
    for z in range(1, 10):
        atoms = Atoms([z], calculator=calc)
        if z in calc.elements:
            atoms.get_potential_energy()
        else:
            with pytest.raises(StructureError, match="was not trained on"):
                atoms.get_potential_energy()


def test_an_ensemble_takes_what_every_member_takes(make_model: ModelFactory) -> None:
    calc = SchNetEnsembleCalculator(with_elements(make_model, [(1, 6, 8), (1, 8), (1, 7, 8)]))
    assert calc.elements == (1, 8)
    assert calc.allowed_atomic_numbers == {1, 8}


def test_a_bare_network_takes_all_below_max_z() -> None:
    model = SchNet(SchNetConfig(n_features=4, n_interactions=1, n_rbf=4, cutoff=4.0, readout_features=4, max_z=10))
    calc = SchNetCalculator(model, engine="autograd")
    assert calc.elements == tuple(range(1, 10))
    Atoms([9], calculator=calc).get_potential_energy()
    with pytest.raises(StructureError, match="max_z"):
        Atoms([10], calculator=calc).get_potential_energy()
