"""`schnet-ase md` and `schnet-ase relax`: what they write, and when they say not to trust it."""

import csv
import math
import re
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from schnet_ase import SchNetEnsembleCalculator, save_model
from schnet_ase.cli.doubts import doubts_of_run, with_advice
from schnet_ase.errors import RunawayError
from schnet_ase.registry.applicability import taught
from schnet_ase.registry.loading import locate_members


def test_md_with_a_monitor(here, run, mistake):
    arguments = ("md", "ethanol-emt", "--steps", 20, "--thermostat", "--monitor", "--threshold", 1e-9)
    status, out, _ = run(*arguments)
    assert status == 0
    assert "1 flagged, at most one in 100 steps, 1 of them saved in ethanol-emt-md-flagged.extxyz" in out
    with open("ethanol-emt-md-uncertainty.csv") as file:
        assert len(list(csv.DictReader(file))) == 21
    assert read("ethanol-emt-md-flagged.extxyz").info["schnet_status"] == "candidate"
    status, out, _ = run(*arguments, "--stop", "--overwrite")
    assert status == 0
    assert "stopped: step 0:" in out
    assert "add --monitor" in mistake("md", "ethanol-emt", "--stop", "--output", "new")


def test_md_with_the_folder_of_an_entry(here, run, models):
    shutil.copytree(models / "ethanol-emt", "mine")
    status, out, _ = run("md", "mine", "--steps", 2, "--thermostat")
    assert status == 0
    assert "C2H6O, 2 steps" in out


