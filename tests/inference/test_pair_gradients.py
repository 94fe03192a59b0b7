"""Derivatives of the energy with respect to pair vectors: forces and virial are sums of them, in both engines."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from schnet_ase import SchNet
from schnet_ase.geometry.graph import make_graph
from schnet_ase.geometry.neighbors import HalfNeighbors, half_neighbor_list, pair_vectors
from schnet_ase.geometry.system import Geometry, geometry
from schnet_ase.inference.autograd import Autograd
from schnet_ase.inference.backend import Backend
from schnet_ase.inference.compiled import CompiledSchNet
from schnet_ase.inference.networks import FixedNetworks

SKIN = 1.0
DTYPES = {"float32": torch.float32, "float64": torch.float64}
BOUNDS = {"float32": 1e-5, "float64": 1e-8}  # between the engines, whose filters differ by the tables' error


def systems() -> dict[str, Atoms]:
    rng = np.random.default_rng(0)
    cell = np.array([[2.8, 0.0, 0.0], [0.5, 2.9, 0.0], [0.3, -0.4, 3.0]])
    # Neighbours lie at the cutoff of 4 Å itself, some of them within it by rounding.
    lattice = bulk("C", "sc", a=2.0) * (2, 2, 2)
    lattice.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    large = bulk("C", cubic=True) * (3, 2, 2)
    large.rattle(0.1, seed=0)
    return {
        "molecule": molecule("CH3CH2OH"),
        "triclinic cell smaller than the cutoff": Atoms("OC", rng.uniform(0, 1, (2, 3)) @ cell, cell=cell, pbc=True),
        "neighbours at the cutoff": lattice,
        "more atoms than a tile": Atoms(large.numbers, large.positions),
        "no pair within the cutoff": Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.0, 4.5]]),
        "one atom": Atoms("O"),
    }


def backends(models: list[SchNet], dtype: str) -> dict[str, Backend]:
    networks = FixedNetworks(models)
    return {
        "autograd": Autograd(networks, torch.device("cpu"), DTYPES[dtype], 1),
        "compiled": CompiledSchNet(networks, dtype, 1),
        "compiled, threads": CompiledSchNet(networks, dtype, 2),
    }


def with_skin(model: SchNet, atoms: Atoms) -> tuple[Geometry, HalfNeighbors]:
    system = geometry(atoms)
    cutoff = model.config.pair_cutoff
    assert cutoff is not None
    return system, half_neighbor_list(system.positions, system.cell, system.pbc, cutoff + SKIN)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forces_and_virial_are_sums_of_them(make_model, dtype):
    models = [make_model(seed) for seed in range(2)]
    engines = backends(models, dtype)
    for name, atoms in systems().items():
        system, pairs = with_skin(models[0], atoms)
        vectors = pair_vectors(system, pairs)
        found = {}
        for engine, backend in engines.items():
            plain = backend(system, pairs)
            assert plain.pair_gradients is None
            asked = backend(system, pairs, pair_gradients=True)
            for before, after in zip(plain[:3], asked[:3], strict=True):
                np.testing.assert_array_equal(before, after)
            gradients = asked.pair_gradients
            assert gradients is not None
            assert gradients.shape == (2, len(pairs.first), 3)
            forces = np.zeros((2, len(atoms), 3))
            np.add.at(forces, (slice(None), pairs.first), gradients)
            np.subtract.at(forces, (slice(None), pairs.second), gradients)
            np.testing.assert_allclose(forces, asked.forces, rtol=0.0, atol=1e-10, err_msg=f"{name}, {engine}")
            virial = np.einsum("pa,mpb->mab", vectors, gradients)
            np.testing.assert_allclose(virial, asked.virial, rtol=0.0, atol=1e-9, err_msg=f"{name}, {engine}")
            found[engine] = gradients
        for engine in ("compiled", "compiled, threads"):
            message = f"{name}, {engine}"
            np.testing.assert_allclose(found[engine], found["autograd"], rtol=0.0, atol=BOUNDS[dtype], err_msg=message)
        beyond = np.linalg.norm(vectors, axis=1) > models[0].config.cutoff
        assert all((gradients[:, beyond] == 0.0).all() for gradients in found.values())
        if name == "molecule":
            assert np.abs(found["autograd"]).max() > 0.1, "nothing was compared"


def test_they_are_the_derivatives_by_displaced_pair_vectors(make_model):
    model = make_model().double()
    model.reference.zero_()  # its hundreds of eV would be nothing but rounding in the finite differences
    atoms = systems()["triclinic cell smaller than the cutoff"]
    system, pairs = with_skin(model, atoms)
    graph = make_graph(system, pairs)
    vectors = torch.from_numpy(pair_vectors(system, pairs))
    found = Autograd(FixedNetworks([model]), torch.device("cpu"), torch.float64, 1)(
        system, pairs, pair_gradients=True
    ).pair_gradients
    assert found is not None
    h = 1e-4  # Å
    expected = np.zeros(vectors.shape)
    with torch.no_grad():
        for p, a in np.ndindex(*vectors.shape):
            energies = []
            for step in (h, -h):
                displaced = vectors.clone()
                displaced[p, a] += step
                energies.append(model(graph.numbers, displaced, graph.pairs).sum().item())
            expected[p, a] = (energies[0] - energies[1]) / (2 * h)
    np.testing.assert_allclose(found[0], expected, rtol=0.0, atol=1e-6)
    assert np.abs(expected).max() > 0.1


def test_of_a_moved_system_they_are_the_new_ones(make_model):
    """The list with its skin is kept; which of its pairs are within the cutoff changes."""
    models = [make_model()]
    atoms = systems()["more atoms than a tile"]
    system, pairs = with_skin(models[0], atoms)
    engines = backends(models, "float64")
    for backend in engines.values():
        backend(system, pairs, pair_gradients=True)
    atoms.rattle(0.2, seed=1)
    moved = geometry(atoms)
    found = [backend(moved, pairs, pair_gradients=True).pair_gradients for backend in engines.values()]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0.0, atol=BOUNDS["float64"])


def test_repulsion_in_the_kernel_is_part_of_them(make_model):
    atoms = molecule("CH3CH2OH")
    atoms.positions *= 0.6
    found = {}
    for prior in (None, "zbl"):
        models = [make_model(seed, prior=prior) for seed in range(2)]
        system, pairs = with_skin(models[0], atoms)
        asked = CompiledSchNet(FixedNetworks(models), "float64", 1)(system, pairs, pair_gradients=True)
        assert asked.pair_gradients is not None
        forces = np.zeros((2, len(atoms), 3))
        np.add.at(forces, (slice(None), pairs.first), asked.pair_gradients)
        np.subtract.at(forces, (slice(None), pairs.second), asked.pair_gradients)
        np.testing.assert_allclose(forces, asked.forces, rtol=1e-12, atol=1e-10)
        virial = np.einsum("pa,mpb->mab", pair_vectors(system, pairs), asked.pair_gradients)
        np.testing.assert_allclose(virial, asked.virial, rtol=1e-12, atol=1e-9)
        found[prior] = asked.pair_gradients
    assert np.abs(found["zbl"] - found[None]).max() > 1.0, "no atoms were near enough"
