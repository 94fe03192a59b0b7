"""QM9 in its own layouts: the raw files byte for byte, the tables of the package, and the molecules left out."""

from __future__ import annotations

import importlib
import importlib.util
import io
import itertools
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.data import atomic_numbers

from schnet_ase import save_model
from schnet_ase.data import Dataset, read_dataset
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.data.readers.qm9 import read_excluded
from schnet_ase.errors import DataError
from schnet_ase.evaluation.leakage import frames_seen
from tests.support.factories import ModelFactory

# Numbers of molecules 1, 3 and 4 as published; tabs, the space that stands for a sign and the one after the last tab
# too. Molecule 3 has exponents as Mathematica writes them, put in for this test.
METHANE = (
    "5\n"
    "gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893"
    "\t-40.476062\t-40.475117\t-40.498597\t6.469\t\n"
    "C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689\n"
    "H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921\n"
    "H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922\n"
    "H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923\n"
    "H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923\n"
    "1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078\n"
    "C\tC\t\n"
    "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n"
)
WATER = (
    "3\n"
    "gdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31\t-0.2928\t0.0687\t0.3615\t19.0002\t0.021375\t-76.404702"
    "\t-76.401867\t-76.400922\t-76.422349\t6.002\t\n"
    "O\t-0.0343604951\t 9.775395708*^-1\t 0.0076015923\t-0.589706\n"
    "H\t 0.0647664923\t 0.0205721989\t 1.5346341*^-6\t 0.294853\n"
    "H\t 0.8717903737\t 1.3007924048\t-6.931336*^-7\t 0.294853\n"
    "1671.4222\t3803.6305\t3907.698\n"
    "O\tO\t\n"
    "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
)
ACETYLENE = (
    "4\n"
    "gdb 4\t0.\t35.6100361\t35.6100361\t0.\t16.28\t-0.2845\t0.0506\t0.3351\t59.5248\t0.026841\t-77.308427\t-77.305527"
    "\t-77.304583\t-77.327429\t8.574\t\n"
    "C\t 0.5995394918\t 0.\t 1.\t-0.207019\n"
    "C\t-0.5995394918\t 0.\t 1.\t-0.207019\n"
    "H\t-1.6616385861\t 0.\t 1.\t 0.207019\n"
    "H\t 1.6616385861\t 0.\t 1.\t 0.207019\n"
    "549.7648\t549.7648\t795.2713\t795.2713\t2078.1131\t3455.8096\t3557.8599\n"
    "C#C\tC#C\t\n"
    "InChI=1S/C2H2/c1-2/h1-2H\tInChI=1S/C2H2/c1-2/h1-2H\n"
)
MOLECULES = {1: METHANE, 3: WATER, 4: ACETYLENE}
U0 = np.array([-40.47893, -76.404702, -77.308427])  # Hartree
WATER_POSITIONS = [
    [-0.0343604951, 0.9775395708, 0.0076015923],
    [0.0647664923, 0.0205721989, 1.5346341e-6],
    [0.8717903737, 1.3007924048, -6.931336e-7],
]
HARTREE = 2 * units.Rydberg

HEADER = (
    "XYZ_file,Index,SMILES,InChi,N_atoms,Stoichiometry,Elements,XYZ_Ang,Mulliken_pop,Harmonic_Freq_cmi,RotA_GHz,RotB_GHz,"
    "RotC_GHz,Dipole_debye,Polarizability_bohr3,HOMO_au,LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,InternalEnergy_0K_au,"
    "InternalEnergy_298K_au,Enthalphy_298K_au,GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K\n"
)


def raw_folder(folder: Path) -> Path:
    folder.mkdir()
    for number, text in MOLECULES.items():
        (folder / f"dsgdb9nsd_{number:06d}.xyz").write_bytes(text.encode())
    (folder / "readme.txt").write_text("Data set dsgdb9nsd\n")
    return folder


def raw_archive(file: Path) -> Path:
    with tarfile.open(file, "w:bz2" if file.suffix == ".bz2" else "w") as archive:
        for number, text in MOLECULES.items():
            member = tarfile.TarInfo(f"dsgdb9nsd_{number:06d}.xyz")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return file


