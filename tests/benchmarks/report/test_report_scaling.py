"""The report's scaling with training frames: fair splits, kernels that learn, results that are kept."""

import json
from pathlib import Path

import _learners
import _scaling
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from report import scaling

from schnet_ase.data import read_dataset
from schnet_ase.data.frames import Frame
from schnet_ase.errors import DataError
from schnet_ase.output.progress import Progress
from tests.support.frames import write_ethanol


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    return write_ethanol(folder / "train.extxyz", 100), write_ethanol(folder / "test.extxyz", 20, seed=1)


def test_splits_contain_each_other():
    small, large = _scaling.split(100, 30), _scaling.split(100, 80)
    assert set(small.training) < set(large.training)
    assert len(small.training) == 30
    np.testing.assert_array_equal(small.validation, large.validation)
    assert not set(large.training) & set(large.validation)
    with pytest.raises(DataError, match="81 frames to train on, of 80"):
        _scaling.split(100, 81)


def test_sorted_descriptor_is_blind_to_like_atoms(files):
    """And nothing else: hydrogens and carbons that change places, a hydrogen and a carbon that do."""
    frame = read_dataset(files[0]).frames[0]
    numbers, positions, cell, pbc = frame.geometry

    def swapped(i, j):
        order = np.arange(len(numbers))
        order[[i, j]] = order[[j, i]]
        return Frame(frame.geometry._replace(positions=positions[order]), None, None)

    h, other_h = np.flatnonzero(numbers == 1)[:2]
    c, other_c = np.flatnonzero(numbers == 6)
    frames = [frame, swapped(h, other_h), swapped(c, other_c), swapped(c, h)]
    own, hydrogens, carbons, different = _learners.sorted_inverse_distances(frames)
    np.testing.assert_allclose(hydrogens, own)
    np.testing.assert_allclose(carbons, own)
    assert np.abs(different - own).max() > 0.1
    plain, moved = _learners.inverse_distances(frames[:2])
    assert np.abs(plain - moved).max() > 0.1
    assert len(own) == len(plain) == 36


def test_ridge_regression_learns_energies(files):
    """And predicts them where it was not trained, absolute."""
    dataset, test = map(read_dataset, files)
    task = _learners.Task(dataset, _scaling.split(100, 80), 0, Path())
    learned = _learners.learn_energies(task, lambda share: None)
    energies = np.array([frame.energy for frame in test.frames])
    predicted = learned.predict(test.frames)
    assert np.abs(predicted.energy - energies).mean() < 0.3 * np.abs(energies - energies.mean()).mean()
    assert predicted.forces is None
    assert learned.parameters == 80


def test_a_training_in_its_own_process(files, tmp_path):
    """Of sGDML: it is kept, for this job and no other."""
    job = _scaling.Job("sGDML", 30, *files, steps=0)
    progress = Progress(100, "test")
    result = _scaling.run(job, tmp_path, progress)
    assert progress.done == 100
    zero = 1000.0 * np.mean([np.abs(frame.forces).mean() for frame in read_dataset(files[1]).frames])
    assert result.forces < 0.3 * zero
    assert result.parameters == 3 * 9 * 30
    assert result.kernel_mb == pytest.approx(8e-6 * result.parameters**2)
    assert result.memory_mb > result.kernel_mb
    assert _scaling.read_result(job, tmp_path) == result
    assert _scaling.read_result(job._replace(n=9), tmp_path) is None
    assert _scaling.read_result(job._replace(test=files[0]), tmp_path) is None


def test_schnet_begins_anew(files, tmp_path):
    dataset, test = map(read_dataset, files)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.safetensors").write_text("of a training that was interrupted")
    told = []
    learned = _learners.learn_schnet(_learners.Task(dataset, _scaling.split(100, 10), 3, tmp_path / "run"), told.append)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])
    energies = learned.predict(test.frames).energy
    assert np.ptp(energies) > 0
    assert np.abs(energies - np.mean([f.energy for f in test.frames])).max() < 2.0


def test_page_of_kept_results(files, tmp_path):
    """Powers of the frames as they were put in; nothing is trained."""
    for n in (10, 20, 40):
        for method in ("SchNet", "sGDML", "kernel ridge"):
            job = _scaling.Job(method, n, *files, steps=5 if method == "SchNet" else 0)
            forces = None if method == "kernel ridge" else 40.0 * n**-0.25
            result = _scaling.Result(method, n, 9.0 * n**-0.5, forces, 0.1 * n**3, n**2.0, 1.0, 0.01 * n, n, "")
            kept = tmp_path / "runs" / "train" / f"{job.name}.json"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"job": job.identity(), "result": result._asdict()}))
    arguments = [*map(str, files), "--steps", "5", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    for n in (10, 20, 40):
        arguments += ["--frames", str(n)]
    result = CliRunner().invoke(scaling.main, arguments)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "scaling.md").read_text()
    exact = "| SchNet | -0.50 ± 0.00 | -0.25 ± 0.00 | 3.00 ± 0.00 | 2.00 ± 0.00 | 1.00 ± 0.00 |"
    assert exact in page
    assert exact.replace("SchNet", "kernel ridge").replace("-0.25 ± 0.00", "") in page
    assert len((tmp_path / "scaling.csv").read_text().splitlines()) == 10
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_several_molecules(files, tmp_path):
    molecule("CH4").write(tmp_path / "methane.extxyz")
    result = CliRunner().invoke(scaling.main, [str(files[0]), str(tmp_path / "methane.extxyz")])
    assert result.exit_code == 2
    assert "frames of several molecules; expected one" in result.output
