"""The page and the picture of a data set: for every kind of file, and by the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnet_ase.data import Frame, read_dataset
from schnet_ase.data.summary import page, summarize
from schnet_ase.data.summary.picture import draw
from tests.support.frames import labelled_ethanol
from tests.support.summaries import dataset, frame, labelled, verdict


def _kinds() -> dict[str, list[Frame]]:
    crystal = []
    for n in range(12):
        atoms = bulk("Cu", cubic=True) * (1 + n % 3, 1, 1)
        atoms.rattle(0.05, seed=n)
        crystal.append(labelled(atoms))
        if n % 2:
            crystal[-1] = crystal[-1]._replace(stress=atoms.get_stress())
    water = [labelled(a) for a in labelled_ethanol(12, name="H2O")]
    slab = frame(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], cell=[2.5, 2.5, 0], pbc=[1, 1, 0]), -1.0)
    flat = frame(Atoms("Cu", cell=[0, 0, 0], pbc=True), -1.0)
    return {
        "energies only": [f._replace(forces=None) for f in water],
        "forces only": [f._replace(energy=None) for f in water],
        "stress on some": crystal,
        "mixed sizes": [*water, *crystal, frame(Atoms("H"), -1.0)],
        "one frame": water[:1],
        "one atom": [frame(Atoms("H"), -13.6)],
        "partly periodic": [slab, slab],
        "a cell without a volume": [flat, *crystal],
        "no labels": [f._replace(energy=None, forces=None) for f in water],
        "all the same": water[:1] * 30,
        "zero forces": [f._replace(forces=np.zeros((3, 3))) for f in water],
    }


_EXPECTED = {
    "energies only": "Ready to train on energies (force_weight = 0).",
    "forces only": "Ready to train on forces (energy_weight = 0).",
    "stress on some": "Ready to train on energies and forces and stress.",
    "one atom": "label more frames",
    "one frame": "label more frames",
    "a cell without a volume": "correct the cells",
    "no labels": "say where the labels are",
    "all the same": "keep one frame of each structure",
    "zero forces": "find the labels",
}


@pytest.mark.parametrize("kind", list(_kinds()))
def test_every_kind_of_file_gets_a_page_and_a_picture(kind: str, tmp_path: Path) -> None:
    summary = summarize(dataset(_kinds()[kind]))
    lines = page(summary)
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 120
    assert "nan" not in "\n".join(lines)
    assert _EXPECTED.get(kind, "") in verdict(summary)
    draw(summary, tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")


def test_partly_labelled_frames_are_counted() -> None:
    text = "\n".join(page(summarize(dataset(_kinds()["stress on some"]))))
    assert re.search(r"stress +in 6 of 12 frames; not in frames 0, 2, 4, 6, 8 and 1 more", text)
    assert re.search(r"formulas +Cu4 \(4\), Cu8 \(4\), Cu12 \(4\)", text)
    assert re.search(r"periodic +12 frames in three directions, cells of 47.0 to 141.1 Å³", text)


def test_config_types_and_weights(good: list[Frame]) -> None:
    frames = [f._replace(config_type="md", weight=2.0) for f in good[:30]] + [
        f._replace(config_type="dimer") for f in good[30:40]
    ]
    text = "\n".join(page(summarize(dataset(frames))))
    assert re.search(r"config types +md \(30\), dimer \(10\)", text)
    assert re.search(r"weights +2 \(30\), 1 \(10\)", text)


def test_a_report_hears_of_every_frame(good: list[Frame]) -> None:
    heard: list[int] = []
    summarize(dataset(good), heard.append)
    assert sum(heard) == 2 * len(good)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run, mistake) -> None:
    monkeypatch.chdir(tmp_path)
    frames = labelled_ethanol(30)
    frames.append(frames[6].copy())
    frames[-1].calc = SinglePointCalculator(frames[-1], energy=frames[6].get_potential_energy() + 1.0)
    write("my data.extxyz", frames)
    status, out, _ = run("data", "check", "my data.extxyz")
    assert status == 0
    assert "6 = 30 are one structure with different labels: energies by up to 1 eV" in out
    picture = tmp_path / "mydata-check.png"
    assert out.endswith(f"wrote {picture.name}\n")
    assert picture.exists()
    assert "exists; give another --output, or --overwrite" in mistake("data", "check", "my data.extxyz")
    assert run("data", "check", "my data.extxyz", "--overwrite")[0] == 0
    assert run("data", "check", "my data.extxyz", "--output", "elsewhere/one")[0] == 0
    assert (tmp_path / "elsewhere" / "one.png").exists()
    assert "no such file" in mistake("data", "check", "absent.extxyz")
    Path("damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "damaged.npz" in mistake("data", "check", "damaged.npz")


def test_nan_in_a_file_is_read_and_named(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    energies = rng.normal(-100.0, 0.1, 20)
    energies[13] = np.nan
    positions = molecule("H2O").positions + rng.normal(0.0, 0.05, (20, 3, 3))
    np.savez("nan.npz", R=positions, E=energies, z=[8, 1, 1])
    status, out, _ = run("data", "check", "nan.npz")
    assert status == 0
    assert "NaN or infinite in frame 13" in out
    assert read_dataset("nan.npz").frames[13].energy is not None


def test_energies_of_atoms_in_a_trajectory_are_no_labels(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMT writes `energies`, one an atom, beside the energy."""
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    assert atoms.calc.results["energies"].shape == (4,)
    write("emt.traj", atoms)
    assert read_dataset("emt.traj").frames[0].energy == pytest.approx(energy)
    assert run("data", "check", "emt.traj")[0] == 0
