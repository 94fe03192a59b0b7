"""The repulsion of nuclei: its formula, its limits, and that either engine adds it to a network."""

import itertools
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers, covalent_radii
from ase.units import Bohr, Hartree

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.geometry.system import geometry
from schnet_ase.priors.zbl import ZBL, radii, repulsion, screenings
from schnet_ase.testing import check_calculator

ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")
PAIRS = list(itertools.combinations_with_replacement(ELEMENTS, 2))
SMALL = {"n_features": 8, "readout_features": 8, "n_rbf": 8}
FLOAT32_NETWORK = 1e-4
"""eV and eV/Å: rounding of these networks in float32, all that float32 adds to the repulsion, which is in float64."""


def pair_of(first, second):
    """Charges, screening and reach of a pair as `repulsion` takes them."""
    a, b = atomic_numbers[first], atomic_numbers[second]
    return a * b, screenings(100)[a] + screenings(100)[b], radii(100)[a] + radii(100)[b]


def energy_by_hand(first, second, r):
    """As LAMMPS documents `pair_style zbl`, with the switch of the module's docstring."""
    a, b = atomic_numbers[first], atomic_numbers[second]
    x = r * (a**0.23 + b**0.23) / 0.46850
    y = r / (covalent_radii[a] + covalent_radii[b])
    if y >= 1.0:
        return 0.0
    terms = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    screened = sum(c * math.exp(-d * x) for c, d in terms)
    return 14.399645 * a * b / r * screened * (1 - 28 * y**6 + 48 * y**7 - 21 * y**8)


def contribution(atoms, cutoff=4.0):
    system = geometry(atoms)
    return ZBL(cutoff)(system, half_neighbor_list(system.positions, system.cell, system.pbc, cutoff))


def with_and_without(make_model, seeds=(0,), **config):
    """Networks of the same weights, with the prior and without."""
    pairs = []
    for prior in ("zbl", None):
        models = [make_model(seed, **{**SMALL, **config}, prior=prior) for seed in seeds]
        pairs.append(models)
    return pairs


@pytest.mark.parametrize(("first", "second"), [("H", "H"), ("C", "O"), ("S", "Cl")])
def test_energy_is_the_formula(first, second):
    for r in (0.05, 0.3, 0.5, 1.5):
        atoms = Atoms([first, second], [[0, 0, 0], [0, 0, r]])
        assert contribution(atoms).energies.sum() == pytest.approx(energy_by_hand(first, second, r), rel=1e-6)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_slope_is_the_derivative_of_the_energy(first, second):
    """By a complex step, which is exact to rounding."""
    charges, screening, reach = pair_of(first, second)
    r = np.linspace(0.02, 0.999 * reach, 50)
    _, slope = repulsion(charges, screening, reach, r)
    energy, _ = repulsion(charges, screening, reach, r + 1e-30j)
    np.testing.assert_allclose(slope, energy.imag / 1e-30, rtol=1e-12, atol=1e-12)
    assert (slope < 0.0).all()


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_bare_nuclei_where_they_meet(first, second):
    """r E goes to that of Coulomb's law."""
    charges, screening, reach = pair_of(first, second)
    energy, _ = repulsion(charges, screening, reach, 1e-7)
    assert 1e-7 * energy == pytest.approx(Hartree * Bohr * charges, rel=1e-5)


def test_value_slope_and_curvature_vanish_where_it_ends():
    """The energy falls as the cube of the distance to there: at a tenth of it, to a thousandth."""
    charges, screening, reach = pair_of("C", "O")
    near, nearer = (repulsion(charges, screening, reach, reach * (1.0 - d)) for d in (1e-3, 1e-4))
    assert nearer[0] / near[0] == pytest.approx(1e-3, rel=0.02)
    assert nearer[1] / near[1] == pytest.approx(1e-2, rel=0.02)
    beyond = contribution(Atoms("CO", [[0, 0, 0], [0, 0, reach + 1e-9]]))
    assert not beyond.energies.any()
    assert not beyond.forces.any()


def test_a_cutoff_shorter_than_the_radii_ends_it():
    for r, repels in ((0.999, True), (1.001, False)):
        part = contribution(Atoms("CO", [[0, 0, 0], [0, 0, r]]), cutoff=1.0)
        assert (part.energies.sum() > 0.0) == repels
        assert part.energies.sum() < 1e-4


def test_each_atom_has_half_of_its_pairs():
    atoms = Atoms("HOC", [[0, 0, 0], [0, 0, 0.5], [0, 1.1, 0.5]])
    part = contribution(atoms)
    one, other = contribution(atoms[[0, 1]]).energies.sum(), contribution(atoms[[1, 2]]).energies.sum()
    np.testing.assert_allclose(part.energies, [one / 2, (one + other) / 2, other / 2], rtol=1e-12)


