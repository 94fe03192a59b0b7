"""Frames that nothing should be fitted to are refused, with the number of the frame."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from schnet_ase.data import Dataset, Frame
from schnet_ase.data.labels.checks import Missing, check_frames
from schnet_ase.errors import DataError
from schnet_ase.geometry.system import Geometry


def geometry(n_atoms: int = 3) -> Geometry:
    positions = np.arange(3.0 * n_atoms).reshape(n_atoms, 3)
    return Geometry(np.full(n_atoms, 8), positions, np.zeros((3, 3)), np.zeros(3, dtype=bool))


def frame(n_atoms: int = 3) -> Frame:
    return Frame(geometry(n_atoms), -5.0, np.ones((n_atoms, 3)))


def check(bad: Frame, *, energies: bool = True, forces: bool = True) -> str:
    """Put a bad frame among good ones, fourth of six; the line it is refused with."""
    with pytest.raises(DataError) as caught:
        check_frames([*[frame()] * 3, bad, frame(), bad], "data.xyz", energies=energies, forces=forces)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("data.xyz: frame 3 "), message
    return message


def test_good_frames_pass() -> None:
    check_frames([frame(), frame(1), frame(7)], "data.xyz", energies=True, forces=True)


def test_no_frames() -> None:
    with pytest.raises(DataError, match=r"data\.xyz: no frames"):
        check_frames([], "data.xyz", energies=True, forces=True)


def test_no_atoms() -> None:
    assert "no atoms" in check(frame(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("needed", [True, False])
def test_positions_that_are_not_numbers(value: float, needed: bool) -> None:
    bad = frame()
    bad.geometry.positions[1, 2] = value
    assert "positions" in check(bad, energies=needed, forces=needed)


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (3, 2), (9,)], ids=str)
def test_positions_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    bad = Frame(geometry()._replace(positions=np.ones(shape)), -5.0, np.ones((3, 3)))
    assert "positions" in check(bad)


def test_labels_that_some_frames_lack_are_counted() -> None:
    """A single atom's force is zero, and only a periodic frame can have a stress."""
    crystal = frame()._replace(geometry=geometry()._replace(cell=9.0 * np.eye(3), pbc=np.ones(3, dtype=bool)))
    frames = [
        frame(),
        frame()._replace(energy=None),
        frame()._replace(forces=None),
        frame()._replace(energy=None, forces=None),
        frame(1)._replace(forces=None),
        crystal,
        crystal._replace(stress=np.ones(6)),
    ]
    missing = check_frames(frames, "data.xyz", energies=True, forces=True, stress=True)
    assert missing == Missing(n_frames=7, energy=2, forces=2, stress=1, unlabelled=1)
    assert missing.line("data.xyz") == (
        "data.xyz: of 7 frames 2 lack an energy, 2 lack forces, 1 lacks a stress; "
        "1 has no label that is needed and counts for nothing"
    )
    assert check_frames(frames, "data.xyz", energies=True, forces=False) == Missing(7, 2, 0, 0, 2)
    assert not check_frames([frame(), frame(1)._replace(forces=None)], "a", energies=True, forces=True).line("a")


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"energy": None}, "no frame has an energy; the file holds info['REF'], F; name the label with energy_key"),
        ({"forces": None}, "no frame has forces; the file holds info['REF'], F; name the label with forces_key"),
    ],
)
def test_a_label_that_no_frame_has(lacking: dict[str, None], message: str) -> None:
    frames = [frame()._replace(**lacking), frame(1)._replace(**lacking)]
    with pytest.raises(DataError) as caught:
        check_frames(frames, "data.xyz", energies=True, forces=True, keys=("info['REF']", "F"))
    assert str(caught.value).startswith(f"data.xyz: {message}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_energy_that_is_not_a_number(value: float) -> None:
    assert str(value) in check(frame()._replace(energy=value))


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (4, 3), (9,), (3,), (), (1, 3, 3)], ids=str)
def test_forces_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    message = check(frame()._replace(forces=np.ones(shape)))
    assert str(shape) in message
    assert "(3, 3)" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_forces_that_are_not_numbers(value: float) -> None:
    forces = np.ones((3, 3))
    forces[2, 0] = value
    assert "forces" in check(frame()._replace(forces=forces))