def table_row(text: str) -> str:
    """A raw file as the package has it."""
    lines = text.replace("*^", "e").splitlines()
    n, scalars = int(lines[0]), lines[1].split()
    atoms = [line.split() for line in lines[2 : 2 + n]]
    elements = "[" + ",".join(f"'{a[0]}'" for a in atoms) + "]"
    xyz = "[" + ",".join("[" + ",".join(a[1:4]) + "]" for a in atoms) + "]"
    number = int(scalars[1])
    return (
        f'"dsgdb9nsd_{number:06d}.xyz",{number},"C","InChI=1S/CH4/h1H4",{n},"[4,1,0,0,0]","{elements}","{xyz}",'
        f'"[0.1]","[1341.307]",{",".join(scalars[2:])}\n'
    )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `qm9pack` of three molecules in two tables, which cannot be imported."""
    data = tmp_path / "site" / "qm9pack" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("from pkg_resources import resource_filename, gone\n")
    (data / "qm9_part1.csv").write_text(HEADER + table_row(METHANE) + table_row(WATER))
    (data / "qm9_part2.csv").write_text(HEADER + table_row(ACETYLENE))
    (data / "qm9_polarizability.csv").write_text("XYZ_file,A_xx\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    return data


def assert_molecules(dataset: Dataset, energies: np.ndarray = U0) -> None:
    check_frames(dataset.frames, dataset.source, energies=True, forces=False)
    np.testing.assert_allclose([f.energy for f in dataset.frames], energies * HARTREE, rtol=1e-14)
    assert [f.geometry.numbers.tolist() for f in dataset.frames] == [[6, 1, 1, 1, 1], [8, 1, 1], [6, 6, 1, 1]]
    np.testing.assert_allclose(dataset.frames[1].geometry.positions, WATER_POSITIONS, rtol=0, atol=1e-17)
    for frame in dataset.frames:
        assert frame.forces is None
        assert frame.geometry.positions.dtype == np.float64
        assert frame.geometry.numbers.dtype == np.int64
        assert not frame.geometry.pbc.any()
    assert "Å, Hartree" in dataset.units
    assert "assumed" in dataset.units


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


def test_hartree() -> None:
    assert pytest.approx(27.211386, rel=1e-7) == HARTREE


def test_folder(tmp_path: Path) -> None:
    assert_molecules(read_dataset(raw_folder(tmp_path / "dsgdb9nsd")))


@pytest.mark.parametrize("name", ["dsgdb9nsd.xyz.tar.bz2", "dsgdb9nsd.xyz.tar"])
def test_archive(tmp_path: Path, name: str) -> None:
    assert_molecules(read_dataset(raw_archive(tmp_path / name)))


def test_one_file(tmp_path: Path) -> None:
    (frame,) = read_dataset(raw_folder(tmp_path / "raw") / "dsgdb9nsd_000003.xyz").frames
    assert frame.energy == pytest.approx(-76.404702 * HARTREE, rel=1e-14)


def test_package_is_read_without_importing_it(package: Path) -> None:
    # Importing the published one needs pkg_resources, which setuptools no longer brings.
    dataset = read_dataset("qm9pack:")
    assert_molecules(dataset)
    assert dataset.source == "qm9pack"
    assert "qm9pack" not in sys.modules


@pytest.mark.parametrize(
    ("key", "energies"),
    [
        ("U0", U0),
        ("U", [-40.476062, -76.401867, -77.305527]),
        ("H", [-40.475117, -76.400922, -77.304583]),
        ("G", [-40.498597, -76.422349, -77.327429]),
    ],
)
def test_energies_by_name(tmp_path: Path, package: Path, key: str, energies: list[float]) -> None:
    for source in (raw_folder(tmp_path / "raw"), "qm9pack:"):
        assert_molecules(read_dataset(source, energy_key=key), np.array(energies))


def test_the_packages_own_name_of_an_energy(package: Path) -> None:
    assert_molecules(read_dataset("qm9pack:", energy_key="InternalEnergy_0K_au"))


def test_properties_that_are_no_energies_of_a_molecule(tmp_path: Path, package: Path) -> None:
    for source in (raw_folder(tmp_path / "raw"), "qm9pack:"):
        refused(lambda source=source: read_dataset(source, energy_key="alpha"), "'alpha'", "U0, U, H, G")


def test_there_are_no_forces(package: Path) -> None:
    dataset = read_dataset("qm9pack:")
    refused(lambda: check_frames(dataset.frames, dataset.source, energies=True, forces=True), "no frame has forces")


def test_another_unit(package: Path) -> None:
    energies = [f.energy for f in read_dataset("qm9pack:", energy_unit="eV").frames]
    np.testing.assert_allclose(energies, U0, rtol=1e-14)


# Molecules left out

# The original's layout: nine lines of head, the count as the last.
UNCHARACTERIZED = "".join(f"head {k}\n" for k in range(9)) + "     3   O   O\n    58   N   NN\n2 compounds\n"


@pytest.mark.parametrize("content", [UNCHARACTERIZED, "3\n58\n", "58\n  3"])
def test_uncharacterized(tmp_path: Path, package: Path, content: str) -> None:
    listed = tmp_path / "uncharacterized.txt"
    listed.write_text(content)
    assert read_excluded(listed) == {3, 58}
    raw = raw_folder(tmp_path / "raw")
    sources: list[str | Path] = [raw, raw / "*.xyz", raw_archive(tmp_path / "raw.tar"), "qm9pack:"]
    for source in sources:
        whole, kept = read_dataset(source), read_dataset(source, exclude=listed)
        assert [len(f.geometry.numbers) for f in kept.frames] == [5, 4]
        assert kept.sha256 != whole.sha256, "frames are remembered by this and their index"


def test_molecules_are_seen_whatever_was_left_out(tmp_path: Path, package: Path, make_model: ModelFactory) -> None:
    lists = tmp_path / "listed.txt", tmp_path / "other.txt"
    lists[0].write_text("3\n")
    lists[1].write_text("4\n")
    raw, member = raw_folder(tmp_path / "raw"), tmp_path / "member.safetensors"
    sources: list[str | Path] = [raw, raw / "*.xyz", raw_archive(tmp_path / "raw.tar"), "qm9pack:"]
    for source in sources:
        datasets = [read_dataset(source, exclude=listed) for listed in (None, *lists)]
        for trained, other in itertools.permutations(datasets, 2):
            frames = {"training_frames": [0], "validation_frames": []}
            save_model(make_model(), member, data_sha256=trained.sha256, data_parts=list(trained.parts), **frames)
            assert frames_seen(member, trained) == {0}
            assert frames_seen(member, other) == set(range(len(other.frames)))


@pytest.mark.parametrize(
    "content", ["", "58\nfifty\n", "0\n", "133886\n", "head\n" * 9 + "not a number\n2 compounds\n"]
)
def test_lists_that_are_none(tmp_path: Path, content: str) -> None:
    listed = tmp_path / "uncharacterized.txt"
    listed.write_text(content)
    raw = raw_folder(tmp_path / "raw")
    refused(lambda: read_dataset(raw, exclude=listed), "uncharacterized.txt", "not a list of molecules")


def test_missing_list(tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw")
    refused(lambda: read_dataset(raw, exclude=tmp_path / "none.txt"), "none.txt", "cannot be read")


def test_molecules_without_numbers_cannot_be_left_out(tmp_path: Path) -> None:
    Atoms("H").write(tmp_path / "a.extxyz")
    refused(lambda: read_dataset(tmp_path / "a.extxyz", exclude=tmp_path / "x.txt"), "a.extxyz", "QM9")


# Files that cannot be read


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(lambda: read_dataset("qm9pack:"), "qm9pack:", "pip install 'schnet_ase[qm9]'")


def test_package_without_tables(package: Path) -> None:
    for file in package.iterdir():
        file.unlink()
    refused(lambda: read_dataset("qm9pack:"), "qm9_part*.csv")


@pytest.mark.parametrize("content", ["", "Index,Elements\n1,C\n"])
def test_package_of_other_columns(package: Path, content: str) -> None:
    (package / "qm9_part2.csv").write_text(content)
    refused(lambda: read_dataset("qm9pack:"), "qm9_part2.csv")


def test_damaged_table(package: Path) -> None:
    text = (package / "qm9_part2.csv").read_text()
    (package / "qm9_part2.csv").write_text(text[: len(HEADER) + 180])
    refused(lambda: read_dataset("qm9pack:"), "qm9pack")


@pytest.mark.parametrize("folder_only", [True, False])
def test_nothing_of_qm9(tmp_path: Path, folder_only: bool) -> None:
    (tmp_path / "raw").mkdir()
    source = tmp_path / "raw"
    if not folder_only:
        source = tmp_path / "a.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(tmp_path / "raw", "raw")
    refused(lambda: read_dataset(source), source.name, "without dsgdb9nsd_*.xyz")


def test_truncated_archive(tmp_path: Path) -> None:
    file = raw_archive(tmp_path / "a.tar.bz2")
    file.write_bytes(file.read_bytes()[:-40])
    refused(lambda: read_dataset(file), "a.tar.bz2")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("3\n", "4\n"),  # an atom more than there are
        ("gdb 3", "gdb 4"),
        ("gdb 3\t799.58812", "gdb 3"),
        ("H\t 0.87", "Xy\t 0.87"),
        ("1.3007924048", "1.3O"),
        ("\t-0.589706", ""),
        (WATER[20:], ""),
    ],
)
def test_damaged_file(tmp_path: Path, old: str, new: str) -> None:
    raw = raw_folder(tmp_path / "raw")
    assert old in WATER
    (raw / "dsgdb9nsd_000003.xyz").write_text(WATER.replace(old, new, 1))
    refused(lambda: read_dataset(raw), "dsgdb9nsd_000003.xyz")


@pytest.mark.parametrize("bad", ["nan", "0."])
def test_energies_not_to_be_trusted_are_named_by_frame(tmp_path: Path, bad: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dsgdb9nsd_000003.xyz").write_text(WATER.replace("-76.404702", bad))
    dataset = read_dataset(tmp_path / "raw")
    refused(lambda: check_frames(dataset.frames, dataset.source, energies=True, forces=False), "frame 0")


# The published package


@pytest.fixture(scope="module")
def published() -> Dataset:
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack is not installed")
    return read_dataset("qm9pack:")


def test_all_characterized_molecules(published: Dataset) -> None:
    assert len(published.frames) == 133_885 - 3_054
    assert published.elements == (1, 6, 7, 8, 9)
    check_frames(published.frames, published.source, energies=True, forces=False)
    assert max(len(f.geometry.numbers) for f in published.frames) == 29


def test_molecules_of_the_package_are_those_of_the_raw_files(published: Dataset, tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw")
    frames = read_dataset(raw).frames
    for mine, theirs in ((frames[0], published.frames[0]), (frames[2], published.frames[3])):
        assert mine.energy == pytest.approx(theirs.energy, rel=1e-15)
        np.testing.assert_array_equal(mine.geometry.numbers, theirs.geometry.numbers)
        np.testing.assert_array_equal(mine.geometry.positions, theirs.geometry.positions)


def test_molecules_of_the_package_are_bound(published: Dataset) -> None:
    # Free atoms in the same basis and functional, Hartree, from the data set's atomref.txt.
    free = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
    reference = np.zeros(10)
    for symbol, energy in free.items():
        reference[atomic_numbers[symbol]] = energy * HARTREE
    per_atom = np.array(
        [(f.energy - reference[f.geometry.numbers].sum()) / len(f.geometry.numbers) for f in published.frames]
    )
    assert per_atom.min() > -6.0
    assert per_atom.max() < -2.0
    nearest = [
        np.linalg.norm(f.geometry.positions[0] - f.geometry.positions[1:], axis=1).min()
        for f in published.frames[::100]
    ]
    assert min(nearest) > 0.9
    assert max(nearest) < 1.6, "positions in another unit or order"
