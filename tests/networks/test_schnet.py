"""The network: its size, its cutoff, its options, and an independent implementation of the paper's equations."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.geometry.graph import build_graph
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.networks.activation import ACTIVATIONS
from schnet_ase.networks.radial import ENVELOPES
from tests.support.factories import ModelFactory


def energies_of(model: SchNet, atoms: Atoms) -> np.ndarray:
    graph = build_graph(geometry(atoms), model.config.pair_cutoff)
    return predict(model, graph, gradients=False).energies.detach().numpy()


def energy_of(model: SchNet, atoms: Atoms) -> float:
    return float(energies_of(model, atoms).sum())


# --- an independent implementation -------------------------------------------------------------------------------


def naive_ssp(x: np.ndarray) -> np.ndarray:
    return np.log(0.5 * np.exp(x) + 0.5)


def naive_envelope(config: SchNetConfig, r: float) -> float:
    if config.envelope == "none":
        return 1.0
    if r >= config.cutoff:
        return 0.0
    x = r / config.cutoff
    return (
        0.5 * (np.cos(np.pi * x) + 1.0)
        if config.envelope == "cosine"
        else 1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8
    )


def naive_schnet(model: SchNet, atoms: Atoms) -> np.ndarray:
    """Per-atom energies by the equations of NeurIPS 30 (2017), one pair of atoms at a time, over all near images."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0.0)

    def radial_functions(r: float) -> np.ndarray:
        if config.radial == "exponential":
            centers, variable = np.linspace(np.exp(-config.cutoff), 1.0, config.n_rbf), np.exp(-r)
            gamma = (config.n_rbf / (2.0 * (1.0 - np.exp(-config.cutoff)))) ** 2
        else:
            centers, variable = np.linspace(0.0, config.cutoff, config.n_rbf), r
            gamma = config.gamma or 0.5 / (centers[1] - centers[0]) ** 2
        return np.exp(-gamma * (variable - centers) ** 2)

    reach = [range(-3, 4) if periodic else range(1) for periodic in atoms.pbc]
    positions, n = atoms.get_positions(), len(atoms)
    x = [weights["embedding.weight"][z] for z in atoms.numbers]
    for t in range(config.n_interactions):
        block = f"interactions.{t}"
        new = []
        for i in range(n):
            total = np.zeros(config.n_features)
            for j, image in itertools.product(range(n), itertools.product(*reach)):
                if i == j and image == (0, 0, 0):
                    continue
                r = float(np.linalg.norm(positions[j] + image @ atoms.cell.array - positions[i]))
                radial = radial_functions(r)
                filters = dense(
                    f"{block}.filter_network.dense2", naive_ssp(dense(f"{block}.filter_network.dense1", radial))
                )
                if config.filter_activation_last:
                    filters = naive_ssp(filters)
                total += dense(f"{block}.dense_in", x[j]) * filters * naive_envelope(config, r)
            new.append(x[i] + dense(f"{block}.dense2", naive_ssp(dense(f"{block}.dense1", total))))
        x = new
    outputs = [dense("readout2", naive_ssp(dense("readout1", x_i)))[0] for x_i in x]
    return float(weights["scale"]) * np.array(outputs) + weights["reference"][atoms.numbers]


# The centres of these bases are exact in float32, in which the network keeps them.
@pytest.mark.parametrize(
    "fields",
    [
        {"envelope": "none", "gamma": 10.0},
        {"envelope": "none", "filter_activation_last": False, "interaction_bias": False},
        {"envelope": "cosine"},
        {"envelope": "polynomial"},
    ],
)
def test_molecule_agrees_with_an_independent_implementation(
    make_model: ModelFactory, ethanol: Atoms, fields: dict[str, object]
) -> None:
    model = make_model(3, n_rbf=17, **fields).double()
    np.testing.assert_allclose(energies_of(model, ethanol), naive_schnet(model, ethanol), rtol=0.0, atol=1e-10)


