"""The command line: what it prints and writes, and one line and status 2 for every mistake."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

import schnet_ase
from schnet_ase import SchNet, SchNetConfig, SchNetEnsembleCalculator, save_model
from schnet_ase.registry.card import write_card
from schnet_ase.registry.loading import locate_members
from tests.support.entries import errors, make_entry
from tests.support.frames import labelled_ethanol, write_ethanol, write_run


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of entries with a small ensemble, `ethanol-emt`."""
    from schnet_ase.training import crossval, load_config

    folder = tmp_path_factory.mktemp("cli")
    crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1)
    return folder / "models"


@pytest.fixture
def here(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(models))
    return tmp_path


def test_models(here, run):
    status, out, _ = run("models")
    assert status == 0
    assert "ethanol-emt" in out
    assert "4 members" in out


def test_models_show(here, run):
    status, out, _ = run("models", "show", "ethanol-emt")
    assert status == 0
    for expected in (
        "H C O",
        "fold-4, test",
        "ensemble, test",
        "4 random folds over 30 frames, 10 kept for calibration",
        "calibrated on 10 frames of ethanol.extxyz",
    ):
        assert expected in out


def test_models_show_of_one_network_in_a_folder(tmp_path, run):
    card = make_entry(tmp_path, "single", (errors(0.1),))
    status, out, _ = run("models", "show", str(card.path))
    assert status == 0
    assert out.startswith("single: made by the tests\n")
    assert "fold-0, validation" in out
    assert "ensemble" not in out
    assert "no calibration; it takes 4 members" in out


def test_models_show_of_an_entry_without_a_description(tmp_path, run):
    card = make_entry(tmp_path, "single", (errors(0.1),))
    write_card(replace(card, data=replace(card.data, description="")), card.path)
    assert run("models", "show", str(card.path))[1].startswith("single\n")


def test_models_show_of_a_member_is_the_card_of_its_entry(here, run):
    assert run("models", "show", "ethanol-emt/fold-2")[1] == run("models", "show", "ethanol-emt")[1]
    assert "force RMSE" in run("models", "show", "ethanol-emt")[1]


def test_models_get_of_what_is_installed(here, models, mistake, run):
    assert f"ethanol-emt is installed, in {models}" in mistake("models", "get", "ethanol-emt")
    assert "5 members in" in run("models", "get", "rmd17-ethanol")[1]  # as the index has it


def test_info(here, run):
    status, out, _ = run("info")
    assert status == 0
    for expected in ("schnet_ase", "torch", "numba", "device", "models in"):
        assert expected in out


def test_info_of_a_model_says_which_engine_and_why(here, run, make_model):
    status, out, _ = run("info", "ethanol-emt")
    assert status == 0
    assert "compiled: it covers the model" in out
    save_model(make_model(0, activation="gelu"), "gelu.safetensors")
    status, out, _ = run("info", "gelu.safetensors")
    assert status == 0
    assert "autograd: the compiled engine does not cover activation 'gelu'" in out
    status, _, error = run("info", "ethanol-emd")
    assert status == 2
    assert "ethanol-emt" in error


def test_md_with_a_monitor(here, run, mistake):
    arguments = ("md", "ethanol-emt", "--steps", 20, "--monitor", "--threshold", 1e-9)
    status, out, _ = run(*arguments)
    assert status == 0
    assert "1 flagged, at most one in 100 steps, 1 of them kept in ethanol-emt-md-flagged.extxyz" in out
    with open("ethanol-emt-md-uncertainty.csv") as file:
        assert len(list(csv.DictReader(file))) == 21
    assert read("ethanol-emt-md-flagged.extxyz").info["schnet_status"] == "candidate"
    status, out, _ = run(*arguments, "--stop", "--overwrite")
    assert status == 0
    assert "stopped: step 0:" in out
    assert "add --monitor" in mistake("md", "ethanol-emt", "--stop", "--output", "new")


def test_md_with_the_folder_of_an_entry(here, run, models):
    shutil.copytree(models / "ethanol-emt", "mine")
    status, out, _ = run("md", "mine", "--steps", 2)
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
    run("md", "ethanol-emt", "--steps", 2)
    before = (here / "ethanol-emt-md.csv").read_bytes()
    assert "--overwrite" in mistake("md", "ethanol-emt", "--steps", 3)
    assert (here / "ethanol-emt-md.csv").read_bytes() == before
    assert run("md", "ethanol-emt", "--steps", 3, "--overwrite")[0] == 0


