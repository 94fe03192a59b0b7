"""The compiled engine against the PyTorch reference, and what it does not cover."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.engine import tables
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.compiled import why_not_compiled
from schnet_ase.networks.radial import ENVELOPES

# Errors allowed against the reference in float64: energy an atom in eV, force in eV/Å, stress in eV/Å³.
BOUNDS = {"float32": (1e-6, 1e-5, 1e-6), "float64": (1e-9, 1e-8, 1e-9)}
CONFIGS = {
    "polynomial": {},
    "cosine": {"envelope": "cosine"},
    "exponential": {"radial": "exponential"},
    "activation last": {"filter_activation_last": True},
    "no bias": {"interaction_bias": False},
    "odd widths": {"n_features": 21, "readout_features": 9},
    "wide": {"n_features": 64, "readout_features": 32, "n_interactions": 3},
    "one interaction": {"n_interactions": 1},
    "silu": {"activation": "silu"},
    "SchNetPack's": {"readout_activation": "silu", "envelope": "cosine", "interaction_bias": False},
}


def systems():
    """Molecules and cells of every periodicity: more atoms than a tile, one atom, cells smaller than the cutoff."""
    rng = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    pair = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]])
    squeezed, stretched = pair.copy(), pair.copy()
    squeezed.positions[1, 2], stretched.positions[1, 2] = 0.35, 3.9
    cell = np.array([[3.0, 0.0, 0.0], [0.7, 3.2, 0.0], [0.4, -0.5, 3.6]])
    crystal = Atoms("OCHN", rng.uniform(0, 1, (4, 3)) @ cell, cell=cell, pbc=True)
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    boxed = crystal.copy()
    boxed.pbc = False
    big = bulk("C", cubic=True) * (3, 2, 2)
    return {
        "ethanol": ethanol,
        "squeezed": squeezed,
        "stretched": stretched,
        "apart": Atoms("OH", positions=[[0, 0, 0], [0, 0, 9.0]]),
        "one atom": Atoms("O"),
        "one atom in a cell": Atoms("O", cell=cell, pbc=True),
        "crystal": crystal,
        "slab": slab,
        "molecule in a box": boxed,
        "more than a tile": big,
        "large molecule": Atoms(big.numbers, big.positions),
    }


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_agrees_with_autograd(make_model, config, dtype):
    models = [make_model(seed, **config) for seed in range(3)]
    reference = SchNetEnsembleCalculator(models, engine="autograd", dtype="float64")
    same_dtype = SchNetEnsembleCalculator(models, engine="autograd", dtype=dtype)
    results = {}
    rounding = dict.fromkeys(("energy_ensemble", "energies", "forces_ensemble", "stress"), 0.0)
    for name, atoms in systems().items():
        atoms.rattle(0.05, seed=2)
        exact, rounded = (c.calculate(atoms) or c.results for c in (reference, same_dtype))
        results[name] = atoms, exact
        for key in rounding.keys() & exact.keys():
            rounding[key] = max(rounding[key], float(np.abs(rounded[key] - exact[key]).max()))
    for threads in (1, 2, 3, 6):  # with few features also the atoms are cut into parts
        compiled = SchNetEnsembleCalculator(models, engine="compiled", dtype=dtype, threads=threads)
        for name, (atoms, exact) in results.items():
            ours = compiled.calculate(atoms) or compiled.results
            assert set(ours) == set(exact)
            assert ("stress" in ours) == (atoms.cell.rank == 3)
            energy, force, stress = BOUNDS[dtype]
            bounds = {"energy_ensemble": energy * len(atoms), "energies": energy, "forces_ensemble": force}
            bounds |= {"stress": stress} if "stress" in ours else {}
            for key, bound in bounds.items():
                # Random weights make hundreds of eV/Å: there the reference in the same precision is the measure.
                allowed = max(bound, 3.0 * rounding[key])
                assert np.abs(ours[key] - exact[key]).max() <= allowed, f"{key} of {name}, {threads} threads"


@pytest.mark.parametrize("preset", [SchNetConfig.small(), SchNetConfig.default()], ids=["small", "default"])
def test_agrees_without_an_envelope(make_model, preset, ethanol):
    model = make_model(0, **preset.to_dict())
    far = ethanol + ethanol
    far.positions[9:] += [0.0, 0.0, 70.0]  # beyond the last radial function
    for atoms in (ethanol, far):
        ours, theirs = (SchNetCalculator(model, engine=e, dtype="float64") for e in ("compiled", "autograd"))
        assert ours.get_potential_energy(atoms) == pytest.approx(theirs.get_potential_energy(atoms), abs=1e-8)
        np.testing.assert_allclose(ours.get_forces(atoms), theirs.get_forces(atoms), atol=1e-7)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_atoms_beyond_the_cutoff_do_not_interact(make_model, envelope):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")
    dimer = Atoms("CO", [[0, 0, 0], [0, 0, 4.0 + 1e-6]])
    apart = [calculator.get_potential_energy(dimer[i : i + 1]) for i in range(2)]
    assert (calculator.get_forces(dimer) == 0.0).all()
    assert len(calculator._evaluator.neighbors.get(geometry(dimer)).first) == 1  # listed all the same
    assert calculator.results["energies"].tolist() == apart


@pytest.mark.parametrize(("envelope", "order"), [("cosine", 1), ("polynomial", 2)])
def test_force_goes_to_zero_at_the_cutoff(make_model, envelope, order):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")

    def force(r):
        return abs(calculator.get_forces(Atoms("CO", [[0, 0, 0], [0, 0, r]]))[0, 2])

    assert force(3.9) > 1e-4
    # Ten times nearer to the cutoff: a force of that order less.
    assert force(4.0 - 1e-4) / force(4.0 - 1e-3) == pytest.approx(10.0**-order, rel=0.01)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_far_fragments_are_as_each_alone(make_model, ethanol, envelope):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")
    water = Atoms("OH2", [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]])
    far = water.copy()
    far.positions += (0.0, 0.0, 50.0)
    for name in ("energies", "forces"):
        together, *alone = (calculator.get_property(name, atoms) for atoms in (ethanol + far, ethanol, water))
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=0.0, atol=1e-10)


def test_agrees_along_a_trajectory_with_lists_remade(make_model, crystal):
    atoms = crystal * (2, 2, 2)
    model = make_model(0)
    model.scale.fill_(0.05)
    atoms.calc = SchNetCalculator(model, engine="compiled", dtype="float64", skin=0.3)
    reference = SchNetCalculator(model, engine="autograd", dtype="float64", skin=0.3)
    thermalize_momenta(atoms, temperature_K=2000, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    for _ in dynamics.irun(60):
        np.testing.assert_allclose(atoms.get_forces(), reference.get_forces(atoms), atol=1e-9)
    assert atoms.calc._evaluator.neighbors.builds > 2


def test_what_is_not_covered_falls_back_and_says_why(make_model, ethanol):
    obstacles = (
        ({"activation": "gelu"}, "activation 'gelu'"),
        ({"readout_activation": "gelu"}, "readout_activation 'gelu'"),
        ({"norm": "rms"}, "norm 'rms'"),
    )
    for fields, reason in obstacles:
        model = make_model(0, **fields)
        assert why_not_compiled(model.config) == reason
        calculator = SchNetCalculator(model)
        assert calculator.engine.name == "autograd"
        assert reason in calculator.engine.reason
        calculator.get_forces(ethanol)
        with pytest.raises(ValueError, match=f"the compiled engine does not cover {reason}; use"):
            SchNetCalculator(model, engine="compiled")
    assert SchNetCalculator(make_model(0), device="cpu").engine.name == "compiled"


def test_filters_without_a_table_fall_back_and_say_why(make_model, ethanol, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_INTERVALS", 10)
    calculator = SchNetCalculator(make_model(0))
    assert calculator.engine.name == "autograd"
    assert "a table of 10 knots" in calculator.engine.reason
    calculator.get_forces(ethanol)
    with pytest.raises(ValueError, match="a table of 10 knots"):
        SchNetCalculator(make_model(0), engine="compiled")


def test_a_network_with_dropout_is_covered(make_model, ethanol):
    plain, dropout = (make_model(0, dropout=p) for p in (0.0, 0.5))
    forces = [SchNetCalculator(m, engine="compiled").get_forces(ethanol) for m in (plain, dropout)]
    np.testing.assert_array_equal(*forces)
