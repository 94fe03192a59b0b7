"""DeePMD-kit's folders, as dpdata writes them and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from schnet_ase.data import read_dataset, stored_dataset
from schnet_ase.errors import DataError


def copper(n_frames: int, seed: int = 0) -> list[Atoms]:
    """Strained and rattled, with what EMT says of them."""
    frames = []
    for k in range(n_frames):
        atoms = bulk("Cu", cubic=True)
        atoms[0].symbol = "Au"
        atoms.set_cell(atoms.cell.array * (1.0 + 0.01 * k) + 0.1 * np.tri(3, k=-1), scale_atoms=True)
        atoms.rattle(0.1, seed=seed + k)
        atoms.calc = EMT()
        frames.append(atoms)
    return frames


def system(frames: list[Atoms]) -> dpdata.LabeledSystem:
    """What dpdata makes of ASE's atoms."""
    whole = dpdata.LabeledSystem(frames[0], fmt="ase/structure")
    for atoms in frames[1:]:
        whole.append(dpdata.LabeledSystem(atoms, fmt="ase/structure"))
    return whole


def assert_read(path: Path, frames: list[Atoms]) -> None:
    """Energy, forces and stress are those of ASE's calculator, whatever the order that dpdata gives the atoms."""
    dataset = read_dataset(path)
    assert len(dataset.frames) == len(frames)
    for frame, atoms in zip(dataset.frames, frames, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        order = np.argsort(atoms.numbers, kind="stable")
        here = np.argsort(frame.geometry.numbers, kind="stable")
        np.testing.assert_array_equal(frame.geometry.numbers[here], atoms.numbers[order])
        np.testing.assert_allclose(frame.forces[here], atoms.get_forces()[order], atol=1e-5)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(), atol=1e-6)
        assert abs(np.linalg.det(frame.geometry.cell)) == pytest.approx(atoms.get_volume(), rel=1e-5)
        assert frame.geometry.pbc.all()


@pytest.mark.parametrize("fmt", ["deepmd/npy", "deepmd/raw"])
def test_a_system_that_dpdata_wrote(tmp_path: Path, fmt: str) -> None:
    frames = copper(5)
    options: dict[str, Any] = {"set_size": 2} if fmt == "deepmd/npy" else {}
    system(frames).to(fmt, str(tmp_path / "system"), **options)
    assert_read(tmp_path / "system", frames)
    assert len(list((tmp_path / "system").glob("set.*"))) == (3 if options else 0)


def test_mixed_types(tmp_path: Path) -> None:
    frames = copper(3)
    systems = dpdata.MultiSystems(system(frames))
    systems.to_deepmd_npy_mixed(str(tmp_path / "mixed"))
    assert_read(tmp_path / "mixed", frames)


def test_a_folder_of_systems_and_a_pattern(tmp_path: Path) -> None:
    for k in range(3):
        system(copper(2, seed=10 * k)).to("deepmd/npy", str(tmp_path / "all" / f"system-{k}"))
    frames = [atoms for k in range(3) for atoms in copper(2, seed=10 * k)]
    assert_read(tmp_path / "all", frames)
    assert_read(tmp_path / "all" / "system-[01]", frames[:4])
    whole, part = read_dataset(tmp_path / "all"), read_dataset(tmp_path / "all" / "system-*")
    assert len(part.parts) == 3
    assert whole.units == "Å, eV, eV/Å (assumed, as DeePMD-kit files have it)"
    assert "stress from virial, a virial (eV, assumed)" in whole.labels
    stored = stored_dataset(tmp_path / "all", 6.0)
    assert [f.energy for f in stored.frames] == [f.energy for f in whole.frames]


def by_hand(folder: Path, **changed: Any) -> Path:
    """Two frames of a water molecule, without a cell."""
    files = {"type.raw": "0\n1\n1\n", "type_map.raw": "O\nH\n", "nopbc": ""}
    arrays = {
        "coord": np.stack([molecule("H2O").positions.ravel()] * 2),
        "energy": np.array([-1.5, -2.5]),
        "force": np.arange(18.0).reshape(2, 9),
    }
    (folder / "set.000").mkdir(parents=True)
    for name, text in files.items():
        if changed.get(name, text) is not None:
            (folder / name).write_text(changed.get(name, text))
    for name, array in arrays.items():
        if changed.get(name, array) is not None:
            np.save(folder / "set.000" / f"{name}.npy", changed.get(name, array))
    return folder


def test_a_molecule_by_hand(tmp_path: Path) -> None:
    first, second = read_dataset(by_hand(tmp_path / "water")).frames
    assert (first.energy, second.energy) == (-1.5, -2.5)
    np.testing.assert_array_equal(second.forces, np.arange(9.0, 18.0).reshape(3, 3))
    np.testing.assert_array_equal(first.geometry.numbers, [8, 1, 1])
    np.testing.assert_array_equal(first.geometry.positions, molecule("H2O").positions)
    assert not first.geometry.pbc.any()
    assert first.stress is None
    assert read_dataset(tmp_path / "water", energy_unit="kcal/mol").frames[0].energy == pytest.approx(-1.5 * 0.0433641)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type_map.raw": None}, "type_map.raw: no such file; expected the chemical symbols"),
        ({"type_map.raw": "O\nXx\n"}, "'Xx' is no element"),
        ({"type_map.raw": "O\n"}, "is no element of a type in type.raw"),
        ({"nopbc": None}, "no box; expected one, or a file nopbc"),
        ({"coord": None}, "no coord.npy"),
        ({"force": np.zeros((2, 6))}, "expected (2, 3, 3)"),
        ({"energy": np.zeros(3)}, "energy: has shape (3, 1); expected (2, -1)"),
        ({"type.raw": "0\n1\n"}, "coord: has shape (2, 9); expected (2, 2, 3)"),
    ],
)
def test_folders_that_are_not_whole(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(by_hand(tmp_path / "water", **changed))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
