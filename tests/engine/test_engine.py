"""The compiled engine against the PyTorch reference, and what only it can get wrong: threads, memory, layout."""

import copy
import gc
import multiprocessing
import pickle
import shutil
import threading
import time
import tracemalloc

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.special import expit

from schnet_ase import SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.engine import jit, tables
from schnet_ase.engine.dense import activate, dense
from schnet_ase.engine.kernel import DONE, run_stages
from schnet_ase.engine.layout import Output
from schnet_ase.engine.simd import VECTOR_BYTES
from schnet_ase.geometry.system import geometry
from schnet_ase.inference import compiled
from schnet_ase.inference.compiled import why_not_compiled
from schnet_ase.networks.radial import ENVELOPES

# Errors allowed against the reference in float64: energy an atom in eV, force in eV/Å, stress in eV/Å³.
BOUNDS = {"float32": (1e-6, 1e-5, 1e-6), "float64": (1e-9, 1e-8, 1e-9)}
CONFIGS = {
    "polynomial": {},
    "cosine": {"envelope": "cosine"},
    "exponential": {"radial": "exponential"},
    "activation last": {"filter_activation_last": True},
    "no bias": {"interaction_bias": False},
    "odd widths": {"n_features": 21, "readout_features": 9},
    "wide": {"n_features": 64, "readout_features": 32, "n_interactions": 3},
    "one interaction": {"n_interactions": 1},
    "silu": {"activation": "silu"},
    "SchNetPack's": {"readout_activation": "silu", "envelope": "cosine", "interaction_bias": False},
}


def systems():
    """Molecules and cells of every periodicity: more atoms than a tile, one atom, cells smaller than the cutoff."""
    rng = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    pair = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.97]])
    squeezed, stretched = pair.copy(), pair.copy()
    squeezed.positions[1, 2], stretched.positions[1, 2] = 0.35, 3.9
    cell = np.array([[3.0, 0.0, 0.0], [0.7, 3.2, 0.0], [0.4, -0.5, 3.6]])
    crystal = Atoms("OCHN", rng.uniform(0, 1, (4, 3)) @ cell, cell=cell, pbc=True)
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    boxed = crystal.copy()
    boxed.pbc = False
    big = bulk("C", cubic=True) * (3, 2, 2)
    return {
        "ethanol": ethanol,
        "squeezed": squeezed,
        "stretched": stretched,
        "apart": Atoms("OH", positions=[[0, 0, 0], [0, 0, 9.0]]),
        "one atom": Atoms("O"),
        "one atom in a cell": Atoms("O", cell=cell, pbc=True),
        "crystal": crystal,
        "slab": slab,
        "molecule in a box": boxed,
        "more than a tile": big,
        "large molecule": Atoms(big.numbers, big.positions),
    }


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_agrees_with_autograd(make_model, config, dtype):
    models = [make_model(seed, **config) for seed in range(3)]
    reference = SchNetEnsembleCalculator(models, engine="autograd", dtype="float64")
    same_dtype = SchNetEnsembleCalculator(models, engine="autograd", dtype=dtype)
    results = {}
    rounding = dict.fromkeys(("energy_ensemble", "energies", "forces_ensemble", "stress"), 0.0)
    for name, atoms in systems().items():
        atoms.rattle(0.05, seed=2)
        exact, rounded = (c.calculate(atoms) or c.results for c in (reference, same_dtype))
        results[name] = atoms, exact
        for key in rounding.keys() & exact.keys():
            rounding[key] = max(rounding[key], float(np.abs(rounded[key] - exact[key]).max()))
    for threads in (1, 2, 3, 6):  # with few features also the atoms are cut into parts
        compiled = SchNetEnsembleCalculator(models, engine="compiled", dtype=dtype, threads=threads)
        for name, (atoms, exact) in results.items():
            ours = compiled.calculate(atoms) or compiled.results
            assert set(ours) == set(exact)
            assert ("stress" in ours) == (atoms.cell.rank == 3)
            energy, force, stress = BOUNDS[dtype]
            bounds = {"energy_ensemble": energy * len(atoms), "energies": energy, "forces_ensemble": force}
            bounds |= {"stress": stress} if "stress" in ours else {}
            for key, bound in bounds.items():
                # Random weights make hundreds of eV/Å: there the reference in the same precision is the measure.
                allowed = max(bound, 3.0 * rounding[key])
                assert np.abs(ours[key] - exact[key]).max() <= allowed, f"{key} of {name}, {threads} threads"


