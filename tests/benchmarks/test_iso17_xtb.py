"""The ISO17-like set: its five files hold what they should, with GFN2-xTB's own forces, and a kill costs nothing."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import ase.db
import iso17_xtb
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces
from iso17_xtb import Sampling, gfn2, make_parts, sample, write_databases

from schnet_ase.data import read_dataset
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.errors import SchNetError
from tests.support.paths import ROOT

pytest.importorskip("tblite")

# C2H6O stands in for C7O2H10. The third is the first again, a little deformed.
FORMULA = {6: 2, 8: 1, 1: 6}
MOLECULES = [molecule("CH3CH2OH"), molecule("H2O"), molecule("CH3OCH3"), molecule("CH3CH2OH")]
MOLECULES[3].rattle(0.02, seed=1)
SAMPLING = Sampling(frames=5, spacing=4.0, equilibration=20.0, seed=0, tblite="1")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `qm9pack` of a few molecules."""
    data = tmp_path / "site" / "qm9pack" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    rows = ["Index,Elements,XYZ_Ang,InternalEnergy_0K_au"]
    for number, atoms in enumerate(MOLECULES, start=1):
        elements = ",".join(f"'{s}'" for s in atoms.symbols)
        rows.append(f'{number},"[{elements}]","{atoms.positions.tolist()}",-1.0')
    (data / "qm9_part1.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(iso17_xtb, "FORMULA", FORMULA)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "site"


SCRIPT = f"""
import sys
sys.path[:0] = {[str(Path(iso17_xtb.__file__).parent), str(ROOT)]!r}
import iso17_xtb

if __name__ == "__main__":
    iso17_xtb.FORMULA = {FORMULA!r}
    iso17_xtb.main()
"""


def command(package, folder):
    script = package / "run.py"
    script.write_text(SCRIPT.replace("sys.path[:0] = [", f"sys.path[:0] = [{str(package)!r}, "))
    options = ["--isomers", "2", "--frames", "3", "--spacing", "100", "--equilibration", "300", "--workers", "1"]
    return [sys.executable, str(script), str(folder), *options]


def content(folder):
    return {file.name: file.read_bytes() for file in (folder / "parts").glob("isomer-*.extxyz")}


def test_killed_and_resumed(package, tmp_path):
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(command(package, folder)) as process:
        deadline = time.monotonic() + 300
        while not content(folder):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    first = content(folder)
    assert len(first) == 1
    assert not list(folder.glob("*.db"))
    mark = next((folder / "parts").glob("isomer-*.extxyz")).stat().st_mtime_ns
    subprocess.run(command(package, folder), check=True)
    assert content(folder).items() > first.items()
    assert (folder / "parts" / next(iter(first))).stat().st_mtime_ns == mark, "made again"
    subprocess.run(command(package, whole), check=True)
    assert content(folder) == content(whole), "not the numbers of an uninterrupted run"
    sizes = {file.stem: len(read_dataset(file).frames) for file in folder.glob("*.db")}
    assert sizes == {"reference": 2, "reference_eq": 1, "test_within": 1, "test_other": 3, "test_eq": 1}


@pytest.fixture(scope="module")
def frames():
    """A relaxed ethanol and five frames of its dynamics."""
    return sample(MOLECULES[0], SAMPLING, (0, 0))


def test_frames(frames):
    assert len(frames) == 6
    relaxed, *hot = frames
    assert np.abs(relaxed.get_forces()).max() < 0.01
    for before, after in itertools.pairwise(hot):
        assert np.abs(before.positions - after.positions).max() > 0.01
    assert min(a.get_potential_energy() for a in hot) > relaxed.get_potential_energy() + 0.02


def test_forces_are_the_energys(frames):
    atoms = Atoms(frames[3].numbers, frames[3].positions)
    atoms.calc = gfn2()
    assert atoms.get_potential_energy() == pytest.approx(frames[3].get_potential_energy(), abs=1e-6)
    numerical = calculate_numerical_forces(atoms, eps=1e-3)
    np.testing.assert_allclose(frames[3].get_forces(), numerical, rtol=0, atol=2e-4)
    assert np.abs(numerical).max() > 0.5


def test_energies_are_in_ev(frames):
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", frames[2].numbers, frames[2].positions / units.Bohr)
    calculator.set("verbosity", 0)
    hartree = calculator.singlepoint().get("energy")
    assert frames[2].get_potential_energy() == pytest.approx(2 * units.Rydberg * hartree, rel=1e-6)


def write_parts(folder, frames, n):
    parts = []
    for k in range(n):
        parts.append(folder / f"isomer-{10 * k}.extxyz")
        ase.io.write(parts[-1], frames)
    return parts


def test_databases(frames, tmp_path):
    write_databases(tmp_path, write_parts(tmp_path, frames, 5), SAMPLING)
    isomers = {}
    for name, n in {"reference": 16, "reference_eq": 4, "test_within": 4, "test_other": 5, "test_eq": 1}.items():
        dataset = read_dataset(tmp_path / f"{name}.db")
        check_frames(dataset.frames, dataset.source, energies=True, forces=True)
        assert len(dataset.frames) == n
        with ase.db.connect(tmp_path / f"{name}.db") as database:
            assert "GFN2-xTB" in database.metadata["level_of_theory"]
            rows = list(database.select())
        isomers[name] = {row["isomer"] for row in rows}
        # As the original's readers have it.
        assert all(row.data["atomic_forces"].shape == (9, 3) and isinstance(row["total_energy"], float) for row in rows)
    assert isomers["reference"] == isomers["reference_eq"] == isomers["test_within"]
    assert isomers["test_other"] == isomers["test_eq"]
    assert not isomers["reference"] & isomers["test_other"]
    last = read_dataset(tmp_path / "test_within.db").frames[0]
    np.testing.assert_allclose(last.geometry.positions, frames[-1].positions, atol=1e-7)
    np.testing.assert_allclose(last.forces, frames[-1].get_forces(), atol=1e-7)
    assert last.energy == pytest.approx(frames[-1].get_potential_energy(), abs=1e-7)
    assert not list(tmp_path.glob(".*.part"))


def test_isomers_that_react_are_replaced(package, frames, tmp_path):
    parts = tmp_path / "parts"
    order = [index for index, _ in np.array(iso17_xtb.isomers(), dtype=object)]
    assert order == [0, 2, 3]
    drawn = [order[k] for k in np.random.default_rng(0).permutation(3)]
    parts.mkdir()
    for index, kept in zip(drawn, (frames, frames[:1], frames), strict=True):
        ase.io.write(parts / f"isomer-{index}.extxyz", kept)
    good = make_parts(tmp_path, 2, SAMPLING, 1)
    assert [p.stem for p in good] == [f"isomer-{drawn[0]}", f"isomer-{drawn[2]}"]
    with pytest.raises(SchNetError, match="3 isomers, 2 of which do not react"):
        make_parts(tmp_path, 3, SAMPLING, 1)


def test_a_reaction_is_noticed(monkeypatch):
    monkeypatch.setattr(iso17_xtb, "BROKEN", 0.02)
    assert len(sample(MOLECULES[0], SAMPLING, (0, 0))) == 1


def test_other_sampling_in_the_same_folder(package, tmp_path):
    (tmp_path / "parts").mkdir()
    iso17_xtb._same_sampling(tmp_path / "parts" / "sampling.json", SAMPLING)
    with pytest.raises(SchNetError, match=r"was made with spacing 4\.0; give these"):
        make_parts(tmp_path, 2, Sampling(5, 8.0, 20.0, 0, "1"), 1)