def test_exponential_radial_functions_agree_with_an_independent_implementation(
    make_model: ModelFactory, ethanol: Atoms
) -> None:
    model = make_model(3, n_rbf=17, radial="exponential").double()
    # The network keeps the centres in float32, where they are not exact.
    np.testing.assert_allclose(energies_of(model, ethanol), naive_schnet(model, ethanol), rtol=0.0, atol=1e-5)
    rounded = make_model(3, n_rbf=17).double()
    assert np.abs(energies_of(rounded, ethanol) - naive_schnet(model, ethanol)).max() > 1e-2


@pytest.mark.parametrize("envelope", ["cosine", "polynomial"])
def test_crystal_agrees_with_an_independent_implementation(
    make_model: ModelFactory, crystal: Atoms, envelope: str
) -> None:
    model = make_model(4, n_rbf=17, n_features=4, n_interactions=2, envelope=envelope).double()
    np.testing.assert_allclose(energies_of(model, crystal), naive_schnet(model, crystal), rtol=0.0, atol=1e-10)


# --- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "count"),
    [(SchNetConfig.small, 13_345), (SchNetConfig.default, 116_225), (SchNetConfig.large, 874_817)],
)
def test_presets_have_the_parameters_of_the_seed_report(preset: Callable[[], SchNetConfig], count: int) -> None:
    assert sum(p.numel() for p in SchNet(preset()).parameters()) == count


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_atoms_beyond_the_cutoff_do_not_interact(make_model: ModelFactory, envelope: str) -> None:
    model = make_model(envelope=envelope).double()
    dimer = Atoms("CO", [[0, 0, 0], [0, 0, 4.0 + 1e-6]])
    graph = build_graph(geometry(dimer), model.config.pair_cutoff)
    assert len(graph.pairs.first) == 1  # listed all the same: it is the envelope that is tested
    prediction = predict(model, graph)
    assert prediction.forces is not None
    assert (prediction.forces == 0.0).all()
    assert prediction.energy.item() == energy_of(model, dimer[:1]) + energy_of(model, dimer[1:])


@pytest.mark.parametrize(("envelope", "order"), [("cosine", 1), ("polynomial", 2)])
def test_force_goes_to_zero_at_the_cutoff(make_model: ModelFactory, envelope: str, order: int) -> None:
    model = make_model(envelope=envelope).double()

    def force(r: float) -> float:
        graph = build_graph(geometry(Atoms("CO", [[0, 0, 0], [0, 0, r]])), model.config.pair_cutoff)
        forces = predict(model, graph).forces
        assert forces is not None
        return float(forces[0, 2].abs())

    assert force(3.9) > 1e-4
    # Ten times nearer to the cutoff: a force of that order less.
    assert force(4.0 - 1e-4) / force(4.0 - 1e-3) == pytest.approx(10.0**-order, rel=0.01)


def test_without_an_envelope_every_pair_counts(make_model: ModelFactory) -> None:
    model = make_model(envelope="none").double()
    dimer = Atoms("CO", [[0, 0, 0], [0, 0, 5.0]])
    assert model.config.cutoff == 4.0
    apart = energy_of(model, dimer[:1]) + energy_of(model, dimer[1:])
    assert abs(energy_of(model, dimer) - apart) > 1e-3


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_energies_of_far_fragments_add(make_model: ModelFactory, ethanol: Atoms, envelope: str) -> None:
    model = make_model(envelope=envelope).double()
    other = Atoms("OH2", [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]])
    far = other.copy()
    far.positions += (0.0, 0.0, 50.0)
    together = energy_of(model, ethanol + far)
    assert together == pytest.approx(energy_of(model, ethanol) + energy_of(model, other), abs=1e-10)


# --- options -------------------------------------------------------------------------------------------------------


def twin(model: SchNet, **fields: object) -> SchNet:
    """A model of the same weights, as far as it has them, and another config."""
    other = SchNet(SchNetConfig(**{**model.config.to_dict(), **fields})).to(model.dtype).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    return other


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "ssp"])
def test_activation_is_used(make_model: ModelFactory, ethanol: Atoms, name: str) -> None:
    model = make_model()
    assert abs(energy_of(twin(model, activation=name), ethanol) - energy_of(model, ethanol)) > 1e-3


