"""Units that are probably other ones are suspected, and right ones are not."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import write

from schnet_ase.data import read_dataset
from schnet_ase.data.labels.plausibility import suspicions
from schnet_ase.data.labels.report import log_dataset


def methanol(n_frames: int = 12) -> list[Atoms]:
    """A walk in small steps, with energies and forces of EMT (which knows H, C, N and O)."""
    frames, rng = [], np.random.default_rng(0)
    atoms = molecule("CH3OH")
    for _ in range(n_frames):
        atoms = atoms.copy()
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        atoms.calc = EMT()
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        frames.append(atoms)
    for atoms in frames:
        atoms.calc = None
    return frames


def in_units(frames: list[Atoms], energy: float = 1.0, force: float = 1.0, length: float = 1.0) -> list[Atoms]:
    for atoms in frames:
        atoms.info["REF_energy"] /= energy
        atoms.arrays["REF_forces"] /= force
        atoms.positions /= length
    return frames


def suspected(file: Path, frames: list[Atoms], **options: str) -> tuple[str, ...]:
    write(file, frames)
    return suspicions(read_dataset(file, **options))


def test_right_units_are_not_suspected(tmp_path: Path) -> None:
    assert suspected(tmp_path / "a.extxyz", methanol()) == ()
    frames = in_units(methanol(), units.Hartree, units.Hartree / units.Bohr, units.Bohr)
    assert suspected(tmp_path / "b.extxyz", frames, energy_unit="Hartree", length_unit="Bohr") == ()


@pytest.mark.parametrize("name", ["Cu", "Si", "NaCl", "Mg", "W"])
def test_crystals_are_not_suspected(tmp_path: Path, name: str) -> None:
    atoms = bulk(name, "rocksalt", a=5.64) if name == "NaCl" else bulk(name)
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -5.0, np.zeros((len(atoms), 3))
    assert suspected(tmp_path / "a.extxyz", [atoms]) == ()


@pytest.mark.parametrize(
    ("length", "word", "options"),
    [(units.Bohr, "Bohr", {}), (units.nm, "nm", {}), (1.0, "Å", {"length_unit": "Bohr", "force_unit": "eV/Å"})],
)
def test_lengths(tmp_path: Path, length: float, word: str, options: dict[str, str]) -> None:
    lines = suspected(tmp_path / "a.extxyz", in_units(methanol(), length=length), **options)
    assert lines[0].startswith(f"lengths are probably in {word}, not ")
    assert "give length_unit" in lines[0]


@pytest.mark.parametrize(
    ("energy", "force", "said"),
    [
        (1.0, units.Hartree / units.Bohr, "forces in Hartree/Bohr"),
        (1.0, units.kcal / units.mol, "forces in kcal/mol/Å"),
        (units.Hartree, 1.0, "energies in Hartree"),
        (units.kcal / units.mol, 1.0, "energies in kcal/mol"),
    ],
)
def test_forces_against_changes_of_energy(tmp_path: Path, energy: float, force: float, said: str) -> None:
    (line,) = suspected(tmp_path / "a.extxyz", in_units(methanol(), energy, force))
    assert line.startswith("the unit of energies (eV) or forces (eV/Å) is probably another one")
    assert said in line


def test_forces_of_the_wrong_sign(tmp_path: Path) -> None:
    (line,) = suspected(tmp_path / "a.extxyz", in_units(methanol(), force=-1.0))
    assert "forces probably have the wrong sign" in line


@pytest.mark.parametrize(("unit", "word"), [(units.Hartree, "Hartree"), (units.kcal / units.mol, "kcal/mol")])
def test_energies_of_all_electrons(tmp_path: Path, unit: float, word: str) -> None:
    """Methanol has -115.7 Hartree at B3LYP; -115.05 by Hartree-Fock."""
    atoms = molecule("CH3OH")
    atoms.info["REF_energy"] = -115.7 * units.Hartree / unit
    (line,) = suspected(tmp_path / "a.extxyz", [atoms])
    assert line.startswith(f"energies are probably in {word}, not eV")
    assert suspected(tmp_path / "b.extxyz", [atoms], energy_unit=word) == ()


@pytest.mark.parametrize(
    ("energy", "length", "word"),
    [
        (units.kcal / units.mol, 1.0, "kcal/mol/Å"),
        (units.kJ / units.mol, 1.0, "kJ/mol/Å"),
        (units.kJ / units.mol, units.nm, "kJ/mol/nm"),
        (units.Hartree, units.Bohr, "Hartree/Bohr"),
    ],
)
@pytest.mark.parametrize("partner", ["C", "N", "O"])
def test_energies_and_forces_in_the_same_other_unit(
    tmp_path: Path, energy: float, length: float, word: str, partner: str
) -> None:
    """Springs of 33 eV/Å², as of bonds to hydrogen, between frames that do not follow each other, as in rMD17."""
    rng, frames = np.random.default_rng(1), []
    for stretch in rng.normal(0.0, 0.04, 60):
        atoms = Atoms(f"{partner}H", [[0, 0, 0], [0, 0, 1.05 + stretch]])
        atoms.rotate(*rng.normal(size=(2, 3)))
        away = (atoms.positions[1] - atoms.positions[0]) / (1.05 + stretch)
        atoms.info["REF_energy"] = 0.5 * 33.0 * stretch**2 - 3.0
        atoms.arrays["REF_forces"] = np.outer([33.0 * stretch, -33.0 * stretch], away)
        frames.append(atoms)
    assert suspected(tmp_path / "a.extxyz", frames) == ()
    (line,) = suspected(tmp_path / "b.extxyz", in_units(frames, energy, energy / length))
    assert line.startswith(f"forces are probably in {word}, not eV/Å: bonds to hydrogen would be ")
    assert "give energy_unit if energies are in" in line
    (line,) = suspected(tmp_path / "c.extxyz", in_units(frames, 1.0, -length / energy))
    assert "forces probably have the wrong sign" in line


def test_a_walk_in_another_unit_of_energy(tmp_path: Path) -> None:
    """Energies change as the forces say, and are none of all electrons; EMT has forces several times those of DFT."""
    unit = units.kcal / units.mol
    (line,) = suspected(tmp_path / "a.extxyz", in_units(methanol(30), unit, unit))
    assert line.startswith("forces are probably in kcal/mol/Å, not eV/Å")
    assert suspected(tmp_path / "b.extxyz", in_units(methanol(30), unit, unit), energy_unit="kcal/mol") == ()


def test_energies_of_valence_electrons_are_not_suspected(tmp_path: Path) -> None:
    """In eV they may be what those of all electrons are in Hartree: 0.83, 1.05 and 1.07 of the atoms' sum here."""
    gfn2 = {"C6H6": -432.08, "C4H4O": -398.48, "isobutane": -371.90, "HCl": -137.49}  # tblite 0.8.0, eV
    frames = []
    for names in (("C6H6", "HCl"), ("C6H6", "C4H4O", "HCl"), ("C4H4O", "isobutane", "HCl")):
        atoms = Atoms()
        for k, name in enumerate(names):
            part = molecule(name)
            part.positions += [20.0 * k, 0, 0]
            atoms += part
        atoms.info["REF_energy"] = sum(gfn2[name] for name in names)
        frames.append(atoms)
    assert suspected(tmp_path / "a.extxyz", frames) == ()


