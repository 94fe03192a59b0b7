"""`schnet-ase evaluate` and `schnet-ase calibrate`: errors, and what they warn of."""

import json
import re
import shutil

import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from tests.support.frames import labelled_ethanol, write_ethanol


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


def test_energies_of_another_zero_are_told_from_errors(here, run):
    frames = labelled_ethanol(6, seed=5)
    write("data.extxyz", frames)
    _, same, _ = run("evaluate", "ethanol-emt", "data.extxyz")
    assert "another zero" not in same
    for frame in frames:
        frame.calc.results["energy"] += 90.0
    write("other.extxyz", frames)
    _, other, _ = run("evaluate", "ethanol-emt", "other.extxyz")
    (line,) = [line for line in other.splitlines() if "count from another zero than those of ethanol-emt" in line]
    assert float(line.split()[-2]) <= float(re.findall(r"energy RMSE +([\d.]+)", same)[-1])  # of the mean
    write("one.extxyz", frames[0])  # one frame cannot tell
    assert "another zero" not in run("evaluate", "ethanol-emt", "one.extxyz")[1]


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
