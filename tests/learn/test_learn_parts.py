"""The parts of learning: groups, selection, references, the audit log."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, Hookean
from ase.io import read, write

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import DataError, LearnError
from schnet_ase.inference.representation import representations
from schnet_ase.learn.audit import Audit, Failed, Finished, Flagged, Generation, read_audit
from schnet_ase.learn.config import CALIBRATION_EVERY, ReferenceConfig
from schnet_ase.learn.fitness import doubts
from schnet_ase.learn.generation import Trained
from schnet_ase.learn.labels import LabelStore, group, split_labels
from schnet_ase.learn.reference import Label, ReferenceFailed, find_reference, label
from schnet_ase.learn.selection import farthest_first
from schnet_ase.learn.start import check_start, read_start
from tests.support.frames import labelled_ethanol


@pytest.mark.parametrize(("n", "folds", "seed"), [(45, 4, 0), (101, 5, 3), (7, 5, 1)])
def test_groups_share_the_labels_evenly(n, folds, seed):
    split = split_labels(n, folds, seed)
    assert n // CALIBRATION_EVERY <= len(split.calibration) <= n // CALIBRATION_EVERY + 1
    sizes = [len(fold.validation) for fold in split.folds]
    assert max(sizes) - min(sizes) <= 1
    everything = np.concatenate([split.calibration, *(fold.validation for fold in split.folds)])
    assert sorted(everything.tolist()) == list(range(n))
    for fold in split.folds:
        kept = {*fold.validation.tolist(), *split.calibration.tolist()}
        assert set(fold.training.tolist()) == set(range(n)) - kept


def test_a_label_keeps_its_group_while_the_data_grows():
    before, after = split_labels(50, 5, 0), split_labels(90, 5, 0)
    for old, new in zip(before.folds, after.folds, strict=True):
        assert set(old.training.tolist()) <= set(new.training.tolist())
        assert set(old.validation.tolist()) <= set(new.validation.tolist())
    # Not always the same place of a block: the first of an excursion's labels is the strangest.
    assert len({position for position in range(50) if group(position, 5, 0) is None for position in [position % 5]}) > 1


def stretched(i: int, by: float) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions[i] *= 1.0 + by
    return atoms


def by_hand(frames, known, model):
    """`farthest_first` in plain loops, for frames of which none is a copy."""
    x = {id(atoms): representations([atoms], model)[0] for atoms in (*frames, *known)}

    def strangeness(atoms, others):
        return max(
            min(
                (
                    np.linalg.norm(x[id(atoms)][i] - x[id(o)][j])
                    for o in others
                    for j in range(len(o))
                    if o[j].number == z
                ),
                default=np.inf,
            )
            for i, z in enumerate(atoms.numbers)
        )

    order = []
    while len(order) < len(frames):
        left = [i for i in range(len(frames)) if i not in order]
        order.append(max(left, key=lambda i: strangeness(frames[i], [*known, *(frames[k] for k in order)])))
    return order


def test_the_strangest_frame_comes_first(make_model):
    known = [molecule("CH3CH2OH"), stretched(8, 0.05)]
    frames = [stretched(8, 0.1), stretched(5, 0.05), stretched(5, 0.3), stretched(5, 0.25), stretched(3, -0.2)]
    assert farthest_first(frames, known, make_model(0)) == by_hand(frames, known, make_model(0))


def test_copies_and_all_but_copies_are_left_out(make_model):
    """Of a known frame, turned and renamed too, and of a frame that is chosen."""
    rng = np.random.default_rng(0)
    known = []
    for _ in range(20):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
        known.append(atoms)
    turned = known[3][rng.permutation(9)]
    turned.rotate(77.0, (1, 2, 3))
    near = known[4].copy()
    near.rattle(1e-3, rng=rng)
    strange = stretched(5, 0.3)
    again = strange.copy()
    again.rattle(1e-3, rng=rng)
    frames = [known[0].copy(), turned, near, strange, again]
    assert farthest_first(frames, known, make_model(0)) in ([3], [4])
    assert farthest_first([known[0].copy()], known[:1], make_model(0)) == []


def test_the_order_does_not_depend_on_the_names_of_atoms_or_the_place(make_model):
    known = [molecule("CH3CH2OH")]
    frames = [stretched(i, 0.02 * (i + 1)) for i in range(9)]
    rng = np.random.default_rng(0)
    moved = []
    for atoms in frames:
        atoms = atoms[rng.permutation(9)]
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        atoms.translate(rng.normal(size=3))
        moved.append(atoms)
    model = make_model(0)
    assert farthest_first(frames, known, model) == farthest_first(moved, known, model)
    assert farthest_first([], known, model) == []
    assert sorted(farthest_first(frames, [], model)) == list(range(9))


def test_elements_that_are_not_known_are_the_strangest(make_model):
    frames = [molecule("CH3CH2OH"), molecule("H3CNH2"), stretched(5, 0.5)]
    assert farthest_first(frames, [molecule("CH3CH2OH")], make_model(0))[0] == 1


def counted(atoms: Atoms, **arguments) -> Calculator:
    calculator = EMT()
    calculator.made_for = len(atoms)
    return calculator


def no_reference() -> None:
    raise RuntimeError


def test_a_class_is_called_and_a_function_is_given_the_atoms():
    atoms = molecule("H2O")
    assert isinstance(find_reference(ReferenceConfig("ase.calculators.emt.EMT"))(atoms), EMT)
    assert find_reference(ReferenceConfig("tests.learn.test_learn_parts.counted"))(atoms).made_for == 3


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            ReferenceConfig("no.such.module.EMT"),
            "reference.calculator is 'no.such.module.EMT', which cannot be imported",
        ),
        (ReferenceConfig("ase.calculators.emt.EMU"), "which cannot be imported"),
        (ReferenceConfig("EMT"), "which cannot be imported"),
        (ReferenceConfig("schnet_ase.learn.reference.pyscf", {"functional": "PBE"}), "do not fit .*functional"),
        (ReferenceConfig("tests.learn.test_learn_parts.no_reference"), "do not fit"),
    ],
)
def test_references_that_cannot_be_made(reference, message):
    with pytest.raises(LearnError, match=message) as caught:
        find_reference(reference)
    assert "\n" not in str(caught.value)


def test_a_reference_that_does_not_say_what_it_takes():
    """As those of C may not; Python's `dict` is one."""
    assert find_reference(ReferenceConfig("builtins.dict", {"xc": "PBE"}))(Atoms()) == {"xc": "PBE"}


