"""The neighbour lists against every image within reach, one by one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matscipy.neighbours import neighbour_list

from schnet_ase.engine import cells, compiled_half_list
from schnet_ase.geometry.neighbors import (
    ALL_PAIRS_MAX_ATOMS,
    HalfNeighbors,
    Neighbors,
    all_pairs,
    half,
    half_neighbor_list,
    lone_atoms,
    neighbor_list,
)
from schnet_ase.geometry.system import Geometry
from tests.support.pairs import ALL_PBC, Pair, as_set, reference

TRICLINIC = np.array([[2.6, 0.0, 0.0], [0.8, 2.4, 0.0], [-0.5, 0.7, 2.9]])


def assert_list_is_reference(positions: np.ndarray, cell: np.ndarray, pbc: object, cutoff: float) -> Neighbors:
    with pytest.MonkeyPatch.context() as patch:
        # Small molecules are sent the way of large ones.
        patch.setattr("schnet_ase.geometry.neighbors.ALL_PAIRS_MAX_ATOMS", 0)
        neighbors = neighbor_list(positions, np.asarray(cell, dtype=float), np.array(pbc), cutoff)
        compiled = compiled_half_list(positions, np.asarray(cell, dtype=float), np.array(pbc), cutoff)
    near = reference(positions, cell, pbc, cutoff + 1e-9)
    # Rounding may decide about pairs that are at the cutoff to the last digits.
    surely = {pair for pair, distance in near.items() if distance < cutoff - 1e-9}
    for listed in (as_set(neighbors), both_directions(compiled)):
        assert surely <= listed <= set(near)
    assert (np.diff(neighbors.i) >= 0).all()
    assert (np.diff(compiled.first) >= 0).all()
    return neighbors


def random_positions(n: int, seed: int, size: float = 6.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-size / 2, size / 2, (n, 3))


@pytest.mark.parametrize("pbc", ALL_PBC)
@pytest.mark.parametrize("cutoff", [2.0, 5.0], ids=["cutoff below the cell", "several images"])
def test_triclinic_cell_with_any_periodicity(pbc: tuple[bool, bool, bool], cutoff: float) -> None:
    assert_list_is_reference(random_positions(5, seed=1), TRICLINIC, pbc, cutoff)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_left_handed_cell(pbc: tuple[bool, bool, bool]) -> None:
    assert np.linalg.det(TRICLINIC[[1, 0, 2]]) < 0
    assert_list_is_reference(random_positions(4, seed=2), TRICLINIC[[1, 0, 2]], pbc, 3.5)


@settings(max_examples=100, deadline=None)
@given(
    positions=arrays(float, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-4.0, 4.0)),
    lengths=st.tuples(*[st.floats(1.5, 6.0)] * 3),
    slants=st.tuples(*[st.floats(-1.0, 1.0)] * 3),
    pbc=st.tuples(*[st.booleans()] * 3),
    cutoff=st.floats(0.5, 3.5),
)
def test_any_atoms_in_any_cell(
    positions: np.ndarray,
    lengths: tuple[float, float, float],
    slants: tuple[float, float, float],
    pbc: tuple[bool, bool, bool],
    cutoff: float,
) -> None:
    cell = np.diag(lengths)
    cell[[1, 2, 2], [0, 0, 1]] = slants
    assert_list_is_reference(positions, cell, pbc, cutoff)


@settings(max_examples=50, deadline=None)
@given(
    half_steps=arrays(int, st.tuples(st.integers(1, 4), st.just(3)), elements=st.integers(-5, 5)),
    nudge=st.sampled_from([0.0, 1e-17, -1e-17, 1e-15, -1e-15]),
    pbc=st.tuples(*[st.booleans()] * 3),
)
def test_atoms_on_faces_edges_and_corners_of_the_cell(
    half_steps: np.ndarray, nudge: float, pbc: tuple[bool, bool, bool]
) -> None:
    assert_list_is_reference(0.5 * half_steps @ TRICLINIC + nudge, TRICLINIC, pbc, 2.2)


@pytest.mark.parametrize("pbc", [pbc for pbc in ALL_PBC if any(pbc)])
def test_atoms_far_outside_the_box(pbc: tuple[bool, bool, bool]) -> None:
    # Moving atoms by lattice vectors changes the images and nothing else.
    positions = random_positions(4, seed=3, size=2.0)
    home = assert_list_is_reference(positions, TRICLINIC, pbc, 3.0)
    moves = np.random.default_rng(4).integers(-10_000, 10_000, (4, 3)) * pbc
    away = neighbor_list(positions + moves @ TRICLINIC, TRICLINIC, np.array(pbc), 3.0)
    expected = {(i, j, *(S + moves[i] - moves[j]).tolist()) for i, j, S in zip(*home, strict=True)}
    assert as_set(away) == {tuple(map(int, pair)) for pair in expected}


def test_molecule_far_from_the_origin() -> None:
    positions = random_positions(6, seed=5)
    far = assert_list_is_reference(positions + 1e5, np.zeros((3, 3)), (False,) * 3, 3.0)
    assert as_set(far) == as_set(assert_list_is_reference(positions, np.zeros((3, 3)), (False,) * 3, 3.0))


def test_one_atom_has_no_pair() -> None:
    assert len(neighbor_list(np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool), 5.0).i) == 0
    assert_list_is_reference(np.zeros((1, 3)), np.zeros((3, 3)), (False,) * 3, 5.0)


def test_one_atom_sees_its_images() -> None:
    # Simple cubic: 6 images at a, 12 at sqrt(2) a, 8 at sqrt(3) a.
    neighbors = assert_list_is_reference(np.zeros((1, 3)), 2.0 * np.eye(3), (True,) * 3, 2.0 * np.sqrt(3) + 0.1)
    assert len(neighbors.i) == 6 + 12 + 8
    assert len(half(neighbors).first) == 3 + 6 + 4


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_no_pair_within_the_cutoff(pbc: tuple[bool, bool, bool]) -> None:
    positions = np.array([[0.0, 0.0, 0.0], [7.0, 7.0, 7.0]])
    assert len(assert_list_is_reference(positions, 15.0 * np.eye(3), pbc, 3.0).i) == 0


def test_large_molecule_without_a_cell() -> None:
    positions = random_positions(ALL_PAIRS_MAX_ATOMS + 20, seed=6, size=12.0)
    neighbors = assert_list_is_reference(positions, np.zeros((3, 3)), (False,) * 3, 3.0)
    assert len(neighbors.i) < len(all_pairs(len(positions)).i)


@pytest.mark.parametrize("far", [30.0, 1e4, 1e8])
@pytest.mark.parametrize("axes", [[0], [0, 2], [0, 1, 2]], ids=["one axis", "two", "three"])
def test_parts_of_a_molecule_far_from_each_other(far: float, axes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same list; and no more is searched than if they were two cutoffs apart, or one lost atom took gigabytes."""
    edges = []

    def search(*args: object, cell: np.ndarray, **options: object) -> object:
        edges.append(np.linalg.norm(cell, axis=1).max())
        return neighbour_list(*args, cell=cell, **options)

    monkeypatch.setattr("schnet_ase.geometry.neighbors.matscipy_neighbour_list", search)
    positions = random_positions(ALL_PAIRS_MAX_ATOMS + 20, seed=6, size=8.0)
    positions[40:60, axes] += far
    positions[60, axes] -= 2.0 * far
    assert_list_is_reference(positions, np.zeros((3, 3)), (False,) * 3, 3.0)
    # Three parts no wider than 8 Å, two gaps of two cutoffs, and a cutoff of margin at each end.
    assert edges
    assert max(edges) <= 3 * 8.0 + 2 * 6.0 + 2 * 3.0


