"""Reference energies and scale."""

import numpy as np
import pytest
import torch

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Frame
from schnet_ase.errors import DataError
from schnet_ase.geometry.system import Geometry, geometry
from schnet_ase.training.normalization import fit_normalization
from tests.support.frames import labelled_ethanol


def test_an_element_beyond_the_embeddings_is_refused():
    frame = Frame(geometry(labelled_ethanol(1)[0]), -1.0, None)
    with pytest.raises(DataError, match=r"contain O, element 8; set model\.max_z, 8, above that"):
        fit_normalization(SchNet(SchNetConfig(max_z=8)), [frame])


def frame(numbers, energy):
    n = len(numbers)
    positions = np.arange(3.0 * n).reshape(n, 3)
    return Frame(Geometry(np.array(numbers), positions, np.zeros((3, 3)), np.zeros(3, bool)), energy, np.ones((n, 3)))


def test_reference_energies_of_several_compositions():
    """Least squares finds the elements' energies exactly where energies are sums of them."""
    e = {1: -13.6, 6: -1030.0, 8: -2041.0}
    compositions = [(1, 1, 8), (6, 1, 1, 1, 1), (6, 8, 8), (6, 6, 1, 1)]
    model = SchNet(SchNetConfig.small())
    fit_normalization(model, [frame(c, sum(e[z] for z in c)) for c in compositions])
    for z, energy in e.items():
        assert model.reference[z].item() == pytest.approx(energy, abs=1e-8)
    assert model.reference.count_nonzero() == 3
    assert model.elements == (1, 6, 8)


def test_reference_energies_of_one_composition():
    model = SchNet(SchNetConfig.small())
    fit_normalization(model, [frame((8, 1, 1), e) for e in (-2079.0, -2080.0, -2081.0)])
    assert model.reference[[1, 8]].tolist() == pytest.approx([-2080.0 / 3] * 2)
    assert model.scale.item() == pytest.approx(np.std([-1.0, 0.0, 1.0]) / np.sqrt(3))


def test_large_total_energies_lose_nothing(tmp_path):
    """Energies of -4e5 kcal/mol with differences of 1e-6 eV: float32 alone would round them to 1e-3 eV."""
    model = SchNet(SchNetConfig.small())
    base = -17346.0
    fit_normalization(model, [frame((8, 1, 1), base + d) for d in (0.0, 1.0)])
    with torch.no_grad():
        for parameter in model.readout2.parameters():
            parameter.zero_()
    from schnet_ase.geometry.graph import build_graph
    from schnet_ase.inference.forces import predict

    graph = build_graph(geometry(labelled_ethanol(1)[0])._replace(numbers=np.array([8] + [1] * 8)), None)
    energy = predict(model.float(), graph).energy.item()
    assert energy == pytest.approx(9 * (base + 0.5) / 3, abs=1e-9)
