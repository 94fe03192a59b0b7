"""What is in a data set: planted duplicates, outliers and errors are found and named, and good data are left alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase.data import Frame
from schnet_ase.data.summary import page, summarize
from schnet_ase.data.summary.findings import binding_energy
from schnet_ase.data.summary.picture import draw
from schnet_ase.errors import DataError
from tests.support.summaries import dataset, found, frame, suspicious, verdict


def test_good_data_raise_no_alarm(good: list[Frame]) -> None:
    summary = summarize(dataset(good))
    assert suspicious(summary) == []
    assert verdict(summary) == "Ready to train on energies and forces."
    text = "\n".join(page(summary))
    for expected in ("hand.extxyz: 100 frames, 900 atoms, SHA-256 0123456789ab", "C2H6O (100)", "H 600, C 200, O 100"):
        assert expected in text
    assert len(page(summary)) <= 40
    forces = np.array([f.forces for f in good])
    rms, largest = np.sqrt(np.mean(forces**2)), np.linalg.norm(forces, axis=2).max()
    frame_of_it = np.unravel_index(np.linalg.norm(forces, axis=2).argmax(), (100, 9))[0]
    assert f"{rms:.4g} eV/Å root mean square" in text
    assert f"largest force {largest:.4g} eV/Å in frame {frame_of_it}" in text


def test_energies_of_different_molecules_compare() -> None:
    """E = Σ n e(z), with one energy off by 1e6 eV, leaves zero of all others and the error of that one."""
    reference = {1: -13.6, 6: -1030.0, 8: -2040.0}
    frames = []
    for seed in range(12):
        for name in ("H2O", "CH4", "CO2", "CH3OH", "H2"):
            atoms = molecule(name)
            atoms.rattle(0.05, seed=seed)
            frames.append(frame(atoms, sum(reference[z] for z in atoms.numbers)))
    frames[30] = frames[30]._replace(energy=frames[30].energy + 1e6)
    summary = summarize(dataset(frames))
    others = np.arange(60) != 30
    # Residuals below 1e-4 eV weigh no more than that one: it may be pulled by so much, shared by 12 of a composition.
    np.testing.assert_allclose(summary.residual[others], 0.0, atol=1e-4 / 12)
    np.testing.assert_allclose(summary.residual[30], 1e6 / 3, rtol=1e-9)
    assert summary.flat.index[summary.energy_outliers].tolist() == [30]
    assert "frame 30 (+3.33e+05 eV per atom)" in found(summary, "outliers")


def test_two_molecules_of_which_one_is_rare_are_no_outliers() -> None:
    """Energies of isomers are apart, and so are those of few compositions that elements do not explain."""
    rng = np.random.default_rng(0)
    frames = []
    for n, (name, offset) in enumerate([("CH3CH2OH", 0.0)] * 300 + [("C6H6", 3.0)] * 25):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=n)
        frames.append(frame(atoms, -100.0 * len(atoms) + offset + rng.normal(0.0, 0.1)))
    assert len(summarize(dataset(frames)).energy_outliers) == 0


def test_planted_outliers(good: list[Frame], tmp_path: Path) -> None:
    frames = list(good)
    frames[7] = frames[7]._replace(energy=frames[7].energy + 20.0)
    frames[9] = frames[9]._replace(energy=frames[9].energy - 60.0)
    frames[50] = frames[50]._replace(forces=1000.0 * frames[50].forces)
    frames[51] = frames[51]._replace(energy=1e30, forces=np.where(np.eye(9, 3), 1e200, frames[51].forces))
    summary = summarize(dataset(frames))
    assert sorted(summary.energy_outliers.tolist()) == [7, 9, 51]
    assert sorted(summary.force_outliers.tolist()) == [50, 51]
    assert "energy in frames 51, 9, 7 (first +1.11e+29 eV per atom)" in found(summary, "outliers")
    usual = np.array([f.forces for n, f in enumerate(good) if n not in (50, 51)])
    assert f"{np.sqrt(np.mean(usual**2)):.4g} eV/Å root mean square of a component without outliers" in "\n".join(
        page(summary)
    )
    draw(summary, tmp_path / "outliers.png")
    assert "look at the outliers" in verdict(summary)


def test_planted_duplicates(good: list[Frame]) -> None:
    """Exact copies, one that was turned, moved and renumbered, and one rounded to three decimals."""
    frames = [*good, good[3], good[3], good[5]]
    turned = good[11].atoms()
    turned.rotate(37.0, (1, 2, 3))
    turned.translate((4.0, -2.0, 7.0))
    turned = turned[[8, 7, 6, 5, 4, 3, 2, 1, 0]]
    frames.append(frame(turned, good[11].energy))
    rounded = good[20].atoms()
    rounded.positions = rounded.positions.round(3)
    frames.append(frame(rounded, good[20].energy, good[20].forces))
    summary = summarize(dataset(frames))
    assert summary.duplicates.exact.tolist() == [[3, 100], [3, 101], [5, 102]]
    assert summary.duplicates.near.tolist() == [[11, 103], [20, 104]]
    assert len(summary.duplicates.contradictory) == 0
    assert "3 frames repeat another exactly (3 = 100, 3 = 101, 5 = 102)" in found(summary, "duplicates")
    assert "keep one frame of each structure" in verdict(summary)


def test_duplicates_with_different_labels(good: list[Frame]) -> None:
    wrong_forces = good[4].forces.copy()
    wrong_forces[2, 1] += 0.5
    turned = good[11].atoms()
    turned.rotate(90.0, "z")
    frames = [
        *good,
        good[3]._replace(energy=good[3].energy + 0.25),
        good[4]._replace(forces=wrong_forces),
        good[5]._replace(energy=None),
        frame(turned, good[11].energy - 2.0),
    ]
    summary = summarize(dataset(frames))
    assert summary.duplicates.contradictory.tolist() == [[3, 100], [4, 101], [11, 103]]
    np.testing.assert_allclose(summary.duplicates.energy_difference, [0.25, 0.0, 2.0], atol=1e-9)
    np.testing.assert_allclose(summary.duplicates.force_difference[:2], [0.0, 0.5], atol=1e-9)
    assert "decide which label" in verdict(summary)


def test_duplicates_in_a_crystal() -> None:
    """An atom in the next cell, and rounding, make no other structure; a strain does."""
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(30):
        atoms = bulk("Cu", cubic=True) * 2
        atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
        frames.append(frame(atoms, 0.0))
    again = frames[4].atoms()
    again.positions += rng.integers(-1, 2, (32, 3)) @ again.cell.array + rng.uniform(-2e-4, 2e-4, (32, 3))
    strained = frames[5].atoms()
    strained.set_cell(1.01 * strained.cell.array, scale_atoms=True)
    summary = summarize(dataset([*frames, frame(again, 0.0), frame(strained, 0.0)]))
    assert summary.duplicates.exact.tolist() == []
    assert summary.duplicates.near.tolist() == [[4, 30]]


def test_shortest_distances() -> None:
    """By hand: H2 at 0.74 Å, two H through the wall of a cell, and an Ar that sees only its own images."""
    hydrogen = frame(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    wall = frame(Atoms("HO", [[0.1, 1, 1], [5.3, 1, 1]], cell=[6, 6, 6], pbc=True))
    argon = frame(Atoms("Ar", cell=[10, 10, 10], pbc=True))
    lone = frame(Atoms("H"))
    near = summarize(dataset([hydrogen, wall, argon, lone])).distances
    np.testing.assert_allclose(near.shortest, [0.74, 0.8, 10.0, np.nan])
    # Covalent radii of Cordero et al., Dalton Trans. 2832 (2008): H 0.31, O 0.66, Ar 1.06.
    np.testing.assert_allclose(near.relative, [0.74 / 0.62, 0.8 / 0.97, 10.0 / 2.12, np.nan])
    assert near.elements.tolist() == [[1, 1], [1, 8], [18, 18], [0, 0]]
    assert sum(int(count.sum()) for count in near.histogram.values()) == 2  # argon's are beyond what is drawn


def test_atoms_that_overlap(good: list[Frame]) -> None:
    atoms = good[40].atoms()
    atoms.positions[5] = atoms.positions[4] + [0.0, 0.0, 0.2]
    frames = [*good]
    frames[40] = frame(atoms, good[40].energy, good[40].forces)
    summary = summarize(dataset(frames))
    assert re.search(r"tightest 0\.20 Å, \S+ in frame 40.*below 0\.6 in frame 40", found(summary, "distances"))


def test_a_frame_in_bohr_stretches_every_bond() -> None:
    water = molecule("H2O")
    water.positions /= units.Bohr
    near = summarize(dataset([frame(water, 0.0)])).distances
    np.testing.assert_allclose(near.relative, molecule("H2O").get_distance(0, 1) / units.Bohr / 0.97)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("length", "lengths are probably in Bohr"), ("energy", "energies are probably in Hartree")],
)
def test_wrong_units_are_suspected(wrong: str, said: str) -> None:
    """Water at the energy of all its electrons, -76.4 Hartree, whose numbers in atomic units are read as eV or Å."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        water = molecule("H2O")
        water.positions += rng.normal(0.0, 0.03, (3, 3))
        if wrong == "length":
            water.positions /= units.Bohr
        frames.append(frame(water, (-76.4 + rng.normal(0.0, 1e-3)) * (1.0 if wrong == "energy" else units.Hartree)))
    frames[4] = frames[4]._replace(energy=float("nan"))
    summary = summarize(dataset(frames))
    assert said in found(summary, "units")
    assert "correct the units" in verdict(summary)


