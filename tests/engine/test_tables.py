"""Filter tables: the same function as the filter network, to the bound, and smooth."""

import numpy as np
import pytest
import torch

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, load_model
from schnet_ase.engine import tables
from schnet_ase.engine.tables import TOLERANCES, TableError, tabulate
from schnet_ase.registry.lookup import get_card

CONFIGS = {
    "polynomial": {},
    "cosine": {"envelope": "cosine"},
    "exponential": {"radial": "exponential"},
    "activation last": {"filter_activation_last": True},
    "no envelope": {"envelope": "none", "gamma": 10.0, "cutoff": 6.0, "n_rbf": 60},
}


def evaluate(table, r):
    """Values and slopes, (n_interactions, R, F), from the definition in `FilterTable`."""
    row = np.minimum(np.floor(r / table.width), table.coefficients.shape[1] - 1).astype(int)
    u = r / table.width - row
    a = table.coefficients[:, row]
    value = sum(a[:, :, c] * u[:, None] ** c for c in range(6))
    slope = sum(c * a[:, :, c] * u[:, None] ** (c - 1) for c in range(1, 6)) / table.width
    return value, slope


def network(model, r):
    """The same from the filter network; slopes by central differences of the eighth order in float64."""

    def filters(distances):
        with torch.no_grad():
            return torch.stack(model.filters(torch.from_numpy(distances))).numpy()

    h, weights = 2e-3, {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    slope = sum(w * (filters(r + k * h) - filters(r - k * h)) for k, w in weights.items()) / h
    return filters(r), slope


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_values_and_slopes_meet_the_bound(make_model, config, dtype):
    model = make_model(0, **config).double()
    table = tabulate(model, TOLERANCES[dtype])
    assert table.error <= TOLERANCES[dtype]
    reach = model.config.pair_cutoff or model.basis.reach
    r = np.random.default_rng(0).uniform(0.05, reach - 0.05, 2000)  # between any knots
    for ours, theirs in zip(evaluate(table, r), network(model, r), strict=True):
        # The bound was checked on a grid: between its points the error may be a little larger.
        assert np.abs(ours - theirs).max() <= 1.5 * TOLERANCES[dtype] * np.abs(theirs).max() + 1e-12


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_value_slope_and_curvature_are_continuous(make_model, config):
    a = tabulate(make_model(0, **config), TOLERANCES["float32"]).coefficients
    c = np.arange(6)
    for weights, scale in (((c**0), 1.0), (c, 1.0), (c * (c - 1), 2.0)):
        at_end = np.einsum("c,lkcf->lkf", weights, a[:, :-2])
        start = a[:, 1:-1, int(np.flatnonzero(weights)[0])] * scale
        np.testing.assert_allclose(at_end, start, atol=1e-12 * np.abs(a).max() * 100)


def test_ends_at_zero_with_an_envelope_and_in_a_constant_without(make_model):
    table = tabulate(make_model(0), 1e-8)
    value, slope = evaluate(table, np.array([4.0 - 1e-9, 4.0, 5.0]))
    assert np.abs(value).max() < 1e-12
    assert np.abs(slope).max() < 1e-6
    model = make_model(0, **CONFIGS["no envelope"]).double()
    far = np.array([20.0, 50.0])
    value, slope = evaluate(tabulate(model, 1e-8), far)
    np.testing.assert_allclose(value, network(model, far)[0], rtol=1e-12)
    assert not slope.any()


@pytest.mark.parametrize("entry", ["rmd17-ethanol", "rmd17-aspirin"])
def test_single_precision_forces_are_off_by_rounding_not_by_the_table(entry, monkeypatch):
    atoms = get_card(entry).structure.atoms()
    frames = [atoms.copy() for _ in range(20)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, rng=np.random.default_rng(seed))
    exact = SchNetCalculator(entry, dtype="float64", engine="autograd", device="cpu")
    forces = [exact.get_forces(frame) for frame in frames]

    def error(dtype):
        model = load_model(entry).to(getattr(torch, dtype))  # by its name it would share the tables
        calc = SchNetCalculator(model, engine="compiled", dtype=dtype)
        return np.sqrt(np.mean([(calc.get_forces(frame) - f) ** 2 for frame, f in zip(frames, forces, strict=True)]))

    of_all = error("float32")
    monkeypatch.setitem(TOLERANCES, "float64", TOLERANCES["float32"])
    assert error("float64") < 0.5 * of_all  # the same tables without rounding
    monkeypatch.setitem(TOLERANCES, "float64", 1e-4)
    assert error("float64") > of_all


@pytest.mark.parametrize("preset", [SchNetConfig.small, SchNetConfig.default, SchNetConfig.md])
def test_presets_can_be_tabulated(preset):
    model = SchNet(preset())
    table = tabulate(model, TOLERANCES["float32"])
    assert table.error <= TOLERANCES["float32"]


def test_tables_are_kept_for_the_same_weights_and_made_again_for_changed_ones(make_model, monkeypatch):
    monkeypatch.setattr(tables, "_kept", {})
    model = make_model(0)
    table = tabulate(model, 1e-7)
    assert tabulate(make_model(0).double(), 1e-7) is table
    assert not table.coefficients.flags.writeable
    others = [
        tabulate(model, 1e-8),
        tabulate(model, 1e-7, at_least=500),
        tabulate(make_model(0, radial="exponential"), 1e-7),
    ]
    with torch.no_grad():
        model.interactions[1].filter_network.dense2.bias[3] += 0.5  # in place, as training does
    others.append(tabulate(model, 1e-7))
    assert all(other is not table for other in others)
    r = np.array([1.234])
    np.testing.assert_allclose(evaluate(others[-1], r)[0], network(model.double(), r)[0], atol=1e-6)
    assert np.abs(evaluate(others[-1], r)[0] - evaluate(table, r)[0]).max() > 0.1


def test_few_tables_are_kept(make_model, monkeypatch):
    monkeypatch.setattr(tables, "_kept", {})
    models = [make_model(seed) for seed in range(3)]
    first, second, _ = (tabulate(model, 1e-7, at_least=500) for model in models)
    assert tabulate(models[0], 1e-7, at_least=500) is first
    monkeypatch.setattr(tables, "_MOST_KEPT", 2 * first.coefficients.nbytes)
    tabulate(make_model(3), 1e-7, at_least=500)
    assert len(tables._kept) == 2
    assert tabulate(models[0], 1e-7, at_least=500) is not first
    monkeypatch.setattr(tables, "_MOST_KEPT", 1)
    assert tabulate(models[1], 1e-7, at_least=500) is not second
    assert not tables._kept


def test_a_bound_that_cannot_be_met_is_an_error(make_model):
    with pytest.raises(TableError, match="not meet a relative error of 1e-25"):
        tabulate(make_model(0), 1e-25)
