"""The cache of neighbour lists against the list."""

import numpy as np
import pytest
from ase.build import molecule

from schnet_ase.geometry.neighbors import (
    HalfNeighbors,
    NeighborCache,
)
from schnet_ase.geometry.system import Geometry
from tests.support.pairs import ALL_PBC, as_set, reference

# --- the cache ----------------------------------------------------------------------------------------------------

CUTOFF, SKIN = 3.0, 1.0


def periodic_geometry(seed: int = 0, n: int = 12) -> Geometry:
    cell = np.array([[6.0, 0.0, 0.0], [1.0, 5.5, 0.0], [0.5, -0.7, 6.5]])
    positions = np.random.default_rng(seed).random((n, 3)) @ cell
    return Geometry(np.full(n, 6), positions, cell, np.ones(3, dtype=bool))


def moved(geometry: Geometry, atom: int, distance: float) -> Geometry:
    positions = geometry.positions.copy()
    positions[atom] += distance * np.array([2.0, -1.0, 2.0]) / 3.0
    return geometry._replace(positions=positions)


def assert_no_pair_is_missed(pairs: HalfNeighbors, geometry: Geometry) -> None:
    listed = as_set(pairs)
    near = reference(geometry.positions, geometry.cell, geometry.pbc, CUTOFF)
    missed = [(i, j, *S) for i, j, *S in near if not {(i, j, *S), (j, i, *(-s for s in S))} & listed]
    assert not missed


def test_an_interrupted_list_is_not_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, first = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    expected = cache.get(first)
    second = first._replace(positions=first.positions + 10.0 * np.arange(len(first.numbers))[:, None])

    def interrupt(geometry: Geometry) -> Geometry:
        raise KeyboardInterrupt

    monkeypatch.setattr(Geometry, "copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.get(second)
    monkeypatch.undo()
    for ours, theirs in zip(cache.get(first), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_small_moves_keep_the_list() -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    first = cache.get(geometry)
    for atom in range(len(geometry.numbers)):
        geometry = moved(geometry, atom, 0.499 * SKIN)
        assert cache.get(geometry) is first
        assert_no_pair_is_missed(first, geometry)
    assert cache.builds == 1


def test_a_move_of_more_than_half_the_skin_makes_a_new_list() -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    cache.get(geometry)
    cache.get(moved(geometry, 3, 0.501 * SKIN))
    assert cache.builds == 2


def test_moves_count_from_where_the_list_was_made() -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    for _ in range(4):  # 0, 0.2, 0.4, 0.6 skins away
        cache.get(geometry)
        geometry = moved(geometry, 3, 0.2 * SKIN)
    assert cache.builds == 2


@pytest.mark.parametrize(
    "change",
    [
        {"cell": periodic_geometry().cell * 1.0001},
        {"pbc": np.array([True, True, False])},
        {"numbers": np.full(12, 8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_system_makes_a_new_list(change: dict[str, np.ndarray]) -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    cache.get(geometry)
    other = geometry._replace(**change)
    assert_no_pair_is_missed(cache.get(other), other)
    assert cache.builds == 2


def test_fewer_atoms_make_a_new_list() -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()
    cache.get(geometry)
    fewer = geometry._replace(numbers=geometry.numbers[:5], positions=geometry.positions[:5])
    assert_no_pair_is_missed(cache.get(fewer), fewer)
    assert cache.builds == 2


def test_without_a_skin_every_move_makes_a_new_list() -> None:
    cache, geometry = NeighborCache(CUTOFF, 0.0), periodic_geometry()
    cache.get(geometry)
    cache.get(geometry)
    assert cache.builds == 1
    cache.get(moved(geometry, 0, 1e-6))
    assert cache.builds == 2


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_never_a_missed_pair_along_a_random_walk(pbc: tuple[bool, bool, bool]) -> None:
    cache, geometry = NeighborCache(CUTOFF, SKIN), periodic_geometry()._replace(pbc=np.array(pbc))
    rng = np.random.default_rng(12)
    steps = 30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schnet_ase.geometry.neighbors.ALL_PAIRS_MAX_ATOMS", 0)
        for _ in range(steps):
            geometry = geometry._replace(positions=geometry.positions + rng.normal(0.0, 0.06, (12, 3)))
            assert_no_pair_is_missed(cache.get(geometry), geometry)
    assert 1 < cache.builds < steps / 2


def test_list_of_a_small_molecule_never_goes_stale() -> None:
    atoms = molecule("CH3CH2OH")
    cache = NeighborCache(CUTOFF, SKIN)
    for scale in (1.0, 3.0, 0.5):
        geometry = Geometry(atoms.numbers, scale * atoms.positions, np.zeros((3, 3)), np.zeros(3, dtype=bool))
        assert_no_pair_is_missed(cache.get(geometry), geometry)
    assert cache.builds == 1


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_cache_rejects_skin(skin: float) -> None:
    with pytest.raises(ValueError, match="skin"):
        NeighborCache(CUTOFF, skin)
