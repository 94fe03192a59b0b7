"""What the stability study measures: bonds, pulls, distances and runs, against what is known by hand."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import card_dynamics
import card_times
import flag_rate
import numpy as np
import pytest
import stability
from _molecule import (
    BINS,
    FARTHEST,
    distance_counts,
    distribution,
    distribution_error,
    find_bonds,
    pulled,
    with_shared_protons,
)
from _pulls import Pull
from _runs import (
    BROKEN,
    Job,
    Run,
    _run_in_process,
    first_broken,
    onset,
    read_run,
    run_jobs,
    simulate,
    start_dynamics,
)
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.io import read
from click.testing import CliRunner

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import Dynamics, read_card, write_card
from schnet_ase.registry.lookup import get_card
from schnet_ase.training import crossval, load_config
from tests.support.entries import make_entry
from tests.support.frames import write_ethanol, write_run
from tests.support.paths import ROOT


@pytest.mark.parametrize(("name", "shared"), [("acac", 1), ("rmd17-salicylic", 1), ("rmd17-ethanol", 0)])
def test_a_proton_between_two_oxygens_may_change_sides_and_not_leave(name, shared):
    atoms = get_card(name).structure.atoms()
    own = find_bonds(atoms.numbers, atoms.positions[None])
    bonds = with_shared_protons(own, atoms)
    assert len(bonds.mean) == len(own.mean) + shared
    assert bonds.off(atoms.positions, atoms.numbers) == 0.0
    if shared:
        proton, oxygen, length = bonds.first[-1], bonds.second[-1], bonds.mean[-1]
        there = atoms.positions.copy()
        direction = there[proton] - there[oxygen]
        there[proton] = there[oxygen] + length * direction / np.linalg.norm(direction)
        assert own.off(there, atoms.numbers) > 0.3
        assert bonds.off(there, atoms.numbers) == pytest.approx(0.0, abs=1e-9)
        there[proton] += 5.0
        assert bonds.off(there, atoms.numbers) > BROKEN
    for bond in range(len(own.mean)):
        stretched = atoms.positions.copy()
        stretched[own.second[bond]] += 20.0
        assert bonds.off(stretched, atoms.numbers) > BROKEN


def bonds_of(name, frames=1, seed=0):
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    positions = atoms.positions + 0.02 * rng.normal(size=(frames, len(atoms), 3))
    positions[0] = atoms.positions
    return atoms, positions, find_bonds(atoms.numbers, positions)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("CH3CH2OH", {"C–C": 1, "O–C": 1, "O–H": 1, "C–H": 5}),
        ("C6H6", {"C–C": 6, "C–H": 6}),
        ("H2O", {"O–H": 2}),
    ],
)
def test_bonds_of_molecules(name, kinds):
    atoms, _, bonds = bonds_of(name)
    names = bonds.names(atoms.numbers)
    assert {kind: names.count(kind) for kind in set(names)} == kinds


def test_lengths_over_the_frames():
    _, positions, bonds = bonds_of("CH3CH2OH", frames=50)
    lengths = [[np.linalg.norm(f[i] - f[j]) for i, j in zip(bonds.first, bonds.second, strict=True)] for f in positions]
    np.testing.assert_allclose(bonds.mean, np.mean(lengths, axis=0))
    np.testing.assert_allclose(bonds.longest, np.max(lengths, axis=0))
    np.testing.assert_allclose(bonds.lengths(positions), lengths)


@pytest.mark.parametrize("bond", range(8))
def test_pulling_a_bond_changes_no_other(bond):
    atoms, positions, bonds = bonds_of("CH3CH2OH")
    change = bonds.lengths(pulled(atoms, bonds, bond, 0.3).positions) - bonds.lengths(positions[0])
    np.testing.assert_allclose(change, 0.3 * (np.arange(8) == bond), atol=1e-10)


def test_a_ring_is_not_pulled():
    atoms, _, bonds = bonds_of("C6H6")
    with pytest.raises(ValueError, match="part of a ring"):
        pulled(atoms, bonds, bonds.names(atoms.numbers).index("C–C"), 0.1)


def test_distribution_of_distances():
    two = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, d]] for d in (1.005, 1.005, 3.005, 12.0)])
    counts = distance_counts(two)
    assert counts[50] == 2
    assert counts[150] == 1
    assert counts.sum() == 3  # 12 Å is beyond
    assert distribution(counts).sum() * FARTHEST / BINS == pytest.approx(1.0)
    assert distribution_error(counts, counts) == 0.0
    # Two distributions that do not overlap differ by one each.
    assert distribution_error(distance_counts(two[:2]), distance_counts(two[2:3])) == pytest.approx(2.0)


def test_a_bond_is_broken_when_it_is_half_an_angstrom_off_either_way():
    _, positions, bonds = bonds_of("CH3CH2OH", frames=200)
    off = np.abs(bonds.lengths(positions) - bonds.mean)
    assert first_broken(off.max(axis=1)) is None
    for change in (BROKEN + 0.01, -BROKEN - 0.01, np.nan):
        lengths = bonds.lengths(positions)
        lengths[120:, 3] = bonds.mean[3] + change
        assert first_broken(np.abs(lengths - bonds.mean).max(axis=1)) == 120


def test_onset_is_where_the_last_excursion_began():
    above = np.zeros(1000, dtype=bool)
    assert onset(above, 100) is None
    above[99] = True  # an earlier one, over for more than 100 steps
    above[[599, 650, 749, 849, 949]] = True
    assert onset(above, 100) == 600
    assert onset(above[:900], 100) == 600
    assert onset(above[:600], 100) == 600
    assert onset(above[:599], 100) is None  # it was over for 499 steps


def test_first_flag_of_a_pull():
    pull = Pull("O–H", 0, np.array([-0.1, 0.0, 0.1, 0.2]), np.array([0.01, 0.02, 0.3, np.nan]))
    assert pull.flagged_at(0.2) == 0.1
    assert pull.flagged_at(0.5) == 0.2
    assert pull._replace(deviation=np.full(4, 0.02)).flagged_at(0.5) == np.inf


class Springs(Calculator):
    """Three atoms held at 1 Å from each other."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        vectors = atoms.positions - np.roll(atoms.positions, 1, axis=0)
        lengths = np.linalg.norm(vectors, axis=1)[:, None]
        pull = -30.0 * (lengths - 1.0) * vectors / lengths
        self.results = {"energy": 15.0 * np.sum((lengths - 1.0) ** 2), "forces": pull - np.roll(pull, -1, axis=0)}