def test_net_force_and_torque_by_hand() -> None:
    """Two forces of 1 eV/Å at 2 Å: against each other along the bond, across it, and side by side."""
    atoms = Atoms("CO", [[0, 0, 0], [2, 0, 0]])
    along, across, beside = ([[-1, 0, 0], [1, 0, 0]], [[0, -1, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0]])
    summary = summarize(dataset([frame(atoms, 0.0, np.array(f, float)) for f in (along, across, beside)]))
    np.testing.assert_allclose(summary.balance.net_force, [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(summary.balance.net_torque, [0, 2, 0], atol=1e-12)
    assert "not zero in frame 2" in found(summary, "net force")
    assert "not zero in frame 1" in found(summary, "net torque")


def test_forces_of_other_atoms(good: list[Frame]) -> None:
    """Forces in another order than the atoms add up to zero, but turn the molecule."""
    frames = [f._replace(forces=f.forces[::-1]) for f in good]
    summary = summarize(dataset(frames))
    assert suspicious(summary) == ["net torque"]


def test_free_atoms_and_what_binds() -> None:
    """4 H at -13 eV and 1 C at -1030 eV against CH4 at -1100 eV: 18 eV over 5 atoms."""
    frames = [frame(Atoms("H"), -13.0), frame(Atoms("C"), -1030.0)]
    for seed in range(20):
        methane = molecule("CH4")
        methane.rattle(0.03, seed=seed)
        frames.append(frame(methane, -1100.0))
    summary = summarize(dataset(frames))
    assert binding_energy(summary) == pytest.approx(18.0 / 5.0)
    assert suspicious(summary) == []
    assert np.isnan(summary.residual[:2]).all()
    other_zero = summarize(dataset([*frames[:2], *(f._replace(energy=-30.0) for f in frames[2:])]))
    assert "take free atoms and the other frames from one method" in found(other_zero, "free atoms")


def test_nan_labels_are_counted_and_named(good: list[Frame]) -> None:
    frames = list(good)
    frames[2] = frames[2]._replace(energy=float("nan"))
    frames[30] = frames[30]._replace(forces=np.where(np.arange(27).reshape(9, 3) == 5, np.nan, frames[30].forces))
    frames[31] = frames[31]._replace(forces=np.full((9, 3), np.inf))
    frames[60] = frames[60]._replace(forces=frames[60].forces[:8])
    summary = summarize(dataset(frames))
    assert summary.flattened.energy.not_finite.tolist() == [2]
    assert summary.flattened.forces.not_finite.tolist() == [30, 31]
    assert summary.flattened.forces.misshapen.tolist() == [60]
    assert "NaN or infinite in frames 30, 31" in found(summary, "forces")
    assert np.isfinite(summary.largest_force).sum() == 97
    assert "remove the labels that are not finite" in verdict(summary)


def test_frames_that_cannot_be_computed_with(good: list[Frame]) -> None:
    """They are named, and the others keep their numbers."""
    frames = list(good)
    broken = good[1].atoms()
    broken.positions[3, 2] = np.nan
    frames[1] = frame(broken, 0.0)
    frames[4] = frame(Atoms(), 0.0)
    frames[50] = frames[50]._replace(energy=1e4)
    summary = summarize(dataset(frames))
    assert summary.flattened.broken.tolist() == [1, 4]
    assert summary.flat.index[summary.energy_outliers].tolist() == [50]
    assert "frames 1, 4" in found(summary, "structures")
    with pytest.raises(DataError, match="hand.extxyz"):
        summarize(dataset([frame(broken, 0.0), frame(Atoms(), 0.0)]))


@pytest.mark.parametrize("shuffled", [False, True])
def test_neighbours_in_dynamics_are_alike(shuffled: bool) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.calc = EMT()
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, temperature_K=300, rng=rng)
    frames = []
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.attach(lambda: frames.append(frame(atoms, atoms.get_potential_energy(), atoms.get_forces())), interval=2)
    dynamics.run(300)
    if shuffled:
        rng.shuffle(frames)
    summary = summarize(dataset(frames))
    assert ("a random split gives errors that are too good" in found(summary, "order")) is not shuffled
