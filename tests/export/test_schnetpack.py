"""Imported networks give the energy and forces of the formulas they were made with, and others are refused."""

import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms, units
from torch.nn import functional

from schnet_ase import SchNetCalculator, load_model, save_model
from schnet_ase.errors import CheckpointError
from schnet_ase.export.schnetpack import from_schnetpack

CUTOFF, FEATURES, BASIS, HIDDEN, INTERACTIONS, MAX_Z = 4.3, 10, 9, 5, 2, 20


def random_weights(dtype=torch.float64, basis=BASIS):
    """A state dict with the names and shapes that SchNetPack 2.1.1 gives."""
    rng = np.random.default_rng(0)
    shapes = {
        "representation.embedding.weight": (MAX_Z, FEATURES),
        "output_modules.0.outnet.0.weight": (HIDDEN, FEATURES),
        "output_modules.0.outnet.0.bias": (HIDDEN,),
        "output_modules.0.outnet.1.weight": (1, HIDDEN),
        "output_modules.0.outnet.1.bias": (1,),
    }
    for k in range(INTERACTIONS):
        block = f"representation.interactions.{k}"
        shapes[f"{block}.in2f.weight"] = (FEATURES, FEATURES)
        for layer in ("f2out.0", "f2out.1", "filter_network.0", "filter_network.1"):
            inputs = basis if layer == "filter_network.0" else FEATURES
            shapes[f"{block}.{layer}.weight"] = (FEATURES, inputs)
            shapes[f"{block}.{layer}.bias"] = (FEATURES,)
    weights = {name: torch.from_numpy(rng.normal(scale=0.4, size=shape)) for name, shape in shapes.items()}
    offsets = torch.linspace(0.0, CUTOFF, basis)
    weights["representation.radial_basis.offsets"] = offsets
    weights["representation.radial_basis.widths"] = (offsets[1] - offsets[0]) * torch.ones(basis)
    weights["representation.cutoff_fn.cutoff"] = torch.tensor([CUTOFF])
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def reference(weights, atoms, activation, readout_activation):
    """Energy and forces by SchNetPack's formulas, over every ordered pair of atoms and images, in float64."""

    def dense(x, layer):
        return x @ weights[f"{layer}.weight"].T + weights.get(f"{layer}.bias", 0.0)

    def images(periodic):
        return range(-3, 4) if periodic else (0,)

    positions = torch.tensor(atoms.positions, requires_grad=True)
    shifts = torch.from_numpy(np.array(list(product(*map(images, atoms.pbc)))) @ atoms.cell.array)
    vectors = positions[None, :, None] - positions[:, None, None] + shifts
    i, j, _ = torch.nonzero((vectors**2).sum(-1) > 1e-8, as_tuple=True)
    r = vectors[(vectors**2).sum(-1) > 1e-8].norm(dim=-1)
    offsets, widths = (weights[f"representation.radial_basis.{name}"] for name in ("offsets", "widths"))
    radial = torch.exp(-0.5 / widths**2 * (r[:, None] - offsets) ** 2)
    cutoff = weights["representation.cutoff_fn.cutoff"].item()
    envelope = torch.where(r < cutoff, 0.5 * (torch.cos(r * math.pi / cutoff) + 1.0), 0.0)
    x = weights["representation.embedding.weight"][atoms.numbers]
    for k in range(INTERACTIONS):
        block = f"representation.interactions.{k}"
        filters = activation(dense(radial, f"{block}.filter_network.0"))
        filters = dense(filters, f"{block}.filter_network.1") * envelope[:, None]
        messages = dense(x, f"{block}.in2f")[j] * filters
        y = torch.stack([messages[i == atom].sum(0) for atom in range(len(atoms))])
        x = x + dense(activation(dense(y, f"{block}.f2out.0")), f"{block}.f2out.1")
    output = dense(readout_activation(dense(x, "output_modules.0.outnet.0")), "output_modules.0.outnet.1")
    energy = output.sum()
    (gradient,) = torch.autograd.grad(energy, positions)
    return energy.item(), -gradient.numpy()