def interaction_residual(model: SchNet, x: torch.Tensor) -> torch.Tensor:
    """What the first interaction of a triangle of atoms adds to features (3, F)."""
    triangle = Atoms("C3", [[0, 0, 0], [1.3, 0, 0], [0.4, 1.1, 0]])
    graph = build_graph(geometry(triangle), None)
    distances = torch.tensor([1.3, 1.17, 1.42], dtype=model.dtype)
    result: torch.Tensor = model.interactions[0](x, model.filters(distances)[0], graph.pairs)
    return result.detach()


def test_layer_norm_ignores_offset_and_size_of_the_features(make_model: ModelFactory) -> None:
    model = make_model(norm="layer").double()
    x = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change = interaction_residual(model, 100.0 * x + 700.0) - interaction_residual(model, 100.0 * x)
    assert change.abs().max() < 1e-10
    # Up to the epsilon that guards a variance of zero, 1e-5.
    assert (interaction_residual(model, 300.0 * x) - interaction_residual(model, 100.0 * x)).abs().max() < 1e-6


def test_rms_norm_ignores_the_size_but_not_the_offset(make_model: ModelFactory) -> None:
    model = make_model(norm="rms").double()
    x = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (interaction_residual(model, 3.0 * x) - interaction_residual(model, x)).abs().max() < 1e-10
    assert (interaction_residual(model, x + 7.0) - interaction_residual(model, x)).abs().max() > 1e-3


def test_no_norm_sees_the_size_of_the_features(make_model: ModelFactory) -> None:
    model = make_model().double()
    x = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (interaction_residual(model, 3.0 * x) - interaction_residual(model, x)).abs().max() > 1e-3


def test_dropout_does_nothing_in_evaluation(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model()
    assert energy_of(twin(model, dropout=0.5), ethanol) == energy_of(model, ethanol)


def test_dropout_drops_its_share_of_the_residual_in_training(make_model: ModelFactory) -> None:
    model = make_model(dropout=0.25, n_features=64).train()
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = torch.stack([interaction_residual(model, x) == 0.0 for _ in range(50)])
    # 9,600 draws: a standard deviation of 0.0044.
    assert dropped.double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_filter_activation_last_applies_the_activation_once_more(make_model: ModelFactory) -> None:
    model = make_model(filter_activation_last=True)
    radial = model.basis(torch.linspace(0.5, 4.0, 20))
    without = twin(model, filter_activation_last=False).interactions[0].filter_network(radial)
    with_last = model.interactions[0].filter_network(radial)
    torch.testing.assert_close(with_last, ACTIVATIONS["ssp"](without))
    assert without.min() < -np.log(2.0) < with_last.min()


def test_interaction_bias_is_one_vector_per_interaction(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model()
    without = twin(model, interaction_bias=False)
    assert {k for k in model.state_dict() if k not in without.state_dict()} == {
        "interactions.0.dense_in.bias",
        "interactions.1.dense_in.bias",
    }
    assert abs(energy_of(without, ethanol) - energy_of(model, ethanol)) > 1e-3


# --- precision -----------------------------------------------------------------------------------------------------


def test_large_reference_energies_lose_nothing_in_float32(make_model: ModelFactory) -> None:
    reference = -17_345.678901234567
    model = make_model()
    model.reference[6] = reference
    model.scale.fill_(0.1 + 1e-12)
    for changed in (model.float(), model.double(), model.to(torch.float32)):
        assert changed.scale.dtype == changed.reference.dtype == torch.float64
        assert changed.scale.item() == 0.1 + 1e-12
        assert changed.reference[6].item() == reference
    assert model.dtype == torch.float32
    # The network's share of a lone atom's energy is of order one, and that of float32 is its error.
    shifted = twin(model)
    shifted.reference[6] += 1e-9
    lone = Atoms("C")
    assert energy_of(shifted, lone) - energy_of(model, lone) == pytest.approx(1e-9, abs=1e-11)
