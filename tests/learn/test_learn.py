"""On-the-fly learning: the loop as a whole, what ends it, and kills."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import LearnError
from schnet_ase.learn import FlagConfig, ReferenceConfig, learn
from schnet_ase.learn.audit import Failed, Finished, Flagged, Generation, Labelled, describe, read_audit
from schnet_ase.learn.labels import group
from schnet_ase.registry.checkpoint import read_provenance
from tests.support.learning import FOLDS, STARTING, tiny, write_partly_labelled
from tests.support.paths import ROOT
from tests.support.references import AlwaysFails

KILLS = int(os.environ.get("SCHNET_ASE_KILLS", "6"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run to its end: its folder, configuration, result and events."""
    folder = tmp_path_factory.mktemp("learn")
    config = tiny(folder)
    result = learn(config, folder / "run", workers=1)
    return folder / "run", config, result, read_audit(result.audit)


def test_the_budget_is_spent_and_everything_is_on_disk(finished):
    folder, config, result, events = finished
    labels = [event for event in events if isinstance(event, Labelled)]
    assert [label.number for label in labels] == list(range(STARTING + 5))
    assert [label.served for label in labels] == ["given"] * STARTING + ["reference"] * 5
    flags = [event for event in events if isinstance(event, Flagged)]
    assert [sum(label.flag == flag.number for label in labels) for flag in flags] == [3, 2]
    generations = [event for event in events if isinstance(event, Generation)]
    assert [g.labels for g in generations] == [STARTING, STARTING + 3, STARTING + 5]
    assert isinstance(events[-1], Finished)
    assert result.end == events[-1]
    assert result.end.labels == config.max_labels
    assert result.doubts[-1] == "max_labels = 50 was reached before 0.05 ps passed without a flag"
    for g in generations:
        assert SchNetEnsembleCalculator(folder / f"generation-{g.generation:03d}" / config.name).calibration
    assert (folder / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert all("\n" not in describe(event) for event in events)


def test_no_geometry_has_two_labels(finished):
    """Though the dynamics begins with a labelled frame above the threshold, and the course begins there again."""
    _, _, result, events = finished
    flags = [event for event in events if isinstance(event, Flagged)]
    assert flags[0].safe_step is None
    assert (flags[0].step, flags[0].deviation > flags[0].threshold) == (0, True)
    assert "; where it began" in describe(flags[0])
    distances = [frame.get_all_distances() for frame in read(result.labels, ":")]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in combinations(distances, 2))


def test_labels_are_those_of_the_reference(finished):
    _, _, result, _ = finished
    frames = read(result.labels, ":")
    for frame in frames[:: len(frames) // 7]:
        atoms = frame.copy()
        atoms.calc = EMT()
        assert frame.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), atol=1e-5)


def test_errors_before_are_those_of_the_ensemble_that_flagged(finished):
    folder, config, result, events = finished
    label = next(event for event in events if isinstance(event, Labelled) and event.flag == 0)
    frame = read(result.labels, label.number)
    atoms = frame.copy()
    atoms.calc = SchNetEnsembleCalculator(folder / "generation-000" / config.name)
    error = np.abs(atoms.get_forces() - frame.get_forces()).mean()
    assert label.force_mae == pytest.approx(error, rel=1e-4)
    assert label.deviation == pytest.approx(atoms.calc.results["forces_deviation"].max(), rel=1e-4)


def test_no_member_ever_trains_on_what_is_kept_from_it(finished):
    folder, config, _, events = finished
    for number in range(3):
        for k in range(FOLDS):
            header = read_provenance(folder / f"generation-{number:03d}" / config.name / f"fold-{k + 1}.safetensors")
            groups = {group(n, FOLDS, config.seed) for n in header["training_frames"]}
            assert groups == set(range(FOLDS)) - {k}
            assert {group(n, FOLDS, config.seed) for n in header["validation_frames"]} == {k}


def test_flags_go_back_to_a_frame_under_the_threshold(finished):
    _, _, _, events = finished
    began = 0
    for flag in events:
        if isinstance(flag, Flagged):
            assert flag.deviation > flag.threshold
            assert flag.safe_step == (None if flag.step == began else flag.step - 1)
            assert flag.candidates >= 1
            began = began if flag.safe_step is None else flag.safe_step


def test_a_finished_run_is_left_as_it_is(finished):
    folder, config, result, events = finished
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".jsonl", ".extxyz", ".npz")
    }
    new = []
    assert learn(config, folder, workers=1, report=new.append) == result
    assert new == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_configuration_does_not_go_on(finished):
    folder, config, _, _ = finished
    with pytest.raises(LearnError, match="holds a run of another configuration"):
        learn(replace(config, seed=2), folder, workers=1)