def test_two_atoms_on_one_spot_are_named():
    with pytest.raises(StructureError, match="atoms 1 and 2 are on one spot"):
        contribution(Atoms("HOC", [[0, 0, 3], [1, 1, 1], [1, 1, 1]]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_calculators_satisfy_the_contract(make_calculator, dtype, ethanol, crystal):
    calculator = make_calculator({**SMALL, "prior": "zbl"}, dtype=dtype)
    ethanol.positions *= 0.9
    check_calculator(calculator, ethanol)
    check_calculator(calculator, crystal)


def surroundings():
    """Where two atoms meet: between others, and in a cell smaller than the cutoff."""
    return {
        "alone": Atoms(),
        "cluster": Atoms("OC", [[0, 2.1, 0.3], [1.9, -1.2, 0.5]]),
        "box": Atoms("O", [[1.6, 1.7, 1.8]], cell=[[3.0, 0, 0], [0.7, 3.2, 0], [0.4, -0.5, 3.6]], pbc=True),
    }


@pytest.mark.parametrize("place", ["alone", "cluster", "box"])
@pytest.mark.parametrize("engine", ["autograd", "compiled"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_energy_of_any_two_atoms_rises_without_end_as_they_meet(make_model, engine, dtype, place):
    """Down to 0.05 Å; the repulsion is that of the formula, the force minus its derivative.

    In float32 the sum is as exact relative to the repulsion, which is float64, as the network is to 1 eV.
    """
    (model,), (bare,) = with_and_without(make_model)
    calculator, network = (SchNetCalculator(m, engine=engine, dtype=dtype) for m in (model, bare))
    noise = FLOAT32_NETWORK if dtype == "float32" else 1e-9
    distances = np.array([0.2, 0.1, 0.07, 0.05])
    step = 1e-5
    others = surroundings()[place]
    for first, second in PAIRS:

        def atoms_at(r, first=first, second=second):
            atoms = Atoms([first, second], [[0, 0, 0], [0.6 * r, 0, 0.8 * r]]) + others
            atoms.set_cell(others.cell)
            atoms.pbc = others.pbc
            return atoms

        energies = np.array([calculator.get_potential_energy(atoms_at(r)) for r in distances])
        assert (np.diff(energies) > 0.0).all(), (first, second)
        assert np.isfinite(energies).all()
        expected = energy_by_hand(first, second, 0.05)
        atoms = atoms_at(0.05)
        energy = calculator.get_potential_energy(atoms) - network.get_potential_energy(atoms)
        assert energy == pytest.approx(expected, rel=1e-6, abs=noise)
        forces = calculator.get_forces(atoms)
        along = forces[0] @ [0.6, 0, 0.8]
        _, slope = repulsion(*pair_of(first, second), 0.05)
        part = along - network.get_forces(atoms)[0] @ [0.6, 0, 0.8]
        assert part == pytest.approx(slope, rel=1e-9, abs=noise)
        assert np.abs(forces.sum(axis=0)).max() <= 1e-9 * abs(along) + noise
        ahead, behind = (calculator.get_potential_energy(atoms_at(0.05 + s)) for s in (step, -step))
        # Moving the second atom away: the derivative is minus its force. Rounding of the energies over the step.
        assert (ahead - behind) / (2 * step) == pytest.approx(-(forces[1] @ [0.6, 0, 0.8]), rel=1e-6, abs=noise / step)


@pytest.mark.parametrize("engine", ["autograd", "compiled"])
def test_it_is_added_to_every_member(make_model, engine, ethanol):
    """Energies, forces and stress of members are theirs plus the term, and their spread is what it was."""
    ethanol.positions *= 0.85
    ethanol.set_cell([6.0, 6.5, 7.0])
    ethanol.pbc = True
    models, bare = with_and_without(make_model, seeds=range(3))
    ours, theirs = (SchNetEnsembleCalculator(m, engine=engine, dtype="float64") for m in (models, bare))
    for calculator in (ours, theirs):
        calculator.calculate(ethanol)
    part = contribution(ethanol)
    assert np.abs(part.forces).max() > 1.0
    for key, expected in (
        ("energy_ensemble", part.energies.sum()),
        ("energies", part.energies),
        ("forces_ensemble", part.forces),
        ("stress", part.virial.flat[[0, 4, 8, 5, 2, 1]] / ethanol.get_volume()),
    ):
        np.testing.assert_allclose(ours.results[key] - theirs.results[key], expected + 0 * ours.results[key], atol=1e-9)
    for key in ("energy_std", "forces_std", "stress_std", "forces_deviation"):
        np.testing.assert_allclose(ours.results[key], theirs.results[key], atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_share_it(make_model, dtype):
    """More atoms than a tile, for one thread and several."""
    atoms = bulk("C", a=2.9, cubic=True) * (3, 2, 2)
    atoms.rattle(0.05, seed=0)
    models, _ = with_and_without(make_model, seeds=range(2))
    exact = SchNetEnsembleCalculator(models, engine="autograd", dtype="float64")
    exact.calculate(atoms)
    bound = 1e-8 if dtype == "float64" else 1e-2
    for threads in (1, 2, 3):
        calculator = SchNetEnsembleCalculator(models, engine="compiled", dtype=dtype, threads=threads)
        for _ in range(2):  # with memory that an earlier call has used
            calculator.calculate(atoms)
        for key in ("energies", "forces_ensemble", "stress"):
            np.testing.assert_allclose(calculator.results[key], exact.results[key], rtol=1e-5, atol=bound)


def test_without_an_envelope(make_model):
    atoms = molecule("CH3OH")
    atoms.positions *= 0.8
    (model,), (bare,) = with_and_without(make_model, envelope="none")
    for engine in ("autograd", "compiled"):
        ours, theirs = (SchNetCalculator(m, engine=engine, dtype="float64") for m in (model, bare))
        difference = ours.get_potential_energy(atoms) - theirs.get_potential_energy(atoms)
        assert difference == pytest.approx(contribution(atoms).energies.sum(), rel=1e-9)
