"""The frames that learning starts from: what goes with them, and which cannot be learned from."""

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.io import read, write

from schnet_ase.errors import DataError, LearnError
from schnet_ase.learn import ReferenceConfig, learn
from schnet_ase.learn.audit import Labelled, read_audit
from tests.support.frames import labelled_ethanol
from tests.support.learning import STARTING, Untrained, tiny, write_partly_labelled
from tests.support.references import AlwaysFails, Recording


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
    reference = ReferenceConfig("tests.support.references.Recording")
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


def test_first_frames_without_labels_are_labelled(tmp_path):
    frames = labelled_ethanol(STARTING)
    for frame in frames[::2]:
        frame.calc = None
    write(tmp_path / "start.extxyz", frames)
    result = learn(tiny(tmp_path, max_labels=STARTING), tmp_path / "run", workers=1)
    served = [event.served for event in read_audit(result.audit) if isinstance(event, Labelled)]
    assert served == ["reference", "given"] * (STARTING // 2) + ["reference"]
    assert result.end.generations == 1


@pytest.mark.parametrize("labelled", [0, 20])
def test_first_frames_without_a_label_are_asked_about_again(tmp_path, monkeypatch, untrained, labelled):
    """By the same command, once a licence or a path is there that was not."""
    write_partly_labelled(tmp_path / "start.extxyz", STARTING, labelled)
    config = tiny(tmp_path, reference=ReferenceConfig("tests.support.references.AlwaysFails"))
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
    config = tiny(tmp_path, reference=ReferenceConfig("tests.support.references.Recording"))
    Recording.asked.clear()
    with pytest.raises(DataError, match=rf"start\.extxyz: {message}"):
        learn(config, tmp_path / "run", workers=1)
    assert Recording.asked == []
    assert not (tmp_path / "run" / "labels.extxyz").exists()
