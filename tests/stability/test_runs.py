"""Runs of a small ensemble: where they end, what is flagged, and what is kept of them."""

from dataclasses import replace
from multiprocessing import Pipe

import numpy as np
import pytest

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.stability import dynamics as module
from schnet_ase.stability.bonds import BROKEN
from schnet_ase.stability.dynamics import simulate
from schnet_ase.stability.pool import _run_in_process, run_jobs
from schnet_ase.stability.runs import Run, make_job, read_kept, read_run
from schnet_ase.stability.thermostats import start


@pytest.fixture
def job(small):
    return make_job(small, small, 300.0, 0.1)


def same(run, other):
    """But for the time that they took."""
    return all(np.array_equal(a, b) for a, b in zip(run[:-1], other[:-1], strict=True))


def test_a_run_ends_where_a_bond_is_broken(job, tmp_path):
    """Means of the bonds that are wrong by almost half an ångström: the first vibration breaks one."""
    whole = simulate(job, tmp_path / "whole")
    assert not whole.collapsed
    assert whole.steps == 200
    assert whole.frames.shape == (2, 9, 3)  # 50 fs apart
    assert len(whole.off) == 200
    assert len(whole.deviation) == len(whole.kinetic) == 201
    limit = (whole.off[0] + whole.off.max()) / 2
    bonds = replace(job.bonds, mean=job.bonds.mean - BROKEN + limit)
    broken = simulate(job._replace(bonds=bonds), tmp_path / "broken")
    assert broken.collapsed
    assert 1 < broken.steps < 200
    assert broken.off[-1] > BROKEN >= broken.off[:-1].max()
    assert bonds.off(broken.last) == broken.off[-1]
    np.testing.assert_array_equal(broken.deviation, whole.deviation[: broken.steps + 1])


def test_flags_are_those_of_the_monitor(small, tmp_path):
    """At a threshold that is exceeded now and then, for the run that a monitor watched."""
    job = make_job(small, small, 300.0, 0.3)
    run = simulate(job, tmp_path)
    assert run.flags(1e9) == []
    threshold = float(np.quantile(run.deviation, 0.8))
    atoms = job.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(small.path, threads=1)
    begun = start(atoms, 300.0, 0)
    files = {"file": tmp_path / "flagged.extxyz", "log": tmp_path / "uncertainty.csv"}
    monitor = UncertaintyMonitor(atoms, threshold=threshold, **files)
    begun.dynamics.attach(monitor)
    begun.dynamics.run(job.steps)
    assert [flag.step for flag in monitor.flags] == run.flags(threshold)
    assert len(monitor.flags) > 2
    assert [flag.largest for flag in monitor.flags] == [run.deviation[step] for step in run.flags(threshold)]


def test_what_is_no_number_is_flagged():
    nothing = np.empty(0)
    deviation = np.full(400, 0.1)
    deviation[[3, 50, 104, 300]] = 0.5, 0.5, np.nan, np.inf
    run = Run(399, False, 3, nothing, deviation, nothing, nothing, nothing, 0.0)
    assert run.flags(0.2) == [3, 104, 300]  # a monitor is silent for 100 steps


def test_a_longer_run_goes_on_from_a_shorter_and_a_shorter_is_its_beginning(job, tmp_path):
    short = simulate(job, tmp_path)
    longer = simulate(job._replace(picoseconds=0.3), tmp_path)
    assert longer.steps == 600
    np.testing.assert_array_equal(longer.off[:200], short.off)
    assert same(longer, simulate(job._replace(picoseconds=0.3), tmp_path / "anew"))
    again = read_run(job, tmp_path)
    assert same(again[:7], short[:7])


@pytest.mark.parametrize("periodic", [False, True])
def test_a_run_that_was_killed_ends_as_one_that_was_not(small, periodic, tmp_path, monkeypatch):
    """A box has a neighbour list, which depends on when it was made."""
    structure = small.structure
    if periodic:
        cell = ((15.0, 0.0, 0.0), (0.0, 15.0, 0.0), (0.0, 0.0, 15.0))
        structure = replace(structure, cell=cell, pbc=(True, True, True))
    job = make_job(small, replace(small, structure=structure), 300.0, 0.35)
    monkeypatch.setattr(module, "STATE_STEPS", 200)
    whole = simulate(job, tmp_path / "whole")

    def interrupt(steps):
        if steps == 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(job, tmp_path, report=interrupt)
    assert read_run(job, tmp_path) is None
    kept = read_kept(job, tmp_path)
    assert kept.state.step == kept.run.steps == 400
    made = []
    resumed = simulate(job, tmp_path, report=made.append)
    assert made == [400, 500, 600, 700]
    assert same(whole, resumed)
    assert same(read_run(job, tmp_path), whole)


def test_a_result_of_other_weights_or_reference_is_not_read(job, tmp_path):
    run = simulate(job, tmp_path)
    assert same(read_run(job, tmp_path), run)
    moved = job._replace(entry=tmp_path / "elsewhere")
    assert same(read_run(moved, tmp_path), run)
    others = (
        {"members": ("other",)},
        {"bonds": replace(job.bonds, mean=job.bonds.mean + 0.1)},
        {"structure": replace(job.structure, pbc=(True, True, True))},
    )
    for change in others:
        assert read_kept(job._replace(**change), tmp_path) is None
    assert read_kept(job._replace(seed=1), tmp_path) is None
    (tmp_path / job.file).write_bytes(b"no archive")
    assert read_kept(job, tmp_path) is None
    (tmp_path / job.file).write_bytes(b"PK\x03\x04 half of one")
    assert read_kept(job, tmp_path) is None


def test_runs_side_by_side_are_those_one_after_the_other(small, tmp_path):
    jobs = [make_job(small, small, 300.0, 0.1, seed) for seed in range(2)]
    with Progress(400, "runs") as progress:
        alone = dict(zip((0, 1), (run for _, run in run_jobs(jobs, tmp_path / "alone", 1, progress)), strict=True))
        assert progress.done == 400
    with Progress(400, "runs") as progress:
        for job, run in run_jobs(jobs, tmp_path / "both", 2, progress):
            assert same(run, alone[job.seed])
        assert progress.done == 400
    assert not same(alone[0], alone[1])


def test_an_entry_that_cannot_be_loaded_is_one_error(job, tmp_path):
    job = job._replace(entry=tmp_path / "nowhere")
    with Progress(1, "runs") as progress, pytest.raises(SchNetError, match="no such file") as caught:
        list(run_jobs([job], tmp_path, 1, progress))
    here, there = Pipe(duplex=False)
    _run_in_process(job, tmp_path, there)
    assert here.recv() == str(caught.value)


def test_a_process_that_nobody_waits_for_saves_what_it_has_and_ends(job, tmp_path):
    here, there = Pipe(duplex=False)
    here.close()
    _run_in_process(job, tmp_path, there)
    assert read_kept(job, tmp_path) is not None
    assert read_run(job, tmp_path) is None
