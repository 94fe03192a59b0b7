"""Published files, where they are here: labels in the right units."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import units

from schnet_ase.data import Dataset, read_dataset
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.errors import DataError
from tests.support.paths import DATA
from tests.support.trajectories import labels


def real(name: str, **options: str) -> Dataset:
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"the data are not there: {file.relative_to(DATA.parents[1])}")
    return read_dataset(file, **options)


def energies_of(dataset: Dataset) -> np.ndarray:
    return np.array([f.energy for f in dataset.frames])


def isolated(dataset: Dataset) -> dict[int, float]:
    energies = {}
    for frame in dataset.frames:
        assert frame.energy is not None
        energies[int(frame.geometry.numbers[0])] = frame.energy
    return energies


def imbalance(vectors: np.ndarray) -> float:
    """How far vectors (N, 3) are from cancelling, between 0 and 1."""
    return float(np.linalg.norm(vectors.sum(axis=0)) / np.linalg.norm(vectors, axis=1).sum())


def torques(positions: np.ndarray, forces: np.ndarray | None) -> np.ndarray:
    """The (N, 3) torques of the atoms about their centre."""
    assert forces is not None
    return np.cross(positions - positions.mean(axis=0), forces)


def assert_forces_of_molecules(dataset: Dataset) -> None:
    """In vacuum neither net force nor torque; a wrong order of frames or atoms would show as a torque."""
    previous = dataset.frames[-1].geometry.positions
    mispaired = []
    for frame in dataset.frames:
        assert frame.forces is not None
        assert imbalance(frame.forces) < 1e-6
        assert imbalance(torques(frame.geometry.positions, frame.forces)) < 1e-3
        mispaired.append(imbalance(torques(previous, frame.forces)))
        previous = frame.geometry.positions
    assert min(mispaired) > 1e-3, "the check would not notice"
    assert 0.5 < rms_force(dataset) < 2.0


def rms_force(dataset: Dataset) -> float:
    return float(np.sqrt(np.mean([np.square(f.forces).mean() for f in dataset.frames if f.forces is not None])))


def test_rmd17_ethanol() -> None:
    dataset = real("rmd17/rmd17_ethanol_train_01.npz")
    assert len(dataset.frames) == 1000
    assert dataset.elements == (1, 6, 8)
    assert "kcal/mol" in dataset.units
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert all(len(f.geometry.numbers) == 9 and not f.geometry.pbc.any() for f in dataset.frames)
    assert_forces_of_molecules(dataset)
    # At 500 K the 21 vibrations of a harmonic molecule hold 21/2 kT of potential energy.
    energies = energies_of(dataset)
    thermal = 21 / 2 * units.kB * 500
    assert 0.5 * thermal < energies.mean() - energies.min() < 2 * thermal


def test_rmd17_ethanol_against_the_same_level_in_ev() -> None:
    # The scan of a normal mode is in eV at rMD17's level of theory and passes through the minimum.
    minimum = energies_of(real("ethanol/test_norm_mode_874.xyz")).min()
    above = energies_of(real("rmd17/rmd17_ethanol_train_01.npz")) - minimum
    assert above.min() > 0
    # Other calories or constants, by 1e-4 only, would show as 0.4 eV.
    thermal = 21 / 2 * units.kB * 500
    assert thermal < above.mean() < 2 * thermal


def test_rmd17_old_labels() -> None:
    name = "rmd17/rmd17_ethanol_train_01.npz"
    new, old = real(name), real(name, energy_key="old_energies", forces_key="old_forces")
    check_frames(old.frames, old.source, energies=True, forces=True)
    # PBE either way, with another basis and dispersion: alike frame by frame, and unlike any other frame.
    for a, b in zip(labels(new), labels(old), strict=True):
        assert (a != b).all()
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
        assert abs(np.corrcoef(a.ravel(), np.roll(b, 1, axis=0).ravel())[0, 1]) < 0.2


def test_ethanol_scan_has_no_forces() -> None:
    dataset = real("ethanol/test_norm_mode_874.xyz")
    check_frames(dataset.frames, dataset.source, energies=True, forces=False)
    with pytest.raises(DataError, match="no frame has forces"):
        check_frames(dataset.frames, dataset.source, energies=False, forces=True)


@pytest.mark.parametrize(
    ("name", "atoms_name", "n_frames", "elements", "n_atoms"),
    [
        ("3bpa/train_300K.xyz", "3bpa/iso_atoms.xyz", 500, (1, 6, 7, 8), 27),
        ("acac/train_300K.xyz", "acac/isolated_atoms.xyz", 500, (1, 6, 8), 15),
    ],
)
def test_molecules_of_botnet(
    name: str, atoms_name: str, n_frames: int, elements: tuple[int, ...], n_atoms: int
) -> None:
    dataset = real(name)
    assert len(dataset.frames) == n_frames
    assert dataset.elements == elements
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert all(len(f.geometry.numbers) == n_atoms and not f.geometry.pbc.any() for f in dataset.frames)
    assert_forces_of_molecules(dataset)
    energies = energies_of(dataset)
    thermal = (3 * n_atoms - 6) / 2 * units.kB * 300
    assert 0.25 * thermal < energies.mean() - energies.min() < 2 * thermal
    # Bound by a few eV an atom with respect to free atoms.
    free = isolated(real(atoms_name))
    for frame in dataset.frames:
        assert frame.energy is not None
        binding = frame.energy - sum(free[int(z)] for z in frame.geometry.numbers)
        assert -8.0 < binding / n_atoms < -3.0


def test_isolated_atoms() -> None:
    dataset = real("acac/isolated_atoms.xyz")
    check_frames(dataset.frames, dataset.source, energies=True, forces=False)
    free = isolated(dataset)
    assert sorted(free) == [1, 6, 8]
    assert free[1] == pytest.approx(-units.Rydberg, rel=0.02)  # hydrogen is known exactly


def test_water(tmp_path: Path) -> None:
    source = DATA / "water" / "water_192_pbe0ts.extxyz.gz"
    if not source.is_file():
        pytest.skip("the data are not there: shared/data/water")
    n_frames, n_atoms = 8, 192
    with gzip.open(source, "rb") as stream:  # all 320 frames take long
        part = b"".join(itertools.islice(stream, n_frames * (n_atoms + 2)))
    (tmp_path / "water.extxyz.gz").write_bytes(gzip.compress(part))
    dataset = read_dataset(tmp_path / "water.extxyz.gz")
    assert len(dataset.frames) == n_frames
    assert dataset.elements == (1, 8)
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert 0.5 < rms_force(dataset) < 2.0
    assert np.ptp(energies_of(dataset)) < 10.0
    # The eight valence electrons of water, which is what pseudopotentials leave, hold -17.2 Hartree.
    assert energies_of(dataset).mean() / 64 == pytest.approx(-17.2 * units.Hartree, rel=0.01)
    for frame in dataset.frames:
        assert frame.geometry.pbc.all()
        volume = abs(np.linalg.det(frame.geometry.cell))
        density = 64 * 18.015 / (units._Nav * 1e-24) / volume  # g/cm³
        assert 0.9 < density < 1.1
        assert frame.forces is not None
        assert imbalance(frame.forces) < 1e-2
