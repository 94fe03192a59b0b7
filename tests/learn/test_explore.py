"""Exploring dynamics: flags in time, and the same to the bit after a kill."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.md.langevin import Langevin

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from schnet_ase.learn.config import DynamicsConfig
from schnet_ase.learn.explore import Excursion, State, begin, explore, load_excursion, save_excursion

DYNAMICS = DynamicsConfig(temperature=50.0, timestep=0.5, friction=20.0)


class Killed(Exception):
    pass


@pytest.fixture
def ensemble(make_model):
    models = [make_model(seed, cutoff=7.0) for seed in range(3)]  # untrained, they let atoms wander
    for model in models:
        model.scale.fill_(0.05)
    return SchNetEnsembleCalculator(models)


@pytest.fixture(params=["molecule", "triclinic"])
def atoms(request, ensemble):
    if request.param == "molecule":
        atoms = molecule("CH3CH2OH")
    else:
        atoms = bulk("Cu", "fcc", a=3.9).repeat((3, 2, 2))  # smaller than the cutoff, so lists hold images
        atoms.rattle(0.1, seed=1)
    atoms.calc = ensemble
    return atoms


def run(atoms, folder, until=1300, thresholds=(1e3, 1e4), report=lambda step: None, start=None):
    start = start or begin(atoms, DYNAMICS.temperature, seed=0)
    return explore(atoms, start, until, thresholds, DYNAMICS, 40, folder, report)


def same(a: State, b: State) -> bool:
    arrays = ((a.positions, b.positions), (a.momenta, b.momenta))
    return a.step == b.step and a.random == b.random and all(np.array_equal(x, y) for x, y in arrays)


def test_killed_and_started_again_it_is_the_same_to_the_bit(atoms, tmp_path):

    def kill(step):
        raise Killed

    start = begin(atoms, DYNAMICS.temperature, seed=0)
    whole = run(atoms, tmp_path / "whole", start=start)
    for _ in range(2):
        with pytest.raises(Killed):
            run(atoms, tmp_path / "parts", report=kill, start=start)
    again = run(atoms, tmp_path / "parts", start=start)
    assert whole.step == 1300
    assert same(whole, again)


def test_noise_and_seed_make_the_course(ensemble, tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    start = begin(atoms, 300.0, seed=0)
    first = run(atoms, tmp_path / "a", 20, start=start)
    assert same(first, run(atoms, tmp_path / "b", 20, start=start))
    assert not same(first, run(atoms, tmp_path / "c", 20, start=begin(atoms, 300.0, seed=[0, 1])))
    assert not same(first, run(atoms, tmp_path / "d", 20, start=begin(atoms, 300.0, seed=1)))


def test_atoms_that_leave_unflagged_are_learned_from_what_led_there(make_model, tmp_path):
    """Untrained members agree on nothing but that they know nothing of an atom out of reach; a kill changes nothing."""
    models = [make_model(seed) for seed in range(3)]
    for model in models:
        model.scale.fill_(0.05)
    atoms = molecule("CH3CH2OH")
    atoms.calc = SchNetEnsembleCalculator(models)
    start = begin(atoms, 300.0, seed=0)
    whole = run(atoms, tmp_path / "whole", until=20_000, start=start)
    assert isinstance(whole, Excursion)
    assert whole.flag.lone
    assert (whole.flag.status, whole.safe.step % 500) == ("failed", 0)
    assert whole.flag.step - 500 <= whole.safe.step < whole.flag.step
    assert len(whole.candidates) == (whole.flag.step - whole.safe.step - 1) // 5
    for positions, deviation in zip(whole.candidates, whole.deviations, strict=True):
        atoms.positions = positions
        assert not len(atoms.calc.out_of_reach(atoms))
        assert atoms.calc.get_property("forces_deviation", atoms).max() == pytest.approx(deviation, rel=1e-3)

    def kill(step):
        raise Killed

    with pytest.raises(Killed):
        run(atoms, tmp_path / "parts", until=20_000, report=kill, start=start)
    again = run(atoms, tmp_path / "parts", until=20_000, start=start)
    assert same(whole.safe, again.safe)
    np.testing.assert_array_equal(whole.candidates, again.candidates)


def test_a_step_to_where_nothing_can_be_computed(ensemble, tmp_path, monkeypatch):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    calculate, calls = ensemble.calculate, []

    def lost(*arguments):
        calls.append(arguments)
        if len(calls) == 44:  # the first two are of the start
            raise StructureError("atom 3 is at nan")
        calculate(*arguments)

    monkeypatch.setattr(ensemble, "calculate", lost)
    outcome = run(atoms, tmp_path, 100)
    assert isinstance(outcome, Excursion)
    assert (outcome.flag.status, outcome.flag.step, outcome.flag.time_fs) == ("failed", 42, pytest.approx(21.0))
    assert outcome.safe.step == 0
    assert len(outcome.candidates) == 8
    save_excursion(outcome, tmp_path / "e.npz")
    assert np.isnan(load_excursion(tmp_path / "e.npz").flag.largest)


def test_a_run_that_flies_apart_while_the_members_agree(ensemble, tmp_path, monkeypatch, caplog):
    """Pushed to 100 times the kinetic energy at step 32; nothing is flagged below a threshold of 1,000 eV/Å."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    step, steps = Langevin.step, []

    def pushed(langevin, *arguments):
        forces = step(langevin, *arguments)
        steps.append(langevin.nsteps)
        if len(steps) == 32:
            langevin.atoms.set_momenta(10.0 * langevin.atoms.get_momenta())
        return forces

    monkeypatch.setattr(Langevin, "step", pushed)
    with caplog.at_level("INFO", "schnet_ase"):
        outcome = run(atoms, tmp_path, 100)
    assert isinstance(outcome, Excursion)
    assert (outcome.flag.status, outcome.flag.step, outcome.flag.time_fs) == ("failed", 32, pytest.approx(16.0))
    assert np.isnan(outcome.flag.largest)
    assert outcome.safe.step == 0
    assert len(outcome.candidates) == 6
    assert "step 32 of the dynamics: the temperature is" in caplog.text


