"""On-the-fly learning: the loop as a whole, what it does with a reference that fails, and kills."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write

from schnet_ase import SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.errors import ConfigError, DataError, LearnError
from schnet_ase.learn import DynamicsConfig, FlagConfig, LearnConfig, ReferenceConfig, learn, load_learn_config
from schnet_ase.learn.audit import Failed, Finished, Flagged, Generation, Labelled, describe, read_audit
from schnet_ase.learn.labels import group
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import TrainingConfig
from tests.support.frames import labelled_ethanol, write_ethanol
from tests.support.paths import ROOT

KILLS = int(os.environ.get("SCHNET_ASE_KILLS", "6"))
FOLDS = 4
STARTING = 45


class FailsWhenStretched(EMT):
    """EMT that gives up on some frames, and always on the same."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if atoms.get_distance(0, 1) > self.longest:
            raise RuntimeError("SCF not converged\nafter 100 cycles")
        super().calculate(atoms, list(properties), list(system_changes))

    longest = 1.62


class AlwaysFails(FailsWhenStretched):
    longest = 0.0
    asked: ClassVar[list[np.ndarray]] = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        self.asked.append(atoms.get_positions())
        super().calculate(atoms, properties, system_changes)


class EndsTheProcess(EMT):
    """EMT that ends the process, as a fault in compiled code would."""

    mended: ClassVar[bool] = False

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if not self.mended:
            os.kill(os.getpid(), 9)
        super().calculate(atoms, list(properties), list(system_changes))