@pytest.mark.parametrize("preset", [SchNetConfig.small(), SchNetConfig.default()], ids=["small", "default"])
def test_agrees_without_an_envelope(make_model, preset, ethanol):
    model = make_model(0, **preset.to_dict())
    far = ethanol + ethanol
    far.positions[9:] += [0.0, 0.0, 70.0]  # beyond the last radial function
    for atoms in (ethanol, far):
        ours, theirs = (SchNetCalculator(model, engine=e, dtype="float64") for e in ("compiled", "autograd"))
        assert ours.get_potential_energy(atoms) == pytest.approx(theirs.get_potential_energy(atoms), abs=1e-8)
        np.testing.assert_allclose(ours.get_forces(atoms), theirs.get_forces(atoms), atol=1e-7)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_atoms_beyond_the_cutoff_do_not_interact(make_model, envelope):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")
    dimer = Atoms("CO", [[0, 0, 0], [0, 0, 4.0 + 1e-6]])
    apart = [calculator.get_potential_energy(dimer[i : i + 1]) for i in range(2)]
    assert (calculator.get_forces(dimer) == 0.0).all()
    assert len(calculator._evaluator.neighbors.get(geometry(dimer)).first) == 1  # listed all the same
    assert calculator.results["energies"].tolist() == apart


@pytest.mark.parametrize(("envelope", "order"), [("cosine", 1), ("polynomial", 2)])
def test_force_goes_to_zero_at_the_cutoff(make_model, envelope, order):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")

    def force(r):
        return abs(calculator.get_forces(Atoms("CO", [[0, 0, 0], [0, 0, r]]))[0, 2])

    assert force(3.9) > 1e-4
    # Ten times nearer to the cutoff: a force of that order less.
    assert force(4.0 - 1e-4) / force(4.0 - 1e-3) == pytest.approx(10.0**-order, rel=0.01)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_far_fragments_are_as_each_alone(make_model, ethanol, envelope):
    calculator = SchNetCalculator(make_model(envelope=envelope), engine="compiled", dtype="float64")
    water = Atoms("OH2", [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]])
    far = water.copy()
    far.positions += (0.0, 0.0, 50.0)
    for name in ("energies", "forces"):
        together, *alone = (calculator.get_property(name, atoms) for atoms in (ethanol + far, ethanol, water))
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=0.0, atol=1e-10)


