"""Labels that cannot be trusted are refused in one line that names their frame."""

from __future__ import annotations

from pathlib import Path

import ase.db
import ase.io
import ase.io.jsonio
import numpy as np
import pytest
from ase import Atoms

from schnet_ase.data import read_dataset
from tests.support.trajectories import N_FRAMES, NUMBERS, checked, read_refused, refused, save_md17, save_rmd17


@pytest.mark.parametrize(
    "coords",
    [np.zeros((N_FRAMES, 2, 3)), np.zeros((N_FRAMES, 3, 2)), np.zeros((N_FRAMES, 9)), np.zeros((3, 3)), np.zeros(())],
    ids=lambda a: str(a.shape),
)
def test_npz_positions_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], coords: np.ndarray) -> None:
    message = read_refused(save_rmd17(tmp_path / "a.npz", arrays, coords=coords))
    assert "(frames, 3, 3)" in message
    assert str(coords.shape) in message


@pytest.mark.parametrize("shape", [(3, 3), (3, 1), ()], ids=str)
def test_npz_numbers_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    # As many frames as atoms, so that numbers repeated for every frame could pass for one molecule's.
    square = {name: a[:3] for name, a in arrays.items()}
    numbers = np.broadcast_to(NUMBERS if len(shape) == 2 and shape[1] == 3 else 1, shape)
    message = read_refused(save_rmd17(tmp_path / "a.npz", square, nuclear_charges=numbers))
    assert "nuclear_charges" in message


@pytest.mark.parametrize("shape", [(N_FRAMES, 2), (N_FRAMES, 3), (N_FRAMES, 0)], ids=str)
def test_npz_energies_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> None:
    assert "frame 0" in read_refused(save_rmd17(tmp_path / "a.npz", arrays, energies=np.ones(shape)))


@pytest.mark.parametrize("name", ["energies", "forces"])
@pytest.mark.parametrize("count", [0, N_FRAMES - 1, N_FRAMES + 1])
def test_npz_labels_of_another_number_of_frames(
    tmp_path: Path, arrays: dict[str, np.ndarray], name: str, count: int
) -> None:
    shape = (count, 3, 3) if name == "forces" else (count,)
    message = read_refused(save_rmd17(tmp_path / "a.npz", arrays, **{name: np.ones(shape)}))
    assert name in message
    assert f"frame {min(count, N_FRAMES)}" in message


@pytest.mark.parametrize(
    "shape", [(N_FRAMES,), (N_FRAMES, 3), (N_FRAMES, 9), (N_FRAMES, 3, 2), (N_FRAMES, 2, 3)], ids=str
)
def test_npz_forces_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays, forces=np.ones(shape))
    message = refused(file, lambda: checked(file))
    assert "frame 0" in message
    assert "expected (3, 3)" in message


@pytest.mark.parametrize("key", ["energy", "forces"])
def test_npz_without_labels(tmp_path: Path, arrays: dict[str, np.ndarray], key: str) -> None:
    file = save_md17(tmp_path / "a.npz", arrays, **{{"energy": "E", "forces": "F"}[key]: None})
    message = refused(file, lambda: checked(file))
    assert f"no frame has {'an energy' if key == 'energy' else 'forces'}" in message
    checked(file, energies=key != "energy", forces=key != "forces")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["coords", "energies", "forces"])
def test_npz_with_a_number_that_is_none(tmp_path: Path, arrays: dict[str, np.ndarray], name: str, bad: float) -> None:
    array = {"coords": arrays["R"], "energies": arrays["E"], "forces": arrays["F"]}[name]
    array[(2, 1, 0) if array.ndim == 3 else 2] = bad
    file = save_rmd17(tmp_path / "a.npz", arrays)
    assert "frame 2" in refused(file, lambda: checked(file))


def test_npz_with_a_frame_of_zero_forces(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["F"][3] = 0.0
    checked(save_rmd17(tmp_path / "a.npz", arrays))
    arrays["F"][:] = 0.0
    file = save_rmd17(tmp_path / "b.npz", arrays)
    assert "4 of 4 frames, frame 0 first, have forces that are all zero" in refused(file, lambda: checked(file))


def test_npz_with_all_energies_zero(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["E"][:] = 0.0
    file = save_rmd17(tmp_path / "a.npz", arrays)
    assert "frame 0" in refused(file, lambda: checked(file))


def test_npz_without_frames(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = save_rmd17(tmp_path / "a.npz", {name: a[:0] for name, a in arrays.items()})
    assert "no frames" in refused(file, lambda: checked(file))


def test_extxyz_frame_without_energy(tmp_path: Path, frames: list[Atoms]) -> None:
    del frames[2].calc.results["energy"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert checked(tmp_path / "a.extxyz").line("a.extxyz") == "a.extxyz: of 4 frames 1 lacks an energy"


def test_extxyz_frame_without_forces(tmp_path: Path, frames: list[Atoms]) -> None:
    del frames[2].calc.results["forces"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert checked(tmp_path / "a.extxyz").line("a.extxyz") == "a.extxyz: of 4 frames 1 lacks forces"


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_energies_that_are_not_one_number(tmp_path: Path, frames: list[Atoms], suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "extxyz":
        for k, atoms in enumerate(frames):
            atoms.info["REF"] = np.ones(2) if k == 1 else 1.0
        ase.io.write(file, frames)
    else:
        with ase.db.connect(file) as database:
            for k, atoms in enumerate(frames):
                database.write(atoms, data={"REF": np.ones(2) if k == 1 else 1.0})
    assert "frame 1" in refused(file, lambda: read_dataset(file, energy_key="REF"))


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_labels_that_are_words(tmp_path: Path, frames: list[Atoms], suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "extxyz":
        for atoms in frames:
            atoms.info["REF"] = "not converged"
        ase.io.write(file, frames)
    else:
        with ase.db.connect(file) as database:
            for atoms in frames:
                database.write(atoms, REF="not converged")
    refused(file, lambda: read_dataset(file, energy_key="REF"))


def test_db_forces_of_the_wrong_shape(tmp_path: Path, frames: list[Atoms]) -> None:
    file = tmp_path / "a.db"
    with ase.db.connect(file) as database:
        for k, atoms in enumerate(frames):
            forces = np.ones((2, 3)) if k == 1 else np.ones((3, 3))
            database.write(Atoms(atoms.numbers, atoms.positions), total_energy=-1.0, data={"atomic_forces": forces})
    message = refused(file, lambda: checked(file))
    assert "frame 1" in message
    assert "(2, 3)" in message
