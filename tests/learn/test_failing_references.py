"""References that fail, are set up wrongly, or end the process."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from ase.io import read, write

from schnet_ase.errors import LearnError
from schnet_ase.learn import FlagConfig, LearnConfig, ReferenceConfig, learn
from schnet_ase.learn.audit import Failed, read_audit
from tests.support.learning import STARTING, Untrained, tiny, write_partly_labelled
from tests.support.paths import ROOT
from tests.support.references import EndsTheProcess, FailsWhenStretched


def test_a_reference_that_fails_is_recorded_and_skipped(tmp_path):
    frames = write_partly_labelled(tmp_path / "start.extxyz", 60, labelled=0)
    failing = [i for i, frame in enumerate(frames) if frame.get_distance(0, 1) > FailsWhenStretched.longest]
    assert 1 < len(failing) < 15
    reference = ReferenceConfig("tests.support.references.FailsWhenStretched")
    config = tiny(tmp_path, reference=reference, flags=FlagConfig(threshold=(1e4, 1e5)), max_labels=60)
    result = learn(config, tmp_path / "run", workers=1)
    events = read_audit(result.audit)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.frame for event in failed] == failing
    assert failed[0].reason == "RuntimeError: SCF not converged after 100 cycles"
    assert result.end.labels == 60 - len(failing)


@pytest.mark.parametrize("argument", [Path("x"), np.bool_(True), Lock()])
def test_arguments_that_cannot_be_written_down(tmp_path, argument):
    reference = ReferenceConfig("ase.calculators.calculator.Calculator", {"label": argument})
    with pytest.raises(LearnError, match=r"^reference\.arguments cannot be written .* function of your own") as caught:
        learn(tiny(tmp_path, reference=reference), tmp_path / "run", workers=1)
    assert "\n" not in str(caught.value)


def test_a_reference_may_change_the_working_folder(tmp_path, monkeypatch, untrained):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=0)
    config = tiny(tmp_path, reference=ReferenceConfig("tests.support.references.Wandering"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Untrained):
        learn(config, "run", workers=1)
    assert Path.cwd() == tmp_path / "elsewhere"
    assert list(Path.cwd().iterdir()) == []
    assert len(read("../run/labels.extxyz", ":")) == len(read_audit(Path("../run/audit.jsonl"))) == STARTING


def test_too_few_first_labels(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=20)
    fails = ReferenceConfig("tests.support.references.AlwaysFails")
    with pytest.raises(LearnError, match=r"20 first labels, as the reference failed on 25 frames \(RuntimeError: SCF"):
        learn(tiny(tmp_path, reference=fails), tmp_path / "run", workers=1)


def test_a_reference_that_was_set_up_wrongly_can_be_corrected(tmp_path):
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled=0)
    config = tiny(tmp_path, max_labels=STARTING)
    wrong = replace(config, reference=ReferenceConfig("tests.support.references.AlwaysFails"))
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


ENDING = """
import sys
from pathlib import Path
from schnet_ase.learn import learn
from tests.learn.test_failing_references import ending
learn(ending(Path(sys.argv[1])), Path(sys.argv[1]) / sys.argv[2], workers=1)
"""


def ending(folder: Path) -> LearnConfig:
    return tiny(folder, reference=ReferenceConfig("tests.support.references.EndsTheProcess"), max_labels=STARTING + 1)


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