def test_agrees_along_a_trajectory_with_lists_remade(make_model, crystal):
    atoms = crystal * (2, 2, 2)
    model = make_model(0)
    model.scale.fill_(0.05)
    atoms.calc = SchNetCalculator(model, engine="compiled", dtype="float64", skin=0.3)
    reference = SchNetCalculator(model, engine="autograd", dtype="float64", skin=0.3)
    thermalize_momenta(atoms, temperature_K=2000, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    for _ in dynamics.irun(60):
        np.testing.assert_allclose(atoms.get_forces(), reference.get_forces(atoms), atol=1e-9)
    assert atoms.calc._evaluator.neighbors.builds > 2


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
    network, where = calculator._evaluator._backend, geometry(atoms)
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
    network = calculator._evaluator._backend
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
        network = each._evaluator._backend
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


def test_what_is_not_covered_falls_back_and_says_why(make_model, ethanol):
    obstacles = (
        ({"activation": "gelu"}, "activation 'gelu'"),
        ({"readout_activation": "gelu"}, "readout_activation 'gelu'"),
        ({"norm": "rms"}, "norm 'rms'"),
    )
    for fields, reason in obstacles:
        model = make_model(0, **fields)
        assert why_not_compiled(model.config) == reason
        calculator = SchNetCalculator(model)
        assert calculator.engine.name == "autograd"
        assert reason in calculator.engine.reason
        calculator.get_forces(ethanol)
        with pytest.raises(ValueError, match=f"the compiled engine does not cover {reason}; use"):
            SchNetCalculator(model, engine="compiled")
    assert SchNetCalculator(make_model(0), device="cpu").engine.name == "compiled"


def test_filters_without_a_table_fall_back_and_say_why(make_model, ethanol, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_INTERVALS", 10)
    calculator = SchNetCalculator(make_model(0))
    assert calculator.engine.name == "autograd"
    assert "a table of 10 knots" in calculator.engine.reason
    calculator.get_forces(ethanol)
    with pytest.raises(ValueError, match="a table of 10 knots"):
        SchNetCalculator(make_model(0), engine="compiled")


def test_a_network_with_dropout_is_covered(make_model, ethanol):
    plain, dropout = (make_model(0, dropout=p) for p in (0.0, 0.5))
    forces = [SchNetCalculator(m, engine="compiled").get_forces(ethanol) for m in (plain, dropout)]
    np.testing.assert_array_equal(*forces)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_is_the_shifted_softplus(dtype):
    special = [0.0, -0.0, 1e-30, -1e-30, 88.7, -88.7, 300.0, -300.0, 1e30, -1e30, 709.0, -745.0]
    x = np.concatenate([special, np.linspace(-60.0, 60.0, 4084)]).astype(dtype)
    value, slope = x.copy(), np.zeros_like(x)
    activate(value, slope, 0, 0, len(x), False)
    wide = x.astype(np.longdouble)
    expected = np.logaddexp(np.longdouble(0.0), wide) - np.log(np.longdouble(2.0))
    tolerance = 4.0 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, expected.astype(dtype), rtol=tolerance, atol=tolerance)
    logistic = expit(x.astype(np.float64)).astype(dtype)
    np.testing.assert_allclose(slope, logistic, rtol=8 * tolerance, atol=1e-37)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_is_silu(dtype):
    x = np.concatenate([[0.0, 300.0, -300.0, 1e30, -1e30], np.linspace(-60.0, 60.0, 4091)]).astype(dtype)
    value, slope = x.copy(), np.zeros_like(x)
    activate(value, slope, 0, 0, len(x), True)
    wide = x.astype(np.float64)
    sigma = expit(wide)
    tolerance = 512.0 * np.finfo(dtype).eps  # exp(-300) is known no better than 300 is
    np.testing.assert_allclose(value, wide * sigma, rtol=tolerance, atol=1e-7 if dtype is np.float32 else 1e-200)
    np.testing.assert_allclose(slope, sigma + wide * sigma * (1.0 - sigma), rtol=tolerance, atol=tolerance)


def test_activation_of_no_number_is_no_number():
    value, slope = np.full(8, np.nan, np.float32), np.zeros(8, np.float32)
    activate(value, slope, 0, 0, 8, False)
    assert np.isnan(value).all()


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("add", [False, True])
def test_dense_layer(rows, add):
    V = VECTOR_BYTES // 8
    n_in, n_out, capacity = 4 * V, 8 * V, 7
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(capacity, n_in)), rng.normal(size=(capacity, n_out))
    weights, bias = rng.normal(size=(n_in, n_out)), rng.normal(size=n_out)
    blocks = [np.ascontiguousarray(a.reshape(capacity, -1, V).swapaxes(0, 1)).ravel() for a in (x, y)]
    columns = np.ascontiguousarray(weights.reshape(n_in, -1, 4 * V).swapaxes(0, 1)).ravel()
    dense(blocks[0], 0, capacity, columns, 0, bias, 0, blocks[1], 0, capacity, rows, n_in, n_out, add)
    result = blocks[1].reshape(-1, capacity, V).swapaxes(0, 1).reshape(capacity, n_out)
    np.testing.assert_allclose(result[:rows], x[:rows] @ weights + bias + (y[:rows] if add else 0.0), rtol=1e-12)
    np.testing.assert_array_equal(result[rows:], y[rows:])


def test_no_folder_for_machine_code_is_no_error(monkeypatch):
    njit = jit.numba.njit

    def no_folder(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(jit.numba, "njit", no_folder)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] = 1.0

    monkeypatch.undo()  # of what Numba compiles for itself, too
    mark(done)
    assert done[0] == 1.0


def test_a_long_compilation_is_announced_and_a_short_one_not(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))

    def first_call(seconds, wait):
        """Until something is announced, or `wait` is over."""
        with jit.announced(seconds):
            jit.compiled_once(add_one_to)(np.zeros(1))
            deadline = time.monotonic() + wait
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)
        return caplog.messages

    assert "compiling the engine" in first_call(0.01, 30.0)[0]
    caplog.clear()
    assert not first_call(0.01, 0.5)  # from the disk, however long it takes
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert not first_call(30.0, 0.0)


def add_one_to(array):
    array[0] += 1.0


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    from numba.core import caching

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] += 1.0

    mark(done)
    mark(done)
    assert done[0] == 2.0