def test_velocities_are_those_of_the_temperature():
    atoms = molecule("CH3CH2OH")
    kinetic = []
    for seed in range(300):
        moving = atoms.copy()
        moving.set_momenta(begin(atoms, 500.0, seed).momenta)
        np.testing.assert_allclose(moving.get_momenta().sum(axis=0), 0.0, atol=1e-10)
        kinetic.append(moving.get_kinetic_energy())
    # 24 degrees of freedom; the mean of 300 draws scatters by 1.7 %
    assert np.mean(kinetic) == pytest.approx(0.5 * 24 * 8.617333e-5 * 500.0, rel=0.06)


def test_a_flag_goes_back_and_gives_candidates(ensemble, tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    for seed in range(20):  # a course on which the deviation rises
        start = begin(atoms, DYNAMICS.temperature, seed)
        run(atoms, tmp_path / f"calm-{seed}", 200, start=start)
        log = np.genfromtxt(
            tmp_path / f"calm-{seed}/uncertainty.csv", delimiter=",", names=True, dtype=None, encoding=None
        )
        seen = log["max_forces_deviation_eV_per_A"]
        if seen.max() > 1.05 * seen[0]:
            break
    threshold = 0.5 * (seen[0] + seen.max())
    hi = 3.0 * threshold
    outcome = run(atoms, tmp_path / "run", 200, (threshold, hi), start=start)
    assert isinstance(outcome, Excursion)
    first = int(np.argmax(seen > threshold))
    assert outcome.flag.step == first > 0
    assert outcome.safe.step == first - 1
    deviation = {}
    for name, positions in (("safe", outcome.safe.positions), *enumerate(outcome.candidates)):
        atoms.positions = positions
        atoms.get_forces()
        deviation[name] = atoms.calc.results["forces_deviation"].max()
    assert deviation.pop("safe") <= threshold
    np.testing.assert_allclose(list(deviation.values()), outcome.deviations, rtol=1e-4)
    assert all(threshold < d <= hi for d in outcome.deviations)
    assert outcome.deviations[0] == pytest.approx(outcome.flag.largest)


def test_what_it_begins_with_is_looked_at_at_any_step(ensemble, tmp_path):
    """After training a frame under the threshold before may be above it."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    for step in (0, 100):
        start = begin(atoms, DYNAMICS.temperature, seed=0, step=step)
        moving = atoms.copy()
        moving.calc = ensemble
        outcome = run(moving, tmp_path / str(step), 200, (1e-6, 1e3), start=start)
        assert (outcome.flag.step, outcome.safe.step) == (step, step)
        assert outcome.flag.time_fs == pytest.approx(step * DYNAMICS.timestep)
        np.testing.assert_array_equal(outcome.candidates[0], start.positions)


def test_what_has_failed_is_no_candidate(ensemble, tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    outcome = run(atoms, tmp_path, 50, (1e-7, 2e-7))
    assert outcome.flag.status == "failed"
    assert outcome.candidates == []
    assert outcome.safe.step == 0


def test_an_excursion_comes_back_from_its_file(ensemble, tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.calc = ensemble
    for name, thresholds in (("candidate", (1e-6, 1e3)), ("failed", (1e-7, 2e-7))):
        outcome = run(atoms, tmp_path / name, 50, thresholds)
        save_excursion(outcome, tmp_path / f"{name}.npz")
        again = load_excursion(tmp_path / f"{name}.npz")
        assert same(again.safe, outcome.safe)
        assert again.flag._replace(deviation=None) == outcome.flag._replace(deviation=None)
        np.testing.assert_array_equal(again.flag.deviation, outcome.flag.deviation)
        assert again.deviations == outcome.deviations
        assert len(again.candidates) == len(outcome.candidates)
        for a, b in zip(again.candidates, outcome.candidates, strict=True):
            np.testing.assert_array_equal(a, b)