def test_dynamics_have_the_temperature_asked_for():
    """Three modes hold 3/2 kT of kinetic energy; ASE's chain, which reckons with nine, would give them 9/2."""
    atoms = Atoms("H3", [[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]], calculator=Springs())
    dynamics, degrees = start_dynamics(atoms, 500.0, np.random.default_rng(0))
    assert degrees == 3
    kinetic = []
    dynamics.attach(lambda: kinetic.append(atoms.get_kinetic_energy()))
    dynamics.run(3000)
    assert np.mean(kinetic[500:]) == pytest.approx(1.5 * units.kB * 500.0, rel=0.1)
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-6


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A calibrated ensemble that has learned little, and its data."""
    folder = tmp_path_factory.mktemp("small")
    return crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1), folder


def small_job(small, **changes):
    card, folder = small
    atoms = card.structure.atoms()
    bonds = find_bonds(atoms.numbers, atoms.positions[None])
    parts = (tuple(values.tolist()) for values in (bonds.first, bonds.second, bonds.mean))
    members = tuple(member.sha256 for member in card.members)
    job = Job(str(card.path), str(card.path), members, card.calibration.threshold(), *parts, 300.0, None, 0.1, 0)
    return job._replace(**changes)


def test_a_run_ends_where_a_bond_is_broken(small):
    """Means of the bonds that are wrong by almost half an ångström: the first vibration breaks one."""
    whole = simulate(small_job(small))
    assert not whole.collapsed
    assert whole.steps == 200
    assert sum(whole.counts) == 2 * 36  # two frames of nine atoms, 50 fs apart
    off = np.array(whole.last_bond_deviation)
    assert [max(off[:100]), max(off[100:])] == whole.bond_deviation
    job = small_job(small)
    limit = (off[0] + off.max()) / 2
    broken = simulate(job._replace(mean=tuple(m - BROKEN + limit for m in job.mean)))
    assert broken.collapsed
    assert 1 < broken.steps < 200
    assert broken.last_bond_deviation[-1] > BROKEN >= max(broken.last_bond_deviation[:-1])
    np.testing.assert_allclose(broken.last_deviation, whole.last_deviation[: broken.steps])


def test_every_step_above_the_threshold_counts_and_the_first_is_flagged(small):
    quiet = simulate(small_job(small, threshold=1e9))
    assert (quiet.above, quiet.flag_steps, quiet.onset) == (0, [], None)
    deviation = np.array(quiet.last_deviation)
    threshold = float(np.quantile(deviation, 0.8))
    above = 1 + np.flatnonzero(deviation > threshold)
    run = simulate(small_job(small, threshold=threshold))
    assert run.above == len(above)
    assert run.flag_steps[0] in (0, above[0])  # step 0 is the start itself
    assert run.onset == onset(deviation > threshold, 100)


def test_a_result_of_other_weights_or_reference_is_not_read(small, tmp_path):
    job = small_job(small)
    run = Run(10, True, 300.0, 1, 5, [5], [0.1], 1.0, [0] * BINS, [0.1], [0.1], [0.1], [0.1])
    name = Path(job.entry).name
    kept = {"job": job._replace(entry=name, structure=name)._asdict(), "run": run._asdict()}
    (tmp_path / job.file).write_text(json.dumps(kept))
    assert read_run(job, tmp_path) == run
    assert read_run(job._replace(entry=f"/elsewhere/{name}", structure=f"/other/{name}"), tmp_path) == run
    assert read_run(job._replace(structure="other"), tmp_path) is None
    del kept["job"]["structure"]  # as runs were kept that began at the entry's own
    (tmp_path / job.file).write_text(json.dumps(kept))
    assert read_run(job, tmp_path) == run
    assert read_run(job._replace(structure="other"), tmp_path) is None
    assert read_run(job._replace(members=("other",)), tmp_path) is None
    assert read_run(job._replace(mean=(1.0,) * 8), tmp_path) is None
    assert read_run(job._replace(seed=1), tmp_path) is None


def test_a_run_whose_study_was_killed_ends_without_a_result(small, tmp_path):
    context = get_context("spawn")
    made = context.Value("d", 0.0)
    process = context.Process(target=_run_in_process, args=(small_job(small), tmp_path, made, -1))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert made.value == 0.05  # ps: it had begun
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_one_error(small, tmp_path):
    job = small_job(small, entry=str(tmp_path / "nowhere"))
    with Progress(1, "runs") as progress, pytest.raises(SchNetError, match="its process ended with status 1"):
        list(run_jobs([job], tmp_path, 1, progress))


def test_the_study_of_a_small_ensemble(small, tmp_path):
    """The page and the picture, and a second start repeats nothing but the run that is missing."""
    card, folder = small
    command = [sys.executable, ROOT / "benchmarks" / "stability.py", str(card.path), folder / "test.extxyz"]
    command += [
        folder / "ethanol.extxyz",
        "--picoseconds",
        "0.05",
        "--hot-picoseconds",
        "0.05",
        "--seeds",
        "2",
        "--hot-seeds",
        "2",
    ]
    command += ["--starts", "1", "--workers", "1", "--runs", tmp_path / "runs", "--output", tmp_path / "docs"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    runs = sorted((tmp_path / "runs").glob("*.json"))
    assert len(runs) == 4
    assert "| O–H | 2 |" in first.stdout
    assert "| C–H | 10 |" in first.stdout
    page, picture = (tmp_path / "docs" / f"stability-{card.name}.{suffix}" for suffix in ("md", "png"))
    assert page.read_text() in first.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    runs[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in runs[1:]}
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert runs[0].exists()
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_flag_rate(small):
    """The shares are those that the calculator finds frame by frame."""
    card, folder = small
    files = [write_ethanol(folder / "calm.extxyz", 40, seed=4), write_ethanol(folder / "hot.extxyz", 40, 5, 0.1)]
    result = CliRunner().invoke(flag_rate.main, [str(card.path), *map(str, files), "--rate", "0.2"])
    assert result.exit_code == 0, result.output
    calculator = SchNetEnsembleCalculator(card.path)
    threshold = calculator.calibration.threshold(0.2)
    shares = []
    for file in files:
        largest = [calculator.get_property("forces_deviation", atoms).max() for atoms in read(file, ":")]
        shares.append(np.mean(np.array(largest) > threshold))
    assert 0.0 < shares[0] < shares[1]
    assert [f"{share:.1%}" for share in shares] == [
        row.split("|")[3].strip() for row in result.output.splitlines()[-2:]
    ]
    assert f"{threshold:.4f} eV/Å" in result.output
    for column in (4, 5):
        at_rate = [float(row.split("|")[column].strip(" %")) for row in result.output.splitlines()[-2:]]
        assert at_rate[0] == 20.0 < at_rate[1]


def test_dynamics_on_the_card(small, tmp_path, monkeypatch):
    """What the card says is what the run was, and the rest of the entry is as before."""
    card, _ = small
    folder = shutil.copytree(card.path, tmp_path / "copy")
    monkeypatch.setattr(sys, "argv", ["card_dynamics.py", "copy"])
    arguments = [str(folder), "--picoseconds", "0.2", "--temperature", "600", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(card_dynamics.main, arguments)
    assert result.exit_code == 0, result.output
    new = read_card(folder)
    assert replace(new, dynamics=None, path=card.path, name=card.name) == card
    (file,) = (tmp_path / "runs").glob("*.json")
    run = json.loads(file.read_text())["run"]
    found = new.dynamics
    assert found.stable == run["steps"] * 0.5e-3 <= 0.2
    assert (found.temperature, found.picoseconds) == (600.0, 0.2)
    assert (found.flagged is None) == (not run["flag_steps"])
    assert len(found.milliseconds) == len(card.members)
    assert all(t > 0.0 for t in (*found.milliseconds, found.yardstick))
    assert found.lines()[0] in result.output
    calculator = SchNetEnsembleCalculator(folder)
    assert found.threshold == calculator.calibration.threshold()
    arguments = [*arguments, "--molecule", "rmd17-malonaldehyde", "--runs", str(tmp_path / "other")]
    other = CliRunner().invoke(card_dynamics.main, arguments)
    assert other.exit_code == 0, other.output
    (run,) = read_card(folder).dynamics.others
    assert run.structure == "rmd17-malonaldehyde"
    assert f"the same of rmd17-malonaldehyde: {found.outcome(run.stable, run.flagged)}" in other.output
    assert replace(read_card(folder).dynamics, others=()) == found
    longer = CliRunner().invoke(card_dynamics.main, [*arguments, "--picoseconds", "0.3"])
    assert longer.exit_code == 2
    assert "copy: no run of 0.3 ps at 600 K; first without --molecule" in longer.output
    (file,) = (tmp_path / "other").glob("*.json")
    job = json.loads(file.read_text())["job"]
    assert (job["entry"], job["structure"]) == ("copy", "rmd17-malonaldehyde")
    assert len(job["mean"]) == 8, (
        "bonds of malonaldehyde, which has a ring of six with its hydrogen bond's proton aside"
    )


def test_times_alone_are_written_to_the_card(small, tmp_path):
    card, _ = small
    folder = shutil.copytree(card.path, tmp_path / "copy")
    run = Dynamics(500.0, 100.0, 100.0, 0.1, None, (1.0,), "none", "a command")
    write_card(replace(card, dynamics=run), folder)
    result = CliRunner().invoke(card_times.main, [str(folder)])
    assert result.exit_code == 0, result.output
    new = read_card(folder).dynamics
    assert replace(new, milliseconds=(1.0,), yardstick=None, processor="none") == run
    assert len(new.milliseconds) == len(card.members)
    (row,) = (line for line in result.output.splitlines() if line.startswith("| copy |"))
    assert float(row.split("|")[5]) == pytest.approx(max(new.milliseconds) / new.yardstick, abs=0.006)
    assert f"{new.yardstick:.2f} of a network of 3 × 128" in new.lines()[1]


def test_other_molecules_and_entries_without_calibration_are_refused(small, tmp_path):
    card, folder = small
    test = str(folder / "test.extxyz")
    other = tmp_path / "water.extxyz"
    molecule("H2O").write(other)
    for arguments, message in (
        ([str(card.path), str(other), test], "frame 0 has the atomic numbers [8, 1, 1]; expected [6, 6, 8"),
        ([str(make_entry(tmp_path).path), test, test], "has no calibration, so no threshold; run schnet-ase calibrate"),
    ):
        result = CliRunner().invoke(stability.main, arguments)
        assert result.exit_code == 2
        assert message in result.output
        assert result.output.count("\n") == 1