def zero_forces(atoms: Atoms) -> Frame:
    geometry = Geometry(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    return Frame(geometry, -1.0, np.zeros((len(atoms), 3)))


def test_forces_that_are_zero_in_all_frames_of_molecules() -> None:
    """Atoms that pull each other are never all at rest to the last digit."""
    zero = [zero_forces(molecule(name)) for name in ("H2O", "CH4", "C2H6")]
    with pytest.raises(DataError, match="3 of 3 frames, frame 1 first, have forces that are all zero"):
        check_frames([frame(1)._replace(forces=np.zeros((1, 3))), *zero], "data.xyz", energies=True, forces=True)
    check_frames([*zero, frame()], "data.xyz", energies=True, forces=True)


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Cu", cubic=True),
        bulk("Cu", cubic=True) * (2, 2, 1),
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("He", "fcc", a=4.2),
        bulk("Si", "diamond", a=5.43),
        bulk("Mg"),
        Atoms("Ar2", [[0, 0, 0], [0, 0, 9.0]]),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [0.0, 1e-15])
def test_forces_that_are_zero_by_symmetry_or_out_of_reach(atoms: Atoms, size: float) -> None:
    frames = []
    for strain in np.linspace(0.98, 1.05, 6):
        strained = atoms.copy()
        strained.set_cell(atoms.cell * strain, scale_atoms=True)
        frame = zero_forces(strained)
        frames.append(frame._replace(forces=np.full_like(frame.geometry.positions, size)))
    check_frames(frames, "data.xyz", energies=True, forces=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stress_that_is_no_number(value: float) -> None:
    stress = np.ones(6)
    stress[4] = value
    bad = frame()._replace(stress=stress)
    with pytest.raises(DataError, match="frame 1 has NaN or infinite numbers in its stress"):
        check_frames([frame(), bad], "data.xyz", energies=True, forces=True, stress=True)
    check_frames([frame(), bad], "data.xyz", energies=True, forces=True)


def test_stress_of_the_wrong_shape_or_zero_everywhere() -> None:
    with pytest.raises(DataError, match=r"frame 0 has a stress of shape \(3, 3\); expected \(6,\)"):
        check_frames([frame()._replace(stress=np.ones((3, 3)))], "a", energies=True, forces=True, stress=True)
    with pytest.raises(DataError, match="2 frames have a stress, and all are zero"):
        check_frames([frame()._replace(stress=np.zeros(6))] * 2, "a", energies=True, forces=True, stress=True)


def test_one_force_that_is_not_zero_is_enough() -> None:
    forces = np.zeros((3, 3))
    forces[1, 1] = 1e-12
    check_frames([frame()._replace(forces=forces)], "data.xyz", energies=True, forces=True)


def test_an_isolated_atom_feels_no_force() -> None:
    check_frames([frame(1)._replace(forces=np.zeros((1, 3)))], "data.xyz", energies=True, forces=True)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_energies_that_are_all_zero(zero: float) -> None:
    with pytest.raises(DataError, match=r"data\.xyz: frame 0 .*energy zero") as caught:
        check_frames([frame()._replace(energy=zero)] * 3, "data.xyz", energies=True, forces=True)
    assert len(str(caught.value).splitlines()) == 1


def test_one_energy_may_be_zero() -> None:
    # Energies may be relative to one frame's.
    check_frames([frame()._replace(energy=0.0), frame()], "data.xyz", energies=True, forces=True)


@pytest.mark.parametrize("energy", [None, np.nan, 0.0])
def test_energies_that_are_not_needed_may_be_bad(energy: float | None) -> None:
    check_frames([frame()._replace(energy=energy)] * 2, "data.xyz", energies=False, forces=True)


@pytest.mark.parametrize("forces", [None, np.zeros((3, 3)), np.full((3, 3), np.nan), np.ones(2)], ids=repr)
def test_forces_that_are_not_needed_may_be_bad(forces: np.ndarray | None) -> None:
    check_frames([frame()._replace(forces=forces)] * 2, "data.xyz", energies=True, forces=False)


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), bulk("Cu")], ids=["ethanol", "copper"])
def test_frame_to_atoms(atoms: Atoms) -> None:
    numbers, positions, cell, pbc = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    made = Frame(Geometry(numbers, positions, cell, pbc), -5.0, None).atoms()
    assert made == atoms
    made.positions += 1.0
    assert not np.shares_memory(made.positions, positions)


def test_elements_of_a_dataset() -> None:
    mixed = geometry()._replace(numbers=np.array([17, 1, 6]))
    dataset = Dataset([frame(), frame()._replace(geometry=mixed)], "data.xyz", "00" * 32, "Å, eV, eV/Å")
    assert dataset.elements == (1, 6, 8, 17)
    assert all(type(z) is int for z in dataset.elements)