def test_md_with_a_mistake_leaves_what_the_monitor_wrote(here, run, mistake, models):
    run("md", "ethanol-emt", "--steps", 2, "--monitor", "--threshold", 1e-6)
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
    assert run("md", "ethanol-emt", "--steps", 3, "--threshold", 1e6, *again)[0] == 0
    assert not files[0].exists()
    with open(files[1]) as file:
        assert len(list(csv.DictReader(file))) == 4


def test_md_of_one_atom(here, run):
    write("h.xyz", Atoms("H"))
    assert run("md", "ethanol-emt", "h.xyz", "--steps", 2, "--output", "h")[0] == 0
    assert not np.any(read("h.traj").get_momenta())


def test_md_names_its_files_after_the_last_part_of_a_path(here, run, models):
    shutil.copytree(models / "ethanol-emt", here / "entries" / "mine")
    assert run("md", here / "entries" / "mine", "--steps", 2)[0] == 0
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
    assert float(out.splitlines()[-2].split()[-1]) > SchNetEnsembleCalculator("ethanol-emt").calibration.threshold()


def test_md_says_when_not_to_trust_what_it_did(here, run, monkeypatch):
    write("apart.xyz", Atoms("OH2", [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (0.0, 30.0, 0.0)]))
    status, _, said = run("md", "ethanol-emt", "apart.xyz", "--steps", 2)
    assert status == 0
    assert "do not trust this run: 3 of its atoms end with no other within the cutoff" in said
    command = ("md", "ethanol-emt", "--steps", 2, "--timestep", 0.1, "--overwrite")
    status, _, said = run(*command)
    assert status == 0
    assert "do not trust" not in said
    with open("ethanol-emt-md.csv") as file:
        largest = max(float(row["max_forces_deviation_eV_per_A"]) for row in csv.DictReader(file))
    threshold = SchNetEnsembleCalculator("ethanol-emt").calibration.threshold()
    monkeypatch.setattr("schnet_ase.monitor.monitor.FAILED_ABOVE", 0.9 * largest / threshold)
    status, _, said = run(*command)
    assert status == 0
    assert f"do not trust this run: its forces_deviation reached {largest:.3f} eV/Å" in said


def test_numbers_that_are_none(mistake):
    for options in (("--timestep", "nan"), ("--temperature", "inf"), ("--thermostat", "--friction", "nan")):
        assert "is no finite number" in mistake("md", "ethanol-emt", *options)
    assert "is no finite number" in mistake("relax", "ethanol-emt", "--fmax", "inf")
    assert "--friction belongs to a thermostat; add --thermostat" in mistake("md", "ethanol-emt", "--friction", 1)


def test_a_model_of_energies_alone_moves_nothing(mistake):
    file = locate_members("qm9-u0")[0].path
    for command in (("md", "qm9-u0"), ("relax", "qm9-u0/fold-1"), ("md", file)):
        assert "qm9-u0 was taught no forces, so that nothing can move by it; give another model" in mistake(*command)


def test_relax_that_does_not_converge(here, mistake):
    write("far.xyz", molecule("CH3OCH3"))
    assert "not relaxed after 1 steps" in mistake("relax", "ethanol-emt", "far.xyz", "--steps", 1, "--fmax", 1e-4)
    assert (here / "ethanol-emt-relax.traj").exists()
    assert not (here / "ethanol-emt-relax.xyz").exists()
    (here / "ethanol-emt-relax.xyz").write_text("of an earlier run")
    assert "not relaxed" in mistake("relax", "ethanol-emt", "far.xyz", "--steps", 1, "--fmax", 1e-4, "--overwrite")
    assert not (here / "ethanol-emt-relax.xyz").exists()


def test_an_encoding_without_angstroms():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "schnet_ase", "models", "show", "rmd17-ethanol"]
    shown = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"meV/?" in shown.stdout


def test_evaluate(here, run):
    write_ethanol(here / "data.extxyz", 6, seed=5)
    status, out, _ = run("evaluate", "ethanol-emt", "data.extxyz")
    assert status == 0
    assert "Å, eV, eV/Å (assumed" in out
    for expected in ("fold-1 (6 frames)", "ensemble mean of 4 (6 frames)", "force component MAE"):
        assert expected in out
    assert (here / "ethanol-emt-data.png").read_bytes().startswith(b"\x89PNG")