def shifted_softplus(x):
    return functional.softplus(x) - math.log(2.0)


FUNCTIONS = {"ssp": shifted_softplus, "silu": functional.silu, "tanh": torch.tanh}


@pytest.mark.parametrize("system", ["ethanol", "crystal"])
@pytest.mark.parametrize("activations", [("ssp", "silu"), ("ssp", "ssp"), ("tanh", "silu")], ids="-".join)
def test_energy_and_forces_are_those_of_the_formulas(system, activations, request):
    atoms: Atoms = request.getfixturevalue(system)
    weights = random_weights()
    energy, forces = reference(weights, atoms, *(FUNCTIONS[name] for name in activations))
    model = from_schnetpack(weights, activation=activations[0], readout_activation=activations[1])
    atoms.calc = SchNetCalculator(model, dtype="float64", engine="autograd")
    assert np.abs(forces).max() > 0.1
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-11)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-11)


def test_shape_is_read_from_the_weights_and_activations_are_schnetpacks():
    config = from_schnetpack(random_weights()).config
    found = (config.n_features, config.n_rbf, config.readout_features, config.n_interactions, config.max_z)
    assert found == (FEATURES, BASIS, HIDDEN, INTERACTIONS, MAX_Z)
    assert config.cutoff == pytest.approx(CUTOFF, rel=1e-7)
    assert (config.activation, config.readout_activation) == ("ssp", "silu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_keep_their_dtype(dtype):
    weights = random_weights(dtype)
    model = from_schnetpack({name: tensor.numpy() for name, tensor in weights.items()})
    assert model.dtype == dtype
    assert torch.equal(model.readout1.weight, weights["output_modules.0.outnet.0.weight"])
    assert not model.training


def test_offsets_and_unit(ethanol):
    weights = random_weights()
    plain = from_schnetpack(weights)
    weights["postprocessors.1.mean"] = torch.tensor([-7.0])
    weights["postprocessors.1.atomref"] = torch.zeros(100)
    kcal = units.kcal / units.mol
    atomref = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 20.0, 0.0, 300.0]  # H, C, O
    model = from_schnetpack(weights, mean=-7.0, atomref=atomref, energy_unit=kcal)
    energies, forces = [], []
    for network in (plain, model):
        ethanol.calc = SchNetCalculator(network, dtype="float64")
        energies.append(ethanol.get_potential_energy())
        forces.append(ethanol.get_forces())
    expected = kcal * (energies[0] - 9 * 7.0 + 6 * 1.0 + 2 * 20.0 + 300.0)
    assert energies[1] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(forces[1], kcal * forces[0], rtol=1e-12, atol=1e-13)


def test_imported_model_is_saved_and_read(tmp_path, ethanol):
    model = from_schnetpack(random_weights(), mean=1.0)
    save_model(model, tmp_path / "imported.safetensors", source="SchNetPack")
    energies = []
    for network in (model, load_model(tmp_path / "imported.safetensors")):
        ethanol.calc = SchNetCalculator(network, dtype="float64")
        energies.append(ethanol.get_potential_energy())
    assert energies[0] == energies[1]


def test_random_numbers_of_the_user_are_not_drawn():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    from_schnetpack(random_weights())
    assert torch.equal(torch.rand(3), expected)


def change(name, value):
    return lambda weights: weights | {name: value}