@pytest.mark.parametrize("axes", [[0], [1], [0, 2], [0, 1, 2]], ids=["plane", "plane", "line", "point-like"])
def test_flat_straight_and_tiny_molecules_without_a_cell(axes: list[int]) -> None:
    positions = random_positions(ALL_PAIRS_MAX_ATOMS + 6, seed=7, size=12.0)
    positions[:, axes] *= 1e-6
    assert_list_is_reference(positions, np.zeros((3, 3)), (False,) * 3, 3.0)


def test_vectors_of_directions_that_are_not_periodic_are_ignored() -> None:
    positions = random_positions(5, seed=8)
    pbc = (True, False, True)
    expected = as_set(assert_list_is_reference(positions, TRICLINIC, pbc, 3.0))
    for vector in ([0.0, 0.0, 0.0], TRICLINIC[0], [0.0, 1e3, 0.0]):
        cell = TRICLINIC.copy()
        cell[1] = vector
        assert as_set(assert_list_is_reference(positions, cell, pbc, 3.0)) == expected


def test_small_molecule_gets_all_pairs_whatever_the_cutoff() -> None:
    positions = random_positions(ALL_PAIRS_MAX_ATOMS, seed=9, size=50.0)
    neighbors = neighbor_list(positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 1.0)
    everything = {(i, j, 0, 0, 0) for i, j in itertools.permutations(range(len(positions)), 2)}
    assert as_set(neighbors) == everything
    assert (np.diff(neighbors.i) >= 0).all()