def table(out, label):
    """The numbers in the one line of the table that starts with `label`."""
    (line,) = [line for line in out.splitlines() if line.strip().startswith(label)]
    return [float(value) for value in line.strip().removeprefix(label).split()]


def test_evaluate_an_ensembles_uncertainty(here, run):
    write_ethanol(here / "data.extxyz", 30, seed=5)
    _, out, _ = run("evaluate", "ethanol-emt", "data.extxyz")
    held = table(out, "coverage at 90%")
    assert len(held) == 6
    for label in ("coverage at 68%", "coverage at 95%", "miscalibration area", "ENCE", "sharpness, RMS σ (meV, meV/Å)"):
        assert len(table(out, label)) == 6
    assert all(-1 <= value <= 1 for value in table(out, "Spearman ρ, spread and error"))
    assert all(0 <= value <= 1 for value in table(out, "AUROC, worst 5 % of errors"))
    ranges = [table(out, label) for label in ("energy (meV)", "force x (meV/Å)", "force z (meV/Å)")]
    assert all(r[0] <= r[2] <= r[1] for r in ranges)


def test_evaluate_on_frames_of_the_training_says_so(here, models, run):
    shutil.copy(models.parent / "ethanol.extxyz", "ethanol.extxyz")
    _, out, _ = run("evaluate", "ethanol-emt", "ethanol.extxyz")
    assert "ethanol-emt was trained or validated on 30 of them" in out
    _, out, _ = run("evaluate", "ethanol-emt/fold-1", "ethanol.extxyz")
    assert "ethanol-emt/fold-1 was trained or validated on 30 of them" in out
    write_ethanol(here / "data.extxyz", 6, seed=5)
    assert "was trained" not in run("evaluate", "ethanol-emt", "data.extxyz")[1]


def test_evaluate_with_a_label_that_is_not_there(here, mistake):
    write_ethanol(here / "data.extxyz", 6, seed=5)
    assert "no frame has an energy 'REF'" in mistake("evaluate", "ethanol-emt", "data.extxyz", "--energy-key", "REF")


def test_evaluate_one_member_has_no_uncertainty(here, run):
    write_ethanol(here / "data.extxyz", 6, seed=5)
    _, out, _ = run("evaluate", "ethanol-emt/fold-1", "data.extxyz")
    assert "coverage" not in out
    assert (here / "ethanol-emt-fold-1-data.png").exists()


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_evaluate_with_one_kind_of_label(here, run, label):
    frames = labelled_ethanol(6, seed=5)
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, **{label: atoms.calc.results[label]})
    write("data.extxyz", frames)
    status, out, _ = run("evaluate", "ethanol-emt", "data.extxyz")
    assert status == 0
    assert "–" in out
    assert (here / "ethanol-emt-data.png").exists()


# --- calibrate ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_models(here, models, monkeypatch):
    """A copy of the entries, to be changed."""
    shutil.copytree(models, here / "own")
    monkeypatch.setenv("SCHNET_ASE_MODELS", "own")
    return here / "own"


def test_calibrate(own_models, here, run):
    write_ethanol(here / "new.extxyz", 25, seed=6)
    before = json.loads((own_models / "ethanol-emt" / "card.json").read_text())
    status, out, _ = run("calibrate", "ethanol-emt", "new.extxyz", "--coverage", 0.8)
    assert status == 0
    assert "all but 25 of them" in out
    assert "it replaces that on 10 frames of ethanol.extxyz" in out
    assert "coverage of 80%" in out
    after = json.loads((own_models / "ethanol-emt" / "card.json").read_text())
    assert after.pop("calibration") != before.pop("calibration")
    assert after == before
    out = run("evaluate", "ethanol-emt", "new.extxyz")[1]
    assert "it was calibrated on 25 frames of this file" in out
    flagged = [line.split() for line in out.splitlines() if line.startswith(("    0.1%", "    1.0%"))]
    assert [row[-1] for row in flagged] == ["0.0%", "0.0%"]  # the largest of 25 is below either threshold


def test_calibrate_again_on_the_frames_kept_for_it(own_models, models, run):
    shutil.copy(models.parent / "ethanol.extxyz", "ethanol.extxyz")
    before = (own_models / "ethanol-emt" / "card.json").read_bytes()
    status, out, _ = run("calibrate", "own/ethanol-emt", "ethanol.extxyz")
    assert status == 0
    assert "all but 10 of them" in out
    assert (own_models / "ethanol-emt" / "card.json").read_bytes() == before