def test_frames_far_from_each_other_say_nothing_of_units(tmp_path: Path) -> None:
    """Between frames half an Å apart energies change by other than what the mean force says; no unit is 1.5 others."""
    frames = in_units(methanol(), force=1.5)
    assert suspected(tmp_path / "a.extxyz", frames) == ()


def test_far_atoms_and_no_frames_say_nothing(tmp_path: Path) -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]], calculator=LennardJones(sigma=3.4, epsilon=0.01))
    pair.info["REF_energy"], pair.arrays["REF_forces"] = pair.get_potential_energy(), pair.get_forces()
    pair.calc = None
    assert all("energies" not in line for line in suspected(tmp_path / "a.extxyz", [pair]))
    assert suspicions(read_dataset(tmp_path / "a.extxyz")._replace(units="")) == ()
    assert suspicions(read_dataset(tmp_path / "a.extxyz")._replace(frames=[])) == ()


def test_a_suspicion_is_a_warning_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.extxyz", in_units(methanol(), length=units.Bohr))
    with caplog.at_level(logging.INFO, logger="schnet_ase"):
        log_dataset(read_dataset(tmp_path / "a.extxyz"))
    levels = {record.levelname: record.getMessage() for record in caplog.records}
    assert levels["INFO"].startswith("a.extxyz: labels: energy from info['REF_energy']")
    assert "a.extxyz: lengths are probably in Bohr" in next(r.getMessage() for r in caplog.records if r.levelno > 20)
