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
from schnet_ase.priors.zbl import ZBL, reaches, repulsion, screenings
from schnet_ase.testing import check_calculator

ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")
PAIRS = list(itertools.combinations_with_replacement(ELEMENTS, 2))
SMALL = {"n_features": 8, "readout_features": 8, "n_rbf": 8}
FLOAT32_NETWORK = 1e-4
"""eV and eV/Å: rounding of these networks in float32, all that float32 adds to the repulsion, which is in float64."""


def pair_of(first, second):
    """Charges, screening and reach of a pair as `repulsion` takes them."""
    a, b = atomic_numbers[first], atomic_numbers[second]
    return a * b, screenings(100)[a] + screenings(100)[b], reaches(100)[a] + reaches(100)[b]


def energy_by_hand(first, second, r):
    """As LAMMPS documents `pair_style zbl`, with the switch of the module's docstring."""
    a, b = atomic_numbers[first], atomic_numbers[second]
    x = r * (a**0.23 + b**0.23) / 0.46850
    y = r / (0.8 * (covalent_radii[a] + covalent_radii[b]))
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
    for r in (0.05, 0.3, 0.45, 1.0, 1.5):
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
    for r, repels in ((0.799, True), (0.801, False)):
        part = contribution(Atoms("CO", [[0, 0, 0], [0, 0, r]]), cutoff=0.8)
        assert (part.energies.sum() > 0.0) == repels
        assert part.energies.sum() < 1e-4


def test_each_atom_has_half_of_its_pairs():
    atoms = Atoms("HOC", [[0, 0, 0], [0, 0, 0.5], [0, 1.0, 0.5]])
    part = contribution(atoms)
    one, other = contribution(atoms[[0, 1]]).energies.sum(), contribution(atoms[[1, 2]]).energies.sum()
    np.testing.assert_allclose(part.energies, [one / 2, (one + other) / 2, other / 2], rtol=1e-12)


def test_two_atoms_on_one_spot_are_named():
    with pytest.raises(StructureError, match="atoms 1 and 2 are on one spot"):
        contribution(Atoms("HOC", [[0, 0, 3], [1, 1, 1], [1, 1, 1]]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_calculators_satisfy_the_contract(make_calculator, dtype, ethanol, crystal):
    calculator = make_calculator({**SMALL, "prior": "zbl"}, dtype=dtype)
    ethanol.positions *= 0.7
    crystal.set_cell(0.6 * crystal.cell.array, scale_atoms=True)
    assert all(contribution(atoms).energies.sum() > 1.0 for atoms in (ethanol, crystal))
    check_calculator(calculator, ethanol)
    check_calculator(calculator, crystal)


DIRECTION = np.array([0.6, 0.0, 0.8])


def all_pairs_at(r, boxed):
    """All pairs of elements at a distance, each with two more atoms around it, too far apart to see each other.

    In the box, pairs lie across its faces.
    """
    places = 9.0 * np.array(list(np.ndindex(4, 3, 3)))[: len(PAIRS)]
    group = np.array([[0, 0, 0], r * DIRECTION, [0, 2.1, 0.3], [1.9, -1.2, 0.5]])
    symbols = [symbol for first, second in PAIRS for symbol in (first, second, "O", "C")]
    atoms = Atoms(symbols, (places[:, None] + group).reshape(-1, 3), cell=[36.0, 27.0, 27.0], pbc=boxed)
    if boxed:
        atoms.positions -= 0.4 * r * DIRECTION
        atoms.wrap()
    return atoms


@pytest.mark.parametrize("boxed", [False, True], ids=["cluster", "box"])
@pytest.mark.parametrize("engine", ["autograd", "compiled"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_energy_of_any_two_atoms_rises_without_end_as_they_meet(make_model, engine, dtype, boxed):
    """Down to 0.05 Å; the repulsion is that of the formula, the force minus its derivative.

    In float32 too the repulsion is float64: its error, relative to up to 80 keV, is the network's rounding.
    """
    (model,), (bare,) = with_and_without(make_model)
    calculator, network = (SchNetCalculator(m, engine=engine, dtype=dtype) for m in (model, bare))
    noise = FLOAT32_NETWORK if dtype == "float32" else 1e-9

    def evaluated(calculator, r):
        """Energy of each pair with its surroundings, and the forces of its second atom along the pair."""
        calculator.calculate(all_pairs_at(r, boxed))
        results = calculator.results
        return results["energies"].reshape(-1, 4).sum(axis=1), results["forces"][1::4] @ DIRECTION

    energies = np.array([evaluated(calculator, r)[0] for r in (0.2, 0.1, 0.07, 0.05)])
    assert (np.diff(energies, axis=0) > 0.0).all()
    step = 1e-5
    (energy, force), (bare_energy, bare_force) = (evaluated(c, 0.05) for c in (calculator, network))
    expected = [energy_by_hand(first, second, 0.05) for first, second in PAIRS]
    np.testing.assert_allclose(energy - bare_energy, expected, rtol=1e-6, atol=noise)
    slopes = [repulsion(*pair_of(first, second), 0.05)[1] for first, second in PAIRS]
    np.testing.assert_allclose(force - bare_force, -np.array(slopes), rtol=1e-9, atol=noise)
    ahead, behind = (evaluated(calculator, 0.05 + s)[0] for s in (step, -step))
    np.testing.assert_allclose((behind - ahead) / (2 * step), force, rtol=1e-6, atol=noise / step)


@pytest.mark.parametrize("engine", ["autograd", "compiled"])
def test_it_is_added_to_every_member(make_model, engine, ethanol):
    """Energies, forces and stress of members are theirs plus the term, and their spread is what it was."""
    ethanol.positions *= 0.7
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
    atoms = bulk("C", a=2.5, cubic=True) * (3, 2, 2)
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
    atoms.positions *= 0.7
    (model,), (bare,) = with_and_without(make_model, envelope="none")
    for engine in ("autograd", "compiled"):
        ours, theirs = (SchNetCalculator(m, engine=engine, dtype="float64") for m in (model, bare))
        difference = ours.get_potential_energy(atoms) - theirs.get_potential_energy(atoms)
        assert difference == pytest.approx(contribution(atoms).energies.sum(), rel=1e-9)