def test_calibrate_without_forces_says_so(own_models, here, run):
    frames = labelled_ethanol(25, seed=6)
    for frame in frames:
        del frame.calc.results["forces"]
    write(here / "new.extxyz", frames)
    _, out, _ = run("calibrate", "ethanol-emt", "new.extxyz")
    assert "no half-widths for forces: the frames have none" in out


def test_calibrate_on_too_few_frames(own_models, here, mistake):
    write_ethanol(here / "new.extxyz", 8, seed=6)
    assert "8 calibration frames are too few" in mistake("calibrate", "ethanol-emt", "new.extxyz")
    assert "which needs 19" in mistake("calibrate", "ethanol-emt", "new.extxyz", "--coverage", 0.95)


@pytest.mark.parametrize("coverage", [0, 1, 90, -1])
def test_calibrate_for_a_coverage_that_is_none(own_models, here, mistake, coverage):
    write_ethanol(here / "new.extxyz", 25, seed=6)
    assert "between 0 and 1" in mistake("calibrate", "ethanol-emt", "new.extxyz", "--coverage", coverage)


@pytest.mark.parametrize("model", ["ethanol-emt/fold-1", "nothing", "own/ethanol-emt/fold-1.safetensors"])
def test_calibrate_what_is_no_entry(own_models, here, mistake, model):
    write_ethanol(here / "new.extxyz", 25, seed=6)
    assert "not a registry entry" in mistake("calibrate", model, "new.extxyz")


def test_train_and_its_model(here, run):
    config = write_run(here)
    status, out, _ = run("train", config)
    assert status == 0
    assert "test (8 frames)" in out
    assert "runs/ethanol-emt/best.safetensors" in out
    # With a thermostat, since a network of few steps would not survive a picosecond of equilibration.
    assert run("md", "runs/ethanol-emt/best.safetensors", "ethanol.extxyz", "--steps", 2, "--thermostat")[0] == 0


def test_evaluate_without_molecules_of_qm9(here, run, mistake):
    (here / "raw").mkdir()
    for number in (1, 3, 4):
        atoms = molecule("CH3CH2OH")
        lines = [
            f"{s}\t{x:.6f}\t{y:.6f}\t{z:.6f}\t0." for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
        ]
        scalars = "\t".join(["0."] * 10 + ["-1.5"] * 4 + ["0."])
        text = "\n".join([str(len(lines)), f"gdb {number}\t{scalars}\t", *lines, "1.\t2.", "C\tC\t", "I\tI"]) + "\n"
        (here / "raw" / f"dsgdb9nsd_{number:06d}.xyz").write_text(text)
    (here / "uncharacterized.txt").write_text("3\n")
    assert "3 frames; Å, Hartree" in run("evaluate", "ethanol-emt", "raw")[1]
    assert "2 frames" in run("evaluate", "ethanol-emt", "raw", "--exclude", "uncharacterized.txt")[1]
    assert (here / "ethanol-emt-raw.png").exists()
    write_ethanol(here / "test.extxyz", 4)
    assert "QM9" in mistake("evaluate", "ethanol-emt", "test.extxyz", "--exclude", "uncharacterized.txt")


def test_crossval(here, run):
    config = write_run(here)
    status, out, _ = run("crossval", config, "--models", "entries", "--workers", 1)
    assert status == 0
    assert "ensemble on test frames (8 frames)" in out
    assert (here / "entries" / "ethanol-emt" / "card.json").exists()


def test_unknown_model(here, mistake):
    assert "did you mean ethanol-emt" in mistake("md", "ethanol-etm")


def test_unknown_member(here, mistake):
    assert "expected one of ethanol-emt/fold-1" in mistake("md", "ethanol-emt/fold-9")


def test_unknown_command(mistake):
    assert "No such command" in mistake("mdd")


def test_bad_option_value(here, mistake):
    assert "--steps" in mistake("md", "ethanol-emt", "--steps", "many")


def test_seed_below_zero(here, mistake):
    assert "--seed" in mistake("md", "ethanol-emt", "--seed", -1)


def test_structure_missing(here, mistake):
    assert "none.xyz" in mistake("md", "ethanol-emt", "none.xyz")


