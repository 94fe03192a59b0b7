"""What only the compiled engine can get wrong: threads, memory, layout."""

import copy
import gc
import multiprocessing
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from ase.stress import full_3x3_to_voigt_6_stress

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.engine.kernel import DONE, run_stages
from schnet_ase.engine.layout import Output
from schnet_ase.geometry.system import geometry
from schnet_ase.inference import compiled


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_each_time(make_model, crystal, threads):
    atoms = crystal * (3, 2, 2)
    calculators = [SchNetCalculator(make_model(0), engine="compiled", threads=threads) for _ in range(2)]
    first = calculators[0].get_forces(atoms)
    for calculator in calculators:
        for _ in range(5):
            calculator.calculate(atoms)
            assert calculator.results["forces"].tobytes() == first.tobytes()


@pytest.mark.parametrize("thread", [0, 1, 2])
def test_same_bits_whichever_thread_does_what(make_model, crystal, thread):
    """One of three threads does all, the others nothing, as if they were on slow cores."""
    atoms = crystal * (3, 2, 2)
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=3)
    expected = calculator.get_forces(atoms)
    network, where = calculator._evaluator.backend, geometry(atoms)
    work, n = network._work, len(atoms)
    for array in work:  # nothing of the call before is read
        if array.dtype.kind == "f":
            array.fill(np.nan)
    work.end[:] = 0
    output = Output(np.full((1, n), np.nan), np.full((1, n, 3), np.nan), np.full((1, 3, 3), np.nan), np.full(3, np.nan))
    before = int(work.arrived[0])
    work.arrived[0] += 1 << 40  # nobody to wait for
    work.claimed[:] = 0
    arguments = network._shape, network._weights, network._system, work, output, where.positions, where.cell, before
    assert run_stages(0, *arguments, thread) == DONE
    assert output.forces[0].tobytes() == expected.tobytes()
    assert output.energies[0].tobytes() == calculator.results["energies"].tobytes()
    stress = full_3x3_to_voigt_6_stress(output.virial[0]) / atoms.get_volume()
    np.testing.assert_allclose(stress, calculator.results["stress"], rtol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_closest_pair(make_model, crystal, threads):
    """Wherever it is: in the first tile of atoms, or in the last."""
    atoms = crystal * (3, 2, 2)
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=threads)
    calculator.get_forces(atoms)
    network = calculator._evaluator.backend
    for at in (0, len(atoms) // 2, len(atoms) - 2):
        moved = atoms.copy()
        moved.positions[at + 1] = moved.positions[at] + [0.0, 0.4, 0.3]
        pairs = calculator._evaluator.neighbors.get(geometry(moved))
        closest = network(geometry(moved), pairs).closest
        assert closest.distance == pytest.approx(0.5)
        assert {closest.first, closest.second} == {at, at + 1}


def test_more_threads_than_atoms(make_model, ethanol):
    many = SchNetCalculator(make_model(0), engine="compiled", threads=20, dtype="float64")
    one = SchNetCalculator(make_model(0), engine="compiled", threads=1, dtype="float64")
    np.testing.assert_allclose(many.get_forces(ethanol), one.get_forces(ethanol), atol=1e-12)


def test_more_threads_than_the_last_system_had_atoms_for(make_model, ethanol):
    """Threads that wait for one another must all be running: those for two atoms are too few for nine."""
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=4, dtype="float64")
    calculator.get_forces(ethanol[:2])
    found = []
    call = threading.Thread(target=lambda: found.append(calculator.get_forces(ethanol)), daemon=True)
    call.start()
    call.join(timeout=60.0)
    assert found
    one = SchNetCalculator(make_model(0), engine="compiled", threads=1, dtype="float64")
    np.testing.assert_allclose(found[0], one.get_forces(ethanol), atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_copies_and_pickles(make_model, crystal, threads):
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=threads)
    forces = calculator.get_forces(crystal)
    for copied in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        copied.reset()
        assert copied.get_forces(crystal).tobytes() == forces.tobytes()
        moved = crystal.copy()
        moved.rattle(0.1, seed=3)
        copied.get_forces(moved)
        assert calculator.get_forces(crystal).tobytes() == forces.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_vector_lies_in_two_cache_lines(make_model, ethanol, dtype):
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=2, dtype=dtype)
    for each in (calculator, pickle.loads(pickle.dumps(calculator))):
        each.get_forces(ethanol)
        network = each._evaluator.backend
        weights, work = network._weights, network._work
        vectors = [weights.embedding, weights.embedding_in, weights.table, weights.dense, weights.bias, weights.zeros]
        vectors += [weights.readout, weights.readout_transposed, weights.readout_bias]
        vectors += [work.x, work.h, work.g, work.sums, work.sigmoid, work.tile]
        assert [array.ctypes.data % 64 for array in vectors] == [0] * len(vectors)


def test_interrupted_call_leaves_no_thread_waiting(make_model, crystal, monkeypatch):
    before = set(threading.enumerate())
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=3)
    expected = calculator.get_forces(crystal)

    def interrupted(number, *arguments):
        if arguments[-1] == 0:
            arguments[3].claimed[:] = 0  # as at the start of a call, so that the others have all to do
            raise KeyboardInterrupt
        return run_stages(number, *arguments)

    monkeypatch.setattr(compiled, "run_stages", interrupted)
    calculator.reset()
    with pytest.raises(KeyboardInterrupt):
        calculator.get_forces(crystal)
    monkeypatch.undo()
    calculator.reset()
    assert np.array_equal(calculator.get_forces(crystal), expected)
    ours = {thread for thread in set(threading.enumerate()) - before if thread.name == "schnet_ase"}
    assert len(ours) == 2
    del calculator
    gc.collect()
    for thread in ours:
        thread.join(timeout=60.0)
    assert not any(thread.is_alive() for thread in ours)


def test_two_calculators_in_two_threads(make_model, crystal, ethanol):
    jobs = [(SchNetCalculator(make_model(n), engine="compiled", threads=2), (crystal, ethanol)[n]) for n in range(2)]
    expected = [calculator.get_forces(atoms).tobytes() for calculator, atoms in jobs]
    wrong = []

    def work(n: int) -> None:
        calculator, atoms = jobs[n]
        for _ in range(200):
            calculator.calculate(atoms)
            if calculator.results["forces"].tobytes() != expected[n]:
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _send_forces(calculator, atoms, connection) -> None:
    calculator.reset()
    connection.send(calculator.get_forces(atoms))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker(make_model, crystal):
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=2)
    forces = calculator.get_forces(crystal)  # the parent's threads exist, the child's do not
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_send_forces, args=(calculator, crystal, theirs))
    child.start()
    assert ours.poll(60)
    assert ours.recv().tobytes() == forces.tobytes()
    child.join(60)


def test_memory_stays(make_model, crystal):
    calculator = SchNetEnsembleCalculator([make_model(n) for n in range(2)], engine="compiled")
    atoms = crystal * (2, 2, 2)
    rng = np.random.default_rng(0)

    def calls(n: int) -> None:
        for _ in range(n):
            atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)  # lists of other lengths
            calculator.calculate(atoms)

    calls(100)
    tracemalloc.start()
    calls(20)
    before = tracemalloc.get_traced_memory()[0]
    calls(400)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 100_000  # a copy of the forces a call would be 1.2 MB