def test_quiet_dynamics_ends_it(tmp_path, caplog):
    """With a threshold that flags nothing it has learned nothing, and says so: before the dynamics, and after it."""
    config = tiny(tmp_path, flags=FlagConfig(threshold=(1e4, 1e5)))
    result = learn(config, tmp_path / "run", workers=1)
    assert result.end == Finished("0.05 ps without a flag", STARTING, 1, 50.0)
    assert not (tmp_path / "run" / "learning.png").exists(), "one point is no curve"
    assert [doubt.split()[1] for doubt in result.doubts] == ["held-out", "frame"]
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name == "schnet_ase"]
    assert [line.split(":")[0] for line in warnings] == [
        "the first ensemble is not fit for dynamics",
        "the ensemble is not yet fit for dynamics",
    ]
    assert "a frame is flagged only above 10000.00 eV/Å" in warnings[1]
    assert f"more training.steps (now {config.training.steps})" in warnings[1]
    assert f"the labels of this one, {tmp_path}/run/labels.extxyz" in warnings[1]
    caplog.clear()
    assert learn(config, tmp_path / "run", workers=1) == result
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == warnings[1:]


def test_flags_without_a_label_end_it_until_the_reference_works(finished, tmp_path, monkeypatch):
    folder, _, _, _ = finished
    reference = ReferenceConfig("tests.support.references.AlwaysFails")
    config, run = tiny(tmp_path, reference=reference), tmp_path / "run"
    logs = []
    for _ in range(2):  # the second start asks the same again
        AlwaysFails.asked.clear()
        with pytest.raises(LearnError, match="5 flags in a row gave no label"):
            learn(config, run, workers=1)
        events = read_audit(run / "audit.jsonl")
        assert sum(isinstance(event, Flagged) for event in events) == 5
        assert not any(isinstance(event, Labelled) and event.served == "reference" for event in events)
        assert len(AlwaysFails.asked) == sum(isinstance(event, Failed) for event in events) > 5
        assert all(np.abs(a - b).max() > 1e-3 for a, b in combinations(AlwaysFails.asked, 2)), "none is asked twice"
        logs.append((run / "audit.jsonl").read_bytes())
    assert logs[0] == logs[1]
    monkeypatch.setattr(AlwaysFails, "longest", 100.0)
    learn(config, run, workers=1)
    for name in ("audit.jsonl", "labels.extxyz"):  # as if it had always worked
        assert (run / name).read_bytes() == (folder / name).read_bytes()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(LearnError, match="run cannot be created as a folder"):
        learn(tiny(tmp_path), tmp_path / "run", workers=1)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(LearnError, match="holds no run of learning"):
        learn(tiny(tmp_path), tmp_path / "run", workers=1)


def test_a_folder_that_a_kill_left_with_half_a_file(finished, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.abc.tmp").write_text("{")
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=0)
    fails = ReferenceConfig("tests.support.references.AlwaysFails")
    with pytest.raises(LearnError, match="^0 first labels"):  # it begins
        learn(tiny(tmp_path, reference=fails), tmp_path / "run", workers=1)


SCRIPT = """
import sys
from pathlib import Path
import torch
from schnet_ase.learn import learn
from tests.support.learning import tiny
torch.set_num_threads(1)
learn(tiny(Path(sys.argv[1])), Path(sys.argv[1]) / "run", workers=1)
"""


def test_killed_and_started_again_it_is_the_same_run(finished, tmp_path):
    folder, _, _, _ = finished
    write(tmp_path / "start.extxyz", read(folder.parent / "start.extxyz", ":"))
    rng = np.random.default_rng(0)
    run, kills = tmp_path / "run", 0
    while True:
        with subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path], cwd=ROOT) as process:
            if kills < KILLS:
                _wait_for_something_new(run, process, float(rng.uniform(0.0, 0.6)))
                process.kill()
                kills += process.wait() != 0
        if process.returncode == 0:
            break
        assert process.returncode == -9
    assert kills == KILLS
    for name in ("audit.jsonl", "labels.extxyz", "config.json"):
        assert (run / name).read_bytes() == (folder / name).read_bytes()


def _wait_for_something_new(folder, process, more):
    """Until the run has written something, and a moment more."""

    def state():
        found = set()
        for place, _, names in os.walk(folder):
            for path in (Path(place, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # a temporary file that has got its name since
                    found.add((path, path.stat().st_mtime_ns))
        return found

    before = state()
    while state() == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(more)


def test_config_on_disk_says_what_was_asked(finished):
    folder, config, _, _ = finished
    table = json.loads((folder / "config.json").read_text())
    assert table["reference"]["calculator"] == "ase.calculators.emt.EMT"
    assert table["training"]["steps"] == config.training.steps