def drop(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def uneven(weights):
    offsets = weights["representation.radial_basis.offsets"].clone()
    offsets[3] += 1e-3
    return weights | {"representation.radial_basis.offsets": offsets}


def trained_widths(weights):
    widths = weights["representation.radial_basis.widths"].clone()
    widths[3] *= 1.001
    return weights | {"representation.radial_basis.widths": widths}


WRONG_WEIGHTS = {
    "nothing": (lambda weights: {}, "misses output_modules.0.outnet.0.bias"),
    "missing bias": (drop("output_modules.0.outnet.1.bias"), "misses output_modules.0.outnet.1.bias"),
    "missing block": (drop("representation.interactions.0.in2f.weight"), "has also representation.interactions.1"),
    "checkpoint instead of its state dict": (lambda weights: {"state_dict": weights}, "has also state_dict"),
    "mollifier cutoff": (
        change("representation.cutoff_fn.eps", torch.ones(1)),
        "has also representation.cutoff_fn.eps",
    ),
    "Bessel basis": (change("representation.radial_basis.freqs", torch.ones(BASIS)), "radial_basis.freqs"),
    "electronic embedding": (change("representation.electronic_embeddings.0.w", torch.ones(1)), "electronic_emb"),
    "two readouts": (change("output_modules.1.outnet.0.bias", torch.ones(1)), "has also output_modules.1"),
    "repulsion": (change("output_modules.1.a_div", torch.ones(1)), "has also output_modules.1.a_div"),
    "scaled": (change("postprocessors.0.scale", torch.ones(1)), "has also postprocessors.0.scale"),
    "silent mean": (change("postprocessors.1.mean", torch.ones(1)), "give mean=..., or 0"),
    "silent atomref": (change("postprocessors.1.atomref", torch.ones(100)), "give atomref=..., or 0"),
    "filters wider than features": (
        change("representation.interactions.1.in2f.weight", torch.ones(12, FEATURES, dtype=torch.float64)),
        r"in2f.weight has shape \(12, 10\); expected \(10, 10\)",
    ),
    "several outputs": (
        change("output_modules.0.outnet.1.weight", torch.ones(3, HIDDEN, dtype=torch.float64)),
        r"outnet.1.weight has shape \(3, 5\); expected \(1, 5\)",
    ),
    "flat embedding": (
        change("representation.embedding.weight", torch.ones(FEATURES, dtype=torch.float64)),
        r"embedding.weight \(10,\).*do not fit together",
    ),
    "mixed dtypes": (change("output_modules.0.outnet.1.bias", torch.ones(1)), "the weights are float32, float64"),
    "half precision": (lambda w: {k: v.half() for k, v in w.items()}, "the weights are float16"),
    "integers": (lambda w: {k: v.long() for k, v in w.items()}, "the weights are int64"),
    "trained centres": (uneven, "not evenly spaced from 0"),
    "another start": (
        change("representation.radial_basis.offsets", torch.linspace(0.5, CUTOFF, BASIS, dtype=torch.float64)),
        "not evenly spaced from 0",
    ),
    "another cutoff": (change("representation.cutoff_fn.cutoff", torch.tensor([5.0]).double()), "cutoff of 5 Å"),
    "no cutoff": (change("representation.cutoff_fn.cutoff", torch.zeros(1).double()), "expected a positive distance"),
    "trained widths": (trained_widths, "different widths"),
    "one Gaussian": (lambda weights: random_weights(basis=2) | _one_gaussian(), "the 1 Gaussians"),
}


def _one_gaussian():
    one = torch.zeros(1, dtype=torch.float64)
    return {"representation.radial_basis.offsets": one, "representation.radial_basis.widths": one + 1.0}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_other_networks_are_refused_in_one_line(case):
    spoil, message = WRONG_WEIGHTS[case]
    with pytest.raises(CheckpointError, match=message) as caught:
        from_schnetpack(spoil(random_weights()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation 'relu' is unknown"),
        ({"readout_activation": "relu"}, "activation 'relu' is unknown"),
        ({"energy_unit": 0.0}, "energy_unit is 0.0; expected a positive number"),
        ({"energy_unit": math.nan}, "energy_unit is nan"),
        ({"mean": math.inf}, "mean or atomref is not finite"),
        ({"atomref": [0.0, math.nan]}, "mean or atomref is not finite"),
        ({"atomref": np.zeros((2, 10))}, r"atomref has shape (2, 10)"),
        ({"atomref": np.zeros(MAX_Z + 1)}, r"atomref has shape (21,)"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        from_schnetpack(random_weights(), **arguments)
    assert "\n" not in str(caught.value)