class Returns(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, energy, forces):
        super().__init__()
        self.given = {"energy": energy, "forces": np.array(forces)}

    def calculate(self, *arguments):
        self.results = dict(self.given)


@pytest.mark.parametrize(
    ("energy", "forces", "message"),
    [
        (float("nan"), np.ones((3, 3)), "not finite"),
        (1.0, np.full((3, 3), np.inf), "not finite"),
        (1.0, np.zeros((3, 3)), "forces are all zero"),
        (1.0, np.ones(9), r"forces have the shape \(9,\); expected \(3, 3\)"),
        (1.0, np.ones((2, 3)), "forces have the shape"),
    ],
)
def test_numbers_that_are_no_label(energy, forces, message):
    with pytest.raises(ReferenceFailed, match=message):
        label(molecule("H2O"), lambda atoms: Returns(energy, forces))


def test_a_reference_that_leaves_python_gives_no_label():
    def leave(atoms):
        sys.exit("no licence")

    with pytest.raises(ReferenceFailed, match="SystemExit: no licence"):
        label(molecule("H2O"), leave)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("def (", "SyntaxError"), ("calculator = EMT()", "NameError"), ("import sys; sys.exit(3)", "SystemExit: 3")],
)
def test_modules_that_cannot_be_imported(tmp_path, monkeypatch, code, reason):
    (tmp_path / "own_reference.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_reference", raising=False)
    with pytest.raises(LearnError, match=f"'own_reference.EMT', which cannot be imported \\({reason}") as caught:
        find_reference(ReferenceConfig("own_reference.EMT"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reference",
    [
        ReferenceConfig("tblite.ase.TBLite", {"method": "GFN2-xTB", "verbosity": 0}),
        ReferenceConfig("schnet_ase.learn.reference.pyscf", {"method": "RHF", "basis": "sto-3g"}),
        ReferenceConfig("schnet_ase.learn.reference.pyscf", {"xc": "LDA", "basis": "sto-3g"}),
    ],
    ids=["GFN2-xTB", "PySCF RHF", "PySCF LDA"],
)
def test_real_references_give_conservative_forces(reference):
    pytest.importorskip(reference.calculator.partition(".")[0] if "tblite" in reference.calculator else "pyscf")
    water = molecule("H2O")
    water.rattle(0.05, seed=0)
    make = find_reference(reference)
    found = label(water, make)
    again = label(water, make)
    assert found.energy == again.energy
    np.testing.assert_array_equal(found.forces, again.forces)
    water.calc = make(water)
    numerical = calculate_numerical_forces(water, eps=1e-3, iatoms=[0], icarts=[2])
    assert found.forces[0, 2] == pytest.approx(numerical[0, 0], abs=2e-3)  # a DFT grid moves with the atoms


def test_the_store_grows_and_comes_back(tmp_path):
    store = LabelStore(tmp_path / "labels.extxyz")
    rng = np.random.default_rng(0)
    for number in range(3):
        store.append(molecule("H2O"), Label(-5.0 - number, rng.normal(size=(3, 3))), "fold-1")
        again = LabelStore(tmp_path / "labels.extxyz")
        assert len(again) == number + 1
        for a, b in zip(store.frames, again.frames, strict=True):
            assert a.get_potential_energy() == b.get_potential_energy()
            np.testing.assert_array_equal(a.get_forces(), b.get_forces())
            assert a.info == b.info


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_what_a_stored_frame_is_comes_back_with_it(tmp_path, suffix):
    """For a run that starts from the labels of another: but for results, which are of another frame perhaps."""
    constraints = [FixAtoms([0]), FixBondLength(1, 2), Hookean(3, 4, rt=1.6, k=5.0)]
    info = {"charge": -1, "method": "PBE D3", "field": np.eye(3), "of": {"spin": [1, 2]}, "weights": [1, 2]}
    atoms = molecule("CH3CH2OH")
    atoms.info = {**info, "energy": -2.0, "old_energy": -1.0, "REF_forces": np.ones((9, 3)), "label": 7, "group": "x"}
    atoms.set_constraint(constraints)
    atoms.set_masses([15.0] + 8 * [2.0])
    forces = np.ones((9, 3))
    for _ in range(2):  # the second is stored as it came back
        store = LabelStore(tmp_path / "labels.extxyz")
        store.append(atoms, Label(-1.0, forces), "fold-1")
        np.testing.assert_array_equal(store.frames[-1].get_forces(), forces, "those on held atoms too")
        write(tmp_path / f"start.{suffix}", read(tmp_path / "labels.extxyz", ":"))
        atoms = read_start(tmp_path / f"start.{suffix}")[-1]
        assert [c.todict() for c in atoms.constraints] == [c.todict() for c in constraints]
        assert atoms.info.keys() == {*info, "label", "group"}
        for name, value in info.items():
            np.testing.assert_equal(atoms.info[name], np.array(value) if name == "weights" else value)
        assert atoms.get_masses().tolist() == [15.0] + 8 * [2.0]


def test_errors_do_not_depend_on_the_frame_before(make_model):
    """As they are after a kill: in a crystal a list that is still good enough has its pairs in another order."""
    crystal = bulk("Cu", "fcc", a=3.7).repeat((4, 4, 4))
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(4):
        crystal.rattle(0.02, rng=rng)
        frame = crystal.copy()
        frame.calc = SinglePointCalculator(frame, energy=0.0, forces=np.zeros((64, 3)))
        frames.append(frame)
    models = [make_model(seed) for seed in range(3)]

    def errors(frame, calculator):
        return Trained.errors(SimpleNamespace(calculator=calculator), frame)

    one = SchNetEnsembleCalculator(models)
    assert [errors(frame, one) for frame in frames] == [
        errors(frame, SchNetEnsembleCalculator(models)) for frame in frames
    ]


class Held:
    """A constraint of one's own."""

    def adjust_positions(self, atoms, new):
        new[0] = atoms.positions[0]


@pytest.mark.parametrize("value", ["", None, "1,2", "two\nlines", [[1], [2, 3]], 1j])
def test_what_a_stored_frame_would_lose_is_refused(value):
    atoms = molecule("H2O")
    atoms.info["x"] = value
    with pytest.raises(DataError, match=r"frame 1 has info\['x'\], which labels.extxyz cannot keep") as caught:
        check_start([molecule("H2O"), atoms], "start")
    assert "\n" not in str(caught.value)


def test_a_constraint_that_a_stored_frame_would_lose_is_refused():
    atoms = molecule("H2O")
    atoms.set_constraint(Held())
    with pytest.raises(DataError, match="frame 0 has a constraint, which labels.extxyz cannot keep"):
        check_start([atoms], "start")


def test_first_energies_that_are_all_zero_are_refused():
    frames = labelled_ethanol(3)
    for frame in frames:
        frame.calc.results["energy"] = 0.0
    with pytest.raises(DataError, match="start: frame 0 and all others have energy zero"):
        check_start(frames, "start")
    frames[1].calc = None  # which the reference labels
    check_start(frames, "start")


FAILED = Failed(3, 1, "no convergence")


def test_events_come_back_and_are_not_written_twice(tmp_path):
    path, seen = tmp_path / "audit.jsonl", []
    flagged = Flagged(0, 1, 17, 8.5, 301.123456789, 4, None, 0.1, "failed", 16, 0)
    for _ in range(3):
        audit = Audit(path, seen.append)
        assert audit.record(Flagged, lambda: flagged) == flagged._replace(temperature_K=301.123)
        assert audit.record(Failed, lambda: FAILED) == FAILED
        assert audit.next is None
        assert len(seen) == 2
    assert read_audit(path) == audit.events
    audit = Audit(path, seen.append)
    with pytest.raises(LearnError, match="line 1 is flagged, where this run has finished"):
        audit.record(Finished, lambda: Finished("", 0, 0, 0.0))


def test_a_line_that_was_cut_off_is_made_again(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, lambda event: None)
    for _ in range(2):
        audit.record(Failed, lambda: FAILED)
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        audit = Audit(path, lambda event: None)
        for _ in range(2):
            audit.record(Failed, lambda: FAILED)
        assert path.read_bytes() == whole


def test_a_file_that_is_no_log(tmp_path):
    (tmp_path / "audit.jsonl").write_text("hello\n")
    with pytest.raises(LearnError, match="no audit log"):
        Audit(tmp_path / "audit.jsonl", lambda event: None)


def generation(force_mae: float, threshold: float) -> Generation:
    return Generation(0, 50, 10, force_mae, 0.01, None, None, threshold, 5.0 * threshold)


def test_an_ensemble_is_doubted_by_its_errors_and_its_threshold():
    """Forces of one eV/Å along each axis: 1 a component, √3 an atom; one wild frame among them changes nothing."""
    frames = []
    for size in (1.0, 1.0, 1.0, 50.0):
        atoms = molecule("H2O")
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.full((3, 3), size))
        frames.append(atoms)
    assert doubts(generation(0.1, 0.86), frames) == ()
    (error,) = doubts(generation(0.468, 0.86), frames)
    assert error.startswith("the held-out force MAE is 468 meV/Å, 47 % of a usual force component, 1000 meV/Å")
    (threshold,) = doubts(generation(0.1, 2.0), frames)
    assert threshold.startswith("a frame is flagged only above 2.00 eV/Å, 115 % of a usual force on an atom, 1.73 eV/Å")
    assert len(doubts(generation(float("nan"), 2.0), frames)) == 2


def test_learning_is_not_loaded_by_inference():
    code = (
        "import sys, schnet_ase; "
        "sys.exit(any(m.startswith(('schnet_ase.learn', 'schnet_ase.training')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
