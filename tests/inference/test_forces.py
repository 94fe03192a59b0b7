"""Derivatives of the energy: exact to second and third order, trainable, and each system's its own."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms

from schnet_ase import SchNet
from schnet_ase.geometry.graph import Graph, batch_graphs, build_graph
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import Prediction, predict
from tests.support.factories import ModelFactory


def graph_of(model: SchNet, atoms: Atoms) -> Graph:
    return build_graph(geometry(atoms), model.config.pair_cutoff)


@pytest.fixture
def water() -> Atoms:
    return Atoms("OH2", [[0.0, 0.1, 0.0], [0.1, 0.8, 0.6], [-0.1, -0.7, 0.65]])


@pytest.fixture
def pair_crystal() -> Atoms:
    """Two atoms in a triclinic cell smaller than the cutoff."""
    cell = [[2.8, 0, 0], [0.5, 2.9, 0], [0.3, -0.4, 3.0]]
    return Atoms("OC", [[0, 0, 0], [1.1, 1.3, 1.4]], cell=cell, pbc=True)


# --- derivatives with respect to positions ------------------------------------------------------------------------


FIELDS: list[dict[str, object]] = [{}, {"norm": "rms"}, {"norm": "layer"}, {"activation": "silu"}, {"dropout": 0.5}]

Derivable = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


def energy_and_forces(model: SchNet, graph: Graph) -> Derivable:
    def function(positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        prediction = predict(model, graph._replace(positions=positions), create_graph=True)
        assert prediction.forces is not None
        return prediction.energy, prediction.forces

    return function


@pytest.mark.parametrize("system", ["water", "pair_crystal"])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_gradcheck_and_gradgradcheck(
    make_model: ModelFactory, request: pytest.FixtureRequest, system: str, fields: dict[str, object]
) -> None:
    model = make_model(n_features=4, n_rbf=6, readout_features=4, **fields).double()
    model.reference.zero_()  # its hundreds of eV would be nothing but rounding in the finite differences
    graph = graph_of(model, request.getfixturevalue(system))
    positions = graph.positions.clone().requires_grad_()
    function = energy_and_forces(model, graph)
    assert torch.autograd.gradcheck(function, positions)
    if fields == {"norm": "layer"}:
        # PyTorch's own third derivative of layer_norm is wrong (its issue 175754); training takes two.
        assert torch.autograd.gradgradcheck(lambda p: function(p)[0], positions)
    else:
        assert torch.autograd.gradgradcheck(function, positions)


def test_forces_are_minus_the_gradient(make_model: ModelFactory, crystal: Atoms) -> None:
    model = make_model().double()
    graph = graph_of(model, crystal)
    graph = graph._replace(positions=graph.positions.clone().requires_grad_())
    prediction = predict(model, graph, create_graph=True)
    (gradient,) = torch.autograd.grad(prediction.energy.sum(), graph.positions)
    torch.testing.assert_close(prediction.forces, -gradient, rtol=0.0, atol=1e-12)


def test_virial_is_the_strain_derivative(make_model: ModelFactory, crystal: Atoms) -> None:
    model = make_model().double()
    graph = graph_of(model, crystal)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    strained = graph._replace(positions=graph.positions @ deformation, cell=graph.cell @ deformation)
    prediction = predict(model, strained, create_graph=True)
    (gradient,) = torch.autograd.grad(prediction.energy.sum(), strain)
    assert prediction.virial is not None
    torch.testing.assert_close(prediction.virial[0], gradient, rtol=0.0, atol=1e-12)


def test_without_gradients_the_energy_is_the_same(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model().double()
    graph = graph_of(model, ethanol)
    plain = predict(model, graph, gradients=False)
    assert plain.forces is None
    assert plain.virial is None
    torch.testing.assert_close(plain.energies, predict(model, graph).energies, rtol=0.0, atol=0.0)


def test_forces_are_computed_under_no_grad_too(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model().double()
    graph = graph_of(model, ethanol)
    with torch.no_grad():
        forces = predict(model, graph).forces
    assert forces is not None
    torch.testing.assert_close(forces, predict(model, graph).forces, rtol=0.0, atol=0.0)


# --- training on forces -------------------------------------------------------------------------------------------


def force_loss(prediction: Prediction) -> torch.Tensor:
    assert prediction.forces is not None
    return ((prediction.forces - 0.1) ** 2).mean()


def test_a_force_loss_reaches_every_weight(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model()
    force_loss(predict(model, graph_of(model, ethanol), create_graph=True)).backward()
    for name, parameter in model.named_parameters():
        if name == "readout2.bias":
            continue  # shifts the energy: no force depends on it
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0.0, name


def test_constant_forces_cannot_train_silently(make_model: ModelFactory, ethanol: Atoms) -> None:
    # Forces that do not record their graph add a constant to the loss: the energies would train, the forces not.
    model = make_model()
    prediction = predict(model, graph_of(model, ethanol))
    for result in prediction:
        assert result is not None
        assert not result.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        (prediction.energy.sum() + force_loss(prediction)).backward()


def test_weight_gradient_of_a_force_loss_is_the_finite_difference(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model().double()
    graph = graph_of(model, ethanol)
    force_loss(predict(model, graph, create_graph=True)).backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name == "readout2.bias":
            continue
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        assert parameter.grad is not None
        slope = (parameter.grad * direction).sum().item()
        step = 1e-4
        losses = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter += sign * step * direction
            losses.append(force_loss(predict(model, graph)).item())
            with torch.no_grad():
                parameter -= sign * step * direction
        assert (losses[0] - losses[1]) / (2.0 * step) == pytest.approx(slope, rel=1e-5, abs=1e-9), name


# --- several systems in one graph ---------------------------------------------------------------------------------


def test_batch_gives_what_each_system_gives_alone(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms) -> None:
    model = make_model().double()
    graphs = [graph_of(model, atoms) for atoms in (ethanol, crystal, Atoms("N"), ethanol[:4])]
    together = predict(model, batch_graphs(graphs))
    alone = [predict(model, graph) for graph in graphs]
    for result, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert result is not None
        torch.testing.assert_close(result, torch.cat(parts), rtol=0.0, atol=1e-8)


def test_batch_of_batches_is_the_batch(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms) -> None:
    model = make_model().double()
    a, b, c = (graph_of(model, atoms) for atoms in (ethanol, crystal, Atoms("N")))
    nested = predict(model, batch_graphs([a, batch_graphs([b, c])]))
    torch.testing.assert_close(nested.forces, predict(model, batch_graphs([a, b, c])).forces, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(nested.virial, predict(model, batch_graphs([a, b, c])).virial, rtol=0.0, atol=1e-12)


def test_no_gradient_crosses_systems(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms) -> None:
    model = make_model().double()
    graph = batch_graphs([graph_of(model, atoms) for atoms in (ethanol, crystal, ethanol)])
    graph = graph._replace(positions=graph.positions.clone().requires_grad_())
    prediction = predict(model, graph, create_graph=True)
    for b in range(graph.n_systems):
        (gradient,) = torch.autograd.grad(prediction.energy[b], graph.positions, retain_graph=True)
        own = graph.system == b
        assert (gradient[~own] == 0.0).all()
        assert gradient[own].abs().max() > 1e-3


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 3, 2)])
def test_a_supercell_has_the_energy_of_its_cells(
    make_model: ModelFactory, crystal: Atoms, repeat: tuple[int, int, int]
) -> None:
    model = make_model().double()
    cell, supercell = predict(model, graph_of(model, crystal)), predict(model, graph_of(model, crystal * repeat))
    copies = int(np.prod(repeat))
    assert cell.forces is not None
    assert cell.virial is not None
    torch.testing.assert_close(supercell.energy, copies * cell.energy, rtol=1e-13, atol=1e-9)
    torch.testing.assert_close(supercell.forces, cell.forces.repeat(copies, 1), rtol=0.0, atol=1e-10)
    torch.testing.assert_close(supercell.virial, copies * cell.virial, rtol=0.0, atol=1e-10)
