"""A wider network begins as the function of the narrower one, and nothing in it stays put."""

from dataclasses import replace

import pytest
import torch
from ase.build import molecule

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.geometry.graph import build_graph
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.networks.widen import fits, inherit

NARROW = replace(SchNetConfig.md(), n_features=8, n_interactions=3, readout_features=6)
WIDER = {
    "features": {"n_features": 13},
    "readout": {"readout_features": 9},
    "both": {"n_features": 9, "readout_features": 7},
}


def trained(config: SchNetConfig) -> SchNet:
    """A network as training leaves it, in that none of its weights is zero."""
    torch.manual_seed(1)
    model = SchNet(config).double()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.4)
    model.scale.fill_(1.7)
    model.reference[[1, 6, 8]] = torch.tensor([-13.0, -1000.0, -2000.0], dtype=torch.float64)
    return model


@pytest.mark.parametrize("change", WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("option", [{}, {"filter_activation_last": True}, {"interaction_bias": False}], ids=str)
def test_a_wider_network_is_the_same_function(change, option):
    narrow, wide = trained(replace(NARROW, **option)), SchNet(replace(NARROW, **option, **change)).double()
    inherit(wide, narrow)
    graph = build_graph(geometry(molecule("CH3CH2OH")), NARROW.pair_cutoff)
    expected, found = predict(narrow, graph), predict(wide, graph)
    torch.testing.assert_close(found.energies, expected.energies, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-10)
    assert expected.forces.abs().max() > 0.01


def test_every_weight_of_a_widened_network_learns():
    wide = SchNet(replace(NARROW, n_features=13, readout_features=9)).double()
    inherit(wide, trained(NARROW))
    start = [weights.clone() for weights in wide.parameters()]
    optimizer = torch.optim.Adam(wide.parameters(), lr=1e-3)
    graph = build_graph(geometry(molecule("CH3CH2OH")), NARROW.pair_cutoff)
    for _ in range(3):  # a new feature that nothing reads has no gradient before the weights that read it have moved
        optimizer.zero_grad()
        predict(wide, graph, gradients=False).energies.sum().square().backward()
        optimizer.step()
    used = graph.numbers.unique()
    for (name, weights), before in zip(wide.named_parameters(), start, strict=True):
        moved = weights != before
        assert (moved[used] if name == "embedding.weight" else moved).all(), name


@pytest.mark.parametrize(
    "change",
    [
        {"n_features": 7},
        {"readout_features": 5},
        {"n_interactions": 4},
        {"cutoff": 5.0},
        {"n_features": 9, "norm": "rms"},
    ],
    ids=str,
)
def test_what_cannot_be_the_same_function(change):
    norm = {"norm": change["norm"]} if "norm" in change else {}
    assert not fits(replace(NARROW, **norm), replace(NARROW, **change))


def test_an_equal_network_fits_with_a_norm_too():
    config = replace(NARROW, norm="layer")
    model, narrow = SchNet(config).double(), trained(config)
    assert fits(config, config)
    inherit(model, narrow)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), narrow.state_dict().values(), strict=True)
    )