def test_md_of_the_entrys_own_molecule(here, run):
    status, out, _ = run("md", "ethanol-emt", "--steps", 20, "--interval", 5)
    assert status == 0
    assert "C2H6O, 20 steps of 0.5 fs, NVE" in out
    with open("ethanol-emt-md.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["time_ps"]) for r in rows] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])
    frames = read("ethanol-emt-md.traj", ":")
    assert len(frames) == 5
    for row, atoms in zip(rows, frames, strict=True):
        assert float(row["potential_eV"]) == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert float(row["kinetic_eV"]) == pytest.approx(atoms.get_kinetic_energy(), rel=1e-6)
        assert float(row["max_forces_deviation_eV_per_A"]) > 0
    assert float(rows[0]["temperature_K"]) > 0
    assert (here / "ethanol-emt-md.png").read_bytes().startswith(b"\x89PNG")


def test_md_of_a_structure_with_one_member_and_a_thermostat(here, run):
    atoms = molecule("CH3OH")
    write("methanol.xyz", atoms)
    status, out, _ = run(
        "md",
        "ethanol-emt/fold-1",
        "methanol.xyz",
        "--steps",
        10,
        "--thermostat",
        "--temperature",
        500,
        "--output",
        "a/b",
    )
    assert status == 0
    assert "CH4O, 10 steps of 0.5 fs, Langevin at 500 K" in out
    with open("a/b.csv") as file:
        assert {r["max_forces_deviation_eV_per_A"] for r in csv.DictReader(file)} == {"nan"}


def test_md_is_repeatable(here, run):
    for name in ("one", "two", "other"):
        seed = 1 if name == "other" else 0
        run("md", "ethanol-emt", "--steps", 5, "--thermostat", "--seed", seed, "--output", name)
    positions = [read(f"{name}.traj").positions for name in ("one", "two", "other")]
    assert np.array_equal(positions[0], positions[1])
    assert not np.array_equal(positions[0], positions[2])


def test_md_does_not_overwrite_unasked(here, run, mistake):
    run("md", "ethanol-emt", "--steps", 2, "--thermostat")
    before = (here / "ethanol-emt-md.csv").read_bytes()
    assert "--overwrite" in mistake("md", "ethanol-emt", "--steps", 3)
    assert (here / "ethanol-emt-md.csv").read_bytes() == before
    assert run("md", "ethanol-emt", "--steps", 3, "--thermostat", "--overwrite")[0] == 0


def test_md_with_a_mistake_leaves_what_the_monitor_wrote(here, run, mistake, models):
    run("md", "ethanol-emt", "--steps", 2, "--thermostat", "--monitor", "--threshold", 1e-6)
    files = [here / "ethanol-emt-md-flagged.extxyz", here / "ethanol-emt-md-uncertainty.csv"]
    before = [file.read_bytes() for file in files]
    assert "none.xyz" in mistake(
        "md", "ethanol-emt", "none.xyz", "--monitor", "--overwrite", "--output", "ethanol-emt-md"
    )
    for levels in (-1, "0.2,0.1", "0.1,0.2,0.3", "high"):
        assert "LO,HI" in mistake("md", "ethanol-emt", "--monitor", "--overwrite", "--threshold", levels)
    again = ("--monitor", "--overwrite", "--output", "ethanol-emt-md")
    assert "fold-1 is a single network" in mistake("md", "ethanol-emt/fold-1", *again)
    shutil.copytree(models / "ethanol-emt", here / "uncalibrated", ignore=shutil.ignore_patterns("card.json"))
    assert "calibrated" in mistake("md", "uncalibrated", "ethanol-emt-md.traj", *again)
    assert [file.read_bytes() for file in files] == before
    files[1].write_text("another's\n")
    assert run("md", "ethanol-emt", "--steps", 3, "--thermostat", "--threshold", 1e6, *again)[0] == 0
    assert not files[0].exists()
    with open(files[1]) as file:
        assert len(list(csv.DictReader(file))) == 4


def test_md_of_one_atom(here, run):
    write("h.xyz", Atoms("H"))
    assert run("md", "ethanol-emt", "h.xyz", "--steps", 2, "--output", "h")[0] == 0
    assert not np.any(read("h.traj").get_momenta())


def test_md_names_its_files_after_the_last_part_of_a_path(here, run, models):
    shutil.copytree(models / "ethanol-emt", here / "entries" / "mine")
    assert run("md", here / "entries" / "mine", "--steps", 2, "--thermostat")[0] == 0
    assert (here / "mine-md.traj").exists()


def test_folder_without_molecule(here, mistake, make_model):
    for k in range(2):
        save_model(make_model(k), here / "members" / f"fold-{k}.safetensors")
    assert "members is no registry entry and has no molecule of its own" in mistake("md", "members")


def test_md_goes_on_from_an_earlier_run(here, run):
    """The last frame's positions and velocities are those of the new run's first."""
    run("md", "ethanol-emt", "--steps", 20, "--interval", 5)
    status, out, _ = run("md", "ethanol-emt", "ethanol-emt-md.traj", "--steps", 5, "--output", "more")
    assert status == 0
    assert "NVE, velocities of ethanol-emt-md.traj" in out
    with open("ethanol-emt-md.csv") as earlier, open("more.csv") as later:
        last, first = list(csv.DictReader(earlier))[-1], next(csv.DictReader(later))
    for column in ("potential_eV", "kinetic_eV", "total_eV"):
        assert float(first[column]) == pytest.approx(float(last[column]), abs=1e-5)


def test_relax(here, run):
    rattled = molecule("CH3CH2OH")
    rattled.rattle(0.05, seed=0)
    write("rattled.xyz", rattled)
    status, out, _ = run("relax", "ethanol-emt", "rattled.xyz", "--fmax", 0.05)
    assert status == 0
    assert "wrote ethanol-emt-relax.xyz" in out
    assert re.search(r"the members' own minima are \d\.\d{3} Å from this one", out)
    relaxed = read("ethanol-emt-relax.xyz")
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() <= 0.05
    with open("ethanol-emt-relax.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["energy_eV"]) < float(rows[0]["energy_eV"])
    assert len(read("ethanol-emt-relax.traj", ":")) == len(rows)
    assert (here / "ethanol-emt-relax.png").exists()


def test_relax_says_when_not_to_trust_what_it_found(here, run):
    write("apart.xyz", Atoms("OH2", [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (0.0, 30.0, 0.0)]))
    status, _, said = run("relax", "ethanol-emt", "apart.xyz")
    assert status == 0
    assert "do not trust the relaxed structure: 3 of its atoms have no other within the cutoff" in said
    squeezed = molecule("CH3CH2OH")
    squeezed.positions *= 0.4
    write("squeezed.xyz", squeezed)
    status, out, said = run("relax", "ethanol-emt", "squeezed.xyz", "--fmax", 1e6, "--overwrite")
    assert status == 0
    assert "do not trust the relaxed structure: its forces_deviation of" in said
    assert float(out.splitlines()[-3].split()[-1]) > SchNetEnsembleCalculator("ethanol-emt").calibration.threshold()


def test_md_says_when_not_to_trust_what_it_did(here, run, monkeypatch):
    write("apart.xyz", Atoms("OH2", [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (0.0, 30.0, 0.0)]))
    status, _, said = run("md", "ethanol-emt", "apart.xyz", "--steps", 2, "--thermostat")
    assert status == 0
    assert "do not trust this run: 3 of its atoms end with no other within the cutoff" in said
    command = ("md", "ethanol-emt", "--steps", 2, "--thermostat", "--overwrite")
    status, _, said = run(*command)
    assert status == 0
    assert "do not trust" not in said
    with open("ethanol-emt-md.csv") as file:
        largest = max(float(row["max_forces_deviation_eV_per_A"]) for row in csv.DictReader(file))
    threshold = SchNetEnsembleCalculator("ethanol-emt").calibration.threshold()
    monkeypatch.setattr("schnet_ase.monitor.arguments.FAILED_ABOVE", 0.9 * largest / threshold)
    status, _, said = run(*command)
    assert status == 0
    assert f"do not trust this run: its forces_deviation reached {largest:.3f} eV/Å" in said


def test_a_run_is_doubted_if_most_of_it_is_above_the_threshold():
    ethanol = molecule("CH3CH2OH")
    ethanol.calc = SchNetEnsembleCalculator("rmd17-ethanol")
    high = 2 * ethanol.calc.calibration.threshold()
    (doubt,) = doubts_of_run(ethanol, [0.0, high, math.nan, high], None)
    assert "in 2 of its 3 rows; check it with the reference method" in doubt
    for usual in ([0.0, high, math.nan, 0.0], [high]):  # the largest alone may be a single frame's
        assert not list(doubts_of_run(ethanol, usual, None))


def test_numbers_that_are_none(mistake):
    for options in (("--timestep", "nan"), ("--temperature", "inf"), ("--thermostat", "--friction", "nan")):
        assert "is no finite number" in mistake("md", "ethanol-emt", *options)
    assert "is no finite number" in mistake("relax", "ethanol-emt", "--fmax", "inf")
    assert "--friction belongs to a thermostat; add --thermostat" in mistake("md", "ethanol-emt", "--friction", 1)


def test_a_model_of_energies_alone_moves_nothing(mistake):
    file = locate_members("qm9-u0")[0].path
    for command in (("md", "qm9-u0"), ("relax", "qm9-u0/fold-1"), ("md", file)):
        assert "qm9-u0 was not trained on forces, so it cannot move atoms; give another model" in mistake(*command)


def test_near_images_are_the_first_thing_to_mend():
    ethanol = molecule("CH3CH2OH", cell=[3, 3, 3], pbc=True)
    ethanol.calc = SchNetEnsembleCalculator("rmd17-ethanol")
    for known in ("rmd17-ethanol", "rmd17-benzene"):
        error = with_advice(RunawayError("stopped", 3), taught(known), ethanol, "start nearer")
        assert str(error) == "stopped; set pbc to False, or give a larger cell"
        assert error.step == 3


def test_relax_that_does_not_converge(here, mistake):
    write("far.xyz", molecule("CH3OCH3"))
    assert "not relaxed after 1 steps" in mistake("relax", "ethanol-emt", "far.xyz", "--steps", 1, "--fmax", 1e-4)
    assert (here / "ethanol-emt-relax.traj").exists()
    assert not (here / "ethanol-emt-relax.xyz").exists()
    (here / "ethanol-emt-relax.xyz").write_text("of an earlier run")
    assert "not relaxed" in mistake("relax", "ethanol-emt", "far.xyz", "--steps", 1, "--fmax", 1e-4, "--overwrite")
    assert not (here / "ethanol-emt-relax.xyz").exists()