class Wandering(EMT):
    """EMT in another working folder."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if Path("elsewhere").exists():
            os.chdir("elsewhere")
        super().calculate(atoms, list(properties), list(system_changes))


class Recording(EMT):
    """EMT that keeps what it was asked about."""

    asked: ClassVar[list[Atoms]] = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        self.asked.append(atoms.copy())
        super().calculate(atoms, list(properties), list(system_changes))


def tiny(folder: Path, **changes) -> LearnConfig:
    """Seconds of learning from EMT."""
    start = folder / "start.extxyz"
    if not start.exists():
        write_ethanol(start, STARTING)
    config = LearnConfig(
        name="ethanol-emt",
        start=str(start),
        reference=ReferenceConfig("ase.calculators.emt.EMT"),
        dynamics=DynamicsConfig(temperature=100.0, quiet=0.05),
        flags=FlagConfig(threshold=(0.05, 1000.0), labels=3, explore=10.0),
        model=SchNetConfig(n_features=8, n_interactions=1, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial"),
        training=TrainingConfig(steps=20, batch_size=5, learning_rate=1e-2, warmup=2, validate_every=10, ema=0.9),
        max_labels=STARTING + 5,
        folds=FOLDS,
        seed=1,
    )
    return replace(config, **changes)


def write_partly_labelled(path: Path, n_frames: int, labelled: int) -> list[Atoms]:
    """Frames of which the first so many keep their labels."""
    frames = labelled_ethanol(n_frames)
    for frame in frames[labelled:]:
        frame.calc = None
    write(path, frames)
    return frames


class Untrained(Exception):
    """A run has come to its first training."""


@pytest.fixture
def untrained(monkeypatch):
    """Runs end where all first frames are labelled."""

    def end(*arguments):
        raise Untrained

    monkeypatch.setattr("schnet_ase.learn.loop.train_generation", end)


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


def test_what_the_first_frames_are_goes_with_them(tmp_path):
    """Atoms that are held, charges and moments that a reference wants to know, and what else it reads from info."""
    frames = labelled_ethanol(STARTING)
    for frame in frames:
        frame.calc = None
        frame.info["spin"] = 3
        frame.set_initial_magnetic_moments([1.0] + 8 * [0.0])
        frame.set_initial_charges(8 * [0.0] + [0.5])
        frame.set_constraint(FixAtoms([0]))
    write(tmp_path / "start.extxyz", frames)
    reference = ReferenceConfig("tests.learn.test_learn.Recording")
    Recording.asked.clear()
    result = learn(tiny(tmp_path, reference=reference), tmp_path / "run", workers=1)
    labels = read(result.labels, ":")
    assert len(labels) == len(Recording.asked) == STARTING + 5
    for asked, label in zip(Recording.asked, labels, strict=True):
        assert asked.info["spin"] == 3
        for atoms in (asked, label):
            assert atoms.get_initial_magnetic_moments().tolist() == [1.0] + 8 * [0.0]
            assert atoms.get_initial_charges().tolist() == 8 * [0.0] + [0.5]
        assert np.abs(label.get_forces(apply_constraint=False)[0]).max() > 0
    calmest = min(labels[:STARTING], key=lambda frame: frame.get_potential_energy())
    for label in labels[STARTING:]:
        moved = np.abs(label.positions - calmest.positions).max(axis=1)
        assert moved[0] < 1e-7
        assert moved[1:].max() > 1e-3


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


def test_first_frames_without_labels_are_labelled(tmp_path):
    frames = labelled_ethanol(STARTING)
    for frame in frames[::2]:
        frame.calc = None
    write(tmp_path / "start.extxyz", frames)
    result = learn(tiny(tmp_path, max_labels=STARTING), tmp_path / "run", workers=1)
    served = [event.served for event in read_audit(result.audit) if isinstance(event, Labelled)]
    assert served == ["reference", "given"] * (STARTING // 2) + ["reference"]
    assert result.end.generations == 1


def test_a_reference_that_fails_is_recorded_and_skipped(tmp_path):
    frames = write_partly_labelled(tmp_path / "start.extxyz", 60, labelled=0)
    failing = [i for i, frame in enumerate(frames) if frame.get_distance(0, 1) > FailsWhenStretched.longest]
    assert 1 < len(failing) < 15
    reference = ReferenceConfig("tests.learn.test_learn.FailsWhenStretched")
    config = tiny(tmp_path, reference=reference, flags=FlagConfig(threshold=(1e4, 1e5)), max_labels=60)
    result = learn(config, tmp_path / "run", workers=1)
    events = read_audit(result.audit)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.frame for event in failed] == failing
    assert failed[0].reason == "RuntimeError: SCF not converged after 100 cycles"
    assert result.end.labels == 60 - len(failing)


def test_flags_without_a_label_end_it_until_the_reference_works(finished, tmp_path, monkeypatch):
    folder, _, _, _ = finished
    reference = ReferenceConfig("tests.learn.test_learn.AlwaysFails")
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


@pytest.mark.parametrize("labelled", [0, 20])
def test_first_frames_without_a_label_are_asked_about_again(tmp_path, monkeypatch, untrained, labelled):
    """By the same command, once a licence or a path is there that was not."""
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled)
    config = tiny(tmp_path, reference=ReferenceConfig("tests.learn.test_learn.AlwaysFails"))
    with pytest.raises(LearnError, match=f"^{labelled} first labels, as the reference failed on {STARTING - labelled}"):
        learn(config, tmp_path / "run", workers=1)
    monkeypatch.setattr(AlwaysFails, "longest", 100.0)
    with pytest.raises(Untrained):
        learn(config, tmp_path / "run", workers=1)
    assert [event.number for event in read_audit(tmp_path / "run" / "audit.jsonl")] == list(range(STARTING))


def test_too_few_first_frames_cost_no_label(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", 20, labelled=0)
    with pytest.raises(LearnError, match=r"20 first frames; one in 5 .*: 4 calibration frames .* needs 9"):
        learn(tiny(tmp_path), tmp_path / "run", workers=1)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_more_first_frames_than_labels_in_all_cost_no_label(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING + 1, labelled=0)
    with pytest.raises(LearnError, match=f"has {STARTING + 1} frames and max_labels is {STARTING}, which counts them"):
        learn(tiny(tmp_path, max_labels=STARTING), tmp_path / "run", workers=1)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.parametrize("argument", [Path("x"), np.bool_(True), Lock()])
def test_arguments_that_cannot_be_written_down(tmp_path, argument):
    reference = ReferenceConfig("ase.calculators.calculator.Calculator", {"label": argument})
    with pytest.raises(LearnError, match=r"^reference\.arguments cannot be written .* function of your own") as caught:
        learn(tiny(tmp_path, reference=reference), tmp_path / "run", workers=1)
    assert "\n" not in str(caught.value)


def test_a_reference_may_change_the_working_folder(tmp_path, monkeypatch, untrained):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=0)
    config = tiny(tmp_path, reference=ReferenceConfig("tests.learn.test_learn.Wandering"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Untrained):
        learn(config, "run", workers=1)
    assert Path.cwd() == tmp_path / "elsewhere"
    assert list(Path.cwd().iterdir()) == []
    assert len(read("../run/labels.extxyz", ":")) == len(read_audit(Path("../run/audit.jsonl"))) == STARTING


def test_too_few_first_labels(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=20)
    fails = ReferenceConfig("tests.learn.test_learn.AlwaysFails")
    with pytest.raises(LearnError, match=r"20 first labels, as the reference failed on 25 frames \(RuntimeError: SCF"):
        learn(tiny(tmp_path, reference=fails), tmp_path / "run", workers=1)


def test_a_reference_that_was_set_up_wrongly_can_be_corrected(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=0)
    config = tiny(tmp_path, max_labels=STARTING)
    wrong = replace(config, reference=ReferenceConfig("tests.learn.test_learn.AlwaysFails"))
    with pytest.raises(LearnError, match="^0 first labels, as the reference failed on 45 frames"):
        learn(wrong, tmp_path / "run", workers=1)
    result = learn(config, tmp_path / "run", workers=1)
    assert (result.end.labels, result.end.generations) == (STARTING, 1)
    assert not any(isinstance(event, Failed) for event in read_audit(result.audit))
    with pytest.raises(LearnError, match="holds a run of another configuration"):
        learn(wrong, tmp_path / "run", workers=1)
    frames = read(config.start, ":")
    frames[0].positions[0] += 0.01
    write(config.start, frames)
    with pytest.raises(LearnError, match="of other first frames"):
        learn(config, tmp_path / "run", workers=1)


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
    fails = ReferenceConfig("tests.learn.test_learn.AlwaysFails")
    with pytest.raises(LearnError, match="^0 first labels"):  # it begins
        learn(tiny(tmp_path, reference=fails), tmp_path / "run", workers=1)


@pytest.mark.parametrize(
    ("energy", "force", "message"),
    [
        (-1.0, np.nan, "frame 3 has NaN or infinite numbers in its forces"),
        (np.inf, 1.0, "frame 3 has energy inf"),
    ],
)
def test_first_labels_not_to_be_trusted_are_refused_before_anything_is_labelled(tmp_path, energy, force, message):
    frames = write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=4)
    frames[3].calc.results.update(energy=energy, forces=np.full((9, 3), force))
    write(tmp_path / "start.extxyz", frames)
    config = tiny(tmp_path, reference=ReferenceConfig("tests.learn.test_learn.Recording"))
    Recording.asked.clear()
    with pytest.raises(DataError, match=rf"start\.extxyz: {message}"):
        learn(config, tmp_path / "run", workers=1)
    assert Recording.asked == []
    assert not (tmp_path / "run" / "labels.extxyz").exists()


SCRIPT = """
import sys
from pathlib import Path
import torch
from schnet_ase.learn import learn
from tests.learn.test_learn import tiny
torch.set_num_threads(1)
learn(tiny(Path(sys.argv[1])), Path(sys.argv[1]) / "run", workers=1)
"""


ENDING = """
import sys
from pathlib import Path
from schnet_ase.learn import learn
from tests.learn.test_learn import ending
learn(ending(Path(sys.argv[1])), Path(sys.argv[1]) / sys.argv[2], workers=1)
"""


def ending(folder: Path) -> LearnConfig:
    return tiny(folder, reference=ReferenceConfig("tests.learn.test_learn.EndsTheProcess"), max_labels=STARTING + 1)


def test_a_reference_that_ends_the_process_twice_is_skipped(tmp_path, monkeypatch, untrained):
    """One that did so once is asked again: it may have been a kill, after which the log is that of a run without."""
    write_partly_labelled(tmp_path / "start.extxyz", STARTING + 1, labelled=STARTING)

    def run_elsewhere(name):
        return subprocess.run([sys.executable, "-c", ENDING, tmp_path, name], cwd=ROOT, check=False).returncode

    def run_here(name):
        with pytest.raises(Untrained):
            learn(ending(tmp_path), tmp_path / name, workers=1)
        assert not (tmp_path / name / "attempt.json").exists()
        return read_audit(tmp_path / name / "audit.jsonl")[STARTING:]

    assert run_elsewhere("twice") == -9
    shutil.copytree(tmp_path / "twice", tmp_path / "once")
    assert run_elsewhere("twice") == -9
    assert run_here("twice") == [Failed(None, STARTING, "ended the process 2 times")]
    monkeypatch.setattr(EndsTheProcess, "mended", True)
    assert run_here("once") == run_here("never")
    assert (tmp_path / "once" / "audit.jsonl").read_bytes() == (tmp_path / "never" / "audit.jsonl").read_bytes()


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
        return (
            {(path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
            if folder.exists()
            else set()
        )

    before = state()
    while state() == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(more)


TOML = """
name = "ethanol"
start = "start.extxyz"
[reference]
calculator = "ase.calculators.emt.EMT"
[flags]
threshold = 0.1
"""


def test_configuration(tmp_path):
    write_ethanol(tmp_path / "start.extxyz", 1)
    (tmp_path / "learn.toml").write_text(TOML)
    config = load_learn_config(tmp_path / "learn.toml")
    assert config.start == str(tmp_path / "start.extxyz")
    assert config.flags.threshold == 0.1
    assert config.warm.steps == config.training.steps // 5
    (tmp_path / "learn.toml").write_text(TOML.replace("0.1", "[0.1, 0.3]"))
    assert load_learn_config(tmp_path / "learn.toml").flags.threshold == (0.1, 0.3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold = 0.1", "threshold = [0.3, 0.1]", r"threshold is \[0.3, 0.1\]; expected lo < hi"),
        ("threshold = 0.1", "thresholt = 0.1", "thresholt is unknown"),
        ("threshold = 0.1", 'threshold = "high"', r"key flags\.threshold is 'high'; input should be 'auto', or input"),
        (
            "[flags]",
            "[training]\nforce_weight = 0\nenergy_weight = 0\n[flags]",
            "table training: energy_weight, force_weight and stress_weight are all 0",
        ),
        ('name = "ethanol"', 'name = "ethanol"\nmax_labels = 10', "9"),
        ("start.extxyz", "none.extxyz", "start is 'none.extxyz', but there is no file"),
        ('[reference]\ncalculator = "ase.calculators.emt.EMT"', "", "key reference is missing"),
    ],
)
def test_mistakes_in_a_configuration(tmp_path, old, new, message):
    write_ethanol(tmp_path / "start.extxyz", 1)
    (tmp_path / "learn.toml").write_text(TOML.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_learn_config(tmp_path / "learn.toml")
    assert "\n" not in str(caught.value)


def test_config_on_disk_says_what_was_asked(finished):
    folder, config, _, _ = finished
    table = json.loads((folder / "config.json").read_text())
    assert table["reference"]["calculator"] == "ase.calculators.emt.EMT"
    assert table["training"]["steps"] == config.training.steps