def test_structure_of_unknown_element(here, run, mistake):
    write("nh3.xyz", molecule("NH3"))
    for command in ("md", "relax"):
        arguments = command, "ethanol-emt", "nh3.xyz", "--output", "new"
        assert "not trained on N; it knows H, C, O" in mistake(*arguments)
        assert not run(*arguments)[1], "it is refused before anything is printed"
    assert [file.name for file in here.iterdir()] == ["nh3.xyz"]


@pytest.mark.parametrize("command", ["md", "relax"])
def test_structure_with_a_position_that_is_no_number(here, mistake, command):
    atoms = molecule("CH3CH2OH")
    atoms.positions[2, 0] = np.nan
    write("nan.xyz", atoms)
    assert "position of atom 2 is [ nan" in mistake(command, "ethanol-emt", "nan.xyz")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_device_that_is_not_there(here, mistake, device):
    assert f"device '{device}' cannot be used here" in mistake("md", "ethanol-emt", "--device", device)


def test_file_without_molecule(here, mistake):
    save_model(SchNet(SchNetConfig.small()), "model.safetensors")
    assert "give a STRUCTURE" in mistake("md", "model.safetensors")


def test_damaged_checkpoint(here, mistake):
    (here / "model.safetensors").write_bytes(b"not a checkpoint")
    assert "model.safetensors" in mistake("relax", "model.safetensors", "x.xyz")


def test_data_without_labels(here, mistake):
    write("plain.xyz", molecule("CH3CH2OH"))
    assert "no energies, forces or stresses" in mistake("evaluate", "ethanol-emt", "plain.xyz")


def test_config_mistake(here, mistake):
    config = write_run(here)
    config.write_text(config.read_text().replace("steps", "stepz"))
    assert "training.stepz is unknown" in mistake("train", config)


def test_help_and_version(run):
    assert run("--help")[0] == 0
    assert run("--version")[0] == 0


LEARN = """
name = "ethanol-learned"
start = "start.extxyz"
max_labels = 47
folds = 4
[reference]
calculator = "ase.calculators.emt.EMT"
[flags]
threshold = [0.01, 1000.0]
[model]
n_features = 8
n_interactions = 1
n_rbf = 8
[training]
steps = 10
batch_size = 5
validate_every = 10
"""


def test_learn(here, run):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN)
    status, out, err = run("learn", "learn.toml", "--workers", "1")
    assert status == 0
    assert "first frames: 45 with their labels, 0 labelled by the reference" in err
    assert "(first frames" not in out
    for text in (
        "label 45 (flag 0, reference)",
        "generation 0: 45 labels",
        "flag 0 at ",
        "generation 1: 47 labels",
        "finished after 47 labels: 47 labels, 2 generations",
        f"SchNetEnsembleCalculator('{here}/runs/ethanol-learned/generation-001/ethanol-learned')",
    ):
        assert text in out
    assert run("learn", "learn.toml", "--workers", "1")[1].count("label ") == 0


def test_a_reference_beside_the_file_is_found(here, run):
    (here / "elsewhere").mkdir()
    write_ethanol(here / "elsewhere" / "start.extxyz", 45)
    (here / "elsewhere" / "own_code.py").write_text("from ase.calculators.emt import EMT as Own")
    (here / "elsewhere" / "learn.toml").write_text(LEARN.replace("ase.calculators.emt.EMT", "own_code.Own"))
    assert run("learn", "elsewhere/learn.toml", "--workers", "1")[0] == 0


def test_learn_into_a_file(here, mistake):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN)
    assert "start.extxyz cannot be created as a folder" in mistake("learn", "learn.toml", "--output", "start.extxyz")


def test_learn_without_its_reference(here, mistake):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN.replace("ase.calculators.emt.EMT", "no_such_code.DFT"))
    assert "reference.calculator is 'no_such_code.DFT', which cannot be imported" in mistake("learn", "learn.toml")


def test_data(run, mistake, tmp_path):
    status, out, _ = run("data")
    assert status == 0
    assert "iso17" in out
    assert "md18 is not a data set" in mistake("data", "get", "md18", "--folder", tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["models"]])
def test_help_and_lists_do_not_wait_for_torch(arguments):
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch', 'torch' in sys.modules)); "
        f"sys.argv[1:] = {arguments}; from schnet_ase.cli import main; main()"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.endswith("torch False\n")


def test_names_of_the_package():
    assert schnet_ase.__version__ == metadata.version("schnet_ase")
    assert all(getattr(schnet_ase, name).__name__ == name for name in schnet_ase.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SchNett'"):
        schnet_ase.SchNett  # noqa: B018