def test_without_a_cutoff_a_large_molecule_gets_all_pairs() -> None:
    n = ALL_PAIRS_MAX_ATOMS + 1
    neighbors = neighbor_list(random_positions(n, seed=10), np.zeros((3, 3)), np.zeros(3, dtype=bool), None)
    assert as_set(neighbors) == {(i, j, 0, 0, 0) for i, j in itertools.permutations(range(n), 2)}


def test_periodic_system_without_a_cutoff_is_refused() -> None:
    with pytest.raises(ValueError, match="without an envelope"):
        neighbor_list(np.zeros((1, 3)), np.eye(3), np.array([False, True, False]), None)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.ones((3, 3)), np.diag([3.0, 3.0, 0.0])])
def test_periodic_cell_without_a_volume_is_refused(cell: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not span a volume"):
        neighbor_list(np.zeros((1, 3)), cell, np.ones(3, dtype=bool), 3.0)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_half_list_has_each_pair_once(pbc: tuple[bool, bool, bool]) -> None:
    neighbors = assert_list_is_reference(random_positions(4, seed=11, size=3.0), TRICLINIC, pbc, 4.5)
    assert_each_pair_once(half(neighbors), neighbors)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_half_list_of_atoms_outside_the_cell(pbc: tuple[bool, bool, bool]) -> None:
    positions = random_positions(7, seed=12, size=12.0) - 4.0
    pairs = half_neighbor_list(positions, TRICLINIC, np.array(pbc), 4.5)
    assert np.all(np.diff(pairs.first) >= 0)
    assert_each_pair_once(pairs, neighbor_list(positions, TRICLINIC, np.array(pbc), 4.5))


@pytest.mark.parametrize("sizes", [(400.0,) * 3, (40.0, 40.0, 4e4)], ids=["three directions", "one"])
def test_a_box_that_is_mostly_empty_has_no_more_cells_than_atoms_need(sizes, monkeypatch) -> None:
    positions = np.random.default_rng(13).random((100, 3)) * sizes
    positions[50:] = positions[:50] + 0.5  # so that there are pairs, more than of atoms that are spread evenly
    counts = []

    def find_near(*arguments):
        counts.append((math.prod(arguments[4]), len(arguments[-1])))
        return cells.find_near(*arguments)

    monkeypatch.setattr("schnet_ase.engine.search.find_near", find_near)
    arguments = positions, np.diag(sizes), np.ones(3, dtype=bool), 2.0
    assert_each_pair_once(compiled_half_list(*arguments), neighbor_list(*arguments))
    assert len(counts) == 2, "the first time there was no room for all pairs"
    assert counts[0][0] <= 8 * 100
    assert counts[0][1] < counts[1][1]


def assert_each_pair_once(pairs: HalfNeighbors, neighbors: Neighbors) -> None:
    assert both_directions(pairs) == as_set(neighbors)


def both_directions(pairs: HalfNeighbors) -> set[Pair]:
    once = as_set(pairs)
    reverse = {(j, i, -a, -b, -c) for i, j, a, b, c in once}
    assert not once & reverse, "a pair is listed both ways"
    return once | reverse


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("n_atoms", [3, 100])
def test_lone_atoms(n_atoms, periodic):
    rng = np.random.default_rng(n_atoms)
    cell = np.array([[12.0, 0.0, 0.0], [5.0, 11.0, 0.0], [-3.0, 2.0, 13.0]])
    positions = rng.uniform(0.0, 0.3 if n_atoms == 3 else 1.0, (n_atoms, 3)) @ cell
    pbc = np.full(3, periodic)
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ cell if periodic else np.zeros((1, 3))
    vectors = positions[:, None, None] - positions[None, :, None] + shifts
    distances = np.linalg.norm(vectors, axis=-1)
    distances[distances == 0.0] = np.inf
    nearest = distances.min(axis=(1, 2))
    cutoff = 1.01 * float(np.median(nearest))
    pairs = half_neighbor_list(positions, cell, pbc, 1.2 * cutoff)
    found = lone_atoms(Geometry(np.ones(n_atoms, dtype=np.int64), positions, cell, pbc), pairs, cutoff)
    np.testing.assert_array_equal(found, np.flatnonzero(nearest >= cutoff))
    one = Geometry(np.ones(1, dtype=np.int64), positions[:1], cell, pbc)
    assert not len(lone_atoms(one, half_neighbor_list(*one[1:], 1.0), 1.0))
