"""Small measurements: the cost of one part of the package, compared with other ways to do the same.

The ways take turns, so that other load on the machine affects all of them alike. Printed are the medians over rounds of
the time of each way and of its ratio to the first within a round, with the middle half of the ratios. Times are
processor times, which exclude other programs; those of `threads`, `parts` and GPUs are wall-clock times.

\b
    python benchmarks/micro.py threads 2 3 4 5
    python benchmarks/micro.py parts rmd17-ethanol rmd17-aspirin
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from _entries import calibrated
from _report import conditions, exit_on_error, line, table
from _start import NETWORK
from _systems import MOLECULES, TEMPERATURE, WATER, labelled_frames, make_system, water
from _worker import CUTOFF, N_RBF, SKIN, Dynamics
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, batch_to, collate, make_training_examples
from schnet_ase.engine import compiled_half_list
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import HalfNeighbors, half_neighbor_list
from schnet_ase.geometry.system import Geometry, geometry
from schnet_ase.inference.compiled import CompiledSchNet
from schnet_ase.inference.device import resolve_device
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.priors.dispersion import Dispersion
from schnet_ase.registry.lookup import get_card
from schnet_ase.training import TrainingConfig
from schnet_ase.training.step.compiled import compiled_step
from schnet_ase.training.step.filters import TabulatedFilters, steps_for
from schnet_ase.training.step.loss import GradientStep, LossTerms, eager_step
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.training.step.side_by_side import SideBySide
from schnet_ase.training.step.steps import Steps, step_maker
from schnet_ase.training.step.written_out import predict_written_out

TIMESTEP_FS = 0.5
FOLDS, BATCH = 5, 10
WAYS = ("eager", "compiled")
REACH = CUTOFF + SKIN
Calculator = SchNetCalculator | SchNetEnsembleCalculator


class Turns(NamedTuple):
    """Numbers of rounds and steps."""

    rounds: int
    steps: int
    """Number of steps in a turn."""

    def take(self, ways: Sequence[Callable[[], object]], clock: Callable[[], float] = time.process_time) -> Floats:
        """Call all `ways` in every round, every other time backwards; return (rounds, ways) milliseconds per step."""
        times = np.empty((self.rounds, len(ways)))
        for k, row in enumerate(times):
            for which in range(len(ways))[:: -1 if k % 2 else 1]:
                began = clock()
                ways[which]()
                row[which] = 1000.0 * (clock() - began) / self.steps
        return times


class Measured(NamedTuple):
    """Row of a table."""

    label: tuple[object, ...]
    milliseconds: Floats
    """(rounds, ways)."""

    def cells(self, ratios: bool) -> Iterator[object]:
        yield from self.label
        for column in self.milliseconds.T:
            yield f"{np.median(column):.4g}"
        for column in self.milliseconds.T[1:] if ratios else ():
            low, middle, high = np.percentile(column / self.milliseconds[:, 0], (25, 50, 75))
            yield f"{middle:.3f} ({low:.3f} to {high:.3f})"


class Subject(NamedTuple):
    """Measurement that can be chosen."""

    measure: Callable[[tuple[str, ...], Turns], Iterator[Measured]]
    labels: tuple[str, ...]
    ways: tuple[str, ...]
    turns: Turns
    arguments: tuple[str, ...] = ()
    """Default arguments."""
    ratios: bool = True


def threads(sides: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Dynamics of water with untrained networks; ARGUMENTS are numbers of molecules along the edges of boxes.

    A turn is as long as the lifetime of several neighbour lists.
    """
    for side in map(int, sides):
        for members in (1, 5):
            runs = [flying(side, members, count) for count in (1, 2)]
            times = turns.take([partial(run.run, turns.steps) for run in runs], time.perf_counter)
            yield Measured((3 * side**3, members), times)


def flying(side: int, members: int, threads: int) -> Dynamics:
    """Return dynamics of water with networks whose output is so small that the atoms fly nearly straight."""
    models = []
    for seed in range(members):
        torch.manual_seed(seed)
        models.append(SchNet(SchNetConfig(n_features=64, n_rbf=N_RBF, cutoff=CUTOFF, gamma=None, envelope="cosine")))
        models[-1].scale.fill_(1e-3)
    rng = np.random.default_rng(0)
    atoms = water(side, rng)
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    make, given = (SchNetEnsembleCalculator, models) if members > 1 else (SchNetCalculator, models[0])
    atoms.calc = make(given, engine="compiled", threads=threads)
    dynamics = Dynamics(atoms)
    dynamics.run(2)
    return dynamics


def moving(atoms: Atoms, calculator: Calculator) -> VelocityVerlet:
    """Return velocity Verlet from 300 K after its first steps, which compile the engine and build a list."""
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    dynamics.run(20)
    return dynamics


class Timed:
    """A function that records the time of each of its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.milliseconds: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.milliseconds.append(1000.0 * (time.perf_counter() - began))
        return result


def parts(entries: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Parts of the time of a dynamics step, with one member of each of ARGUMENTS and with all, in turns."""
    for entry in entries:
        card, _ = calibrated(entry)
        one = SchNetCalculator(card.path / card.members[0].file, threads=1)
        runs = [
            (moving(card.structure.atoms(), calculator), calculator)
            for calculator in (one, SchNetEnsembleCalculator(card.path, threads=1))
        ]
        clocks = [put_clocks(*run) for run in runs]
        turns.take([partial(dynamics.run, turns.steps) for dynamics, _ in runs])
        for members, around in zip((1, len(card.members)), clocks, strict=True):
            arrays = [array for array in around[0].function._weights if isinstance(array, np.ndarray)]
            megabytes = f"{sum(array.nbytes for array in arrays) / 1e6:.1f}"
            times = np.diff([part.milliseconds for part in around], axis=0, prepend=0.0).T
            yield Measured((card.name, members, megabytes), times)


def put_clocks(dynamics: VelocityVerlet, calculator: Calculator) -> tuple[Timed, Timed, Timed]:
    """Put clocks around the compiled call, around `calculate`, which contains it, and around the whole step."""
    evaluator = calculator._evaluator
    clocks = Timed(evaluator.backend), Timed(calculator.calculate), Timed(dynamics.step)
    evaluator.backend, calculator.calculate, dynamics.step = clocks
    return clocks


FIRST_CALL = """
import sys, schnet_ase
from schnet_ase.registry.lookup import get_card
card = get_card(sys.argv[1])
atoms = card.structure.atoms()
atoms.calc = getattr(schnet_ase, sys.argv[2])(card.path)
atoms.get_forces()
"""


def start(entries: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """New processes: the import, two commands, and the first forces of one member of ARGUMENTS and of all."""
    for entry in entries:
        programs = (
            ("-c", "import schnet_ase"),
            ("-m", "schnet_ase", "--help"),
            ("-m", "schnet_ase", "models"),
            ("-c", FIRST_CALL, entry, "SchNetCalculator"),
            ("-c", FIRST_CALL, entry, "SchNetEnsembleCalculator"),
        )
        ways = [partial(run, program) for program in programs]
        for way in ways:
            way()  # the first call may compile
        yield Measured((entry,), turns.take(ways, of_children))


def run(program: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SchNetError(f"a process failed: {done.stderr.strip().splitlines()[-1]}")


def of_children() -> float:
    """Return the processor time of all child processes that have ended, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def neighbors(_: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Half neighbour lists of all searches (vesin's too if it is installed), which must find the same pairs.

    This is also checked for 200 random systems with any periodicity, triclinic and small cells, and atoms outside.
    """
    searches = (compiled_half_list, half_neighbor_list, by_vesin)
    for system, cutoff in random_systems(200):
        check_same(system, cutoff, searches)
    for name in (*MOLECULES, *WATER):
        system = geometry(make_system(name))
        n_pairs = check_same(system, REACH, searches)
        ways = [partial(search, *system[1:], REACH) for search in searches]
        yield Measured((name, len(system.numbers), n_pairs), turns.take(ways))


def by_vesin(positions: Floats, cell: Floats, pbc: Any, cutoff: float) -> Sequence[Any]:
    try:
        from vesin import NeighborList
    except ImportError as error:
        raise SchNetError("vesin is not installed; pip install vesin") from error
    return NeighborList(cutoff=cutoff, full_list=False, n_threads=1).compute(positions, cell, pbc, "ijS")


def random_systems(n: int) -> Iterator[tuple[Geometry, float]]:
    """Yield systems and a cutoff for each."""
    rng = np.random.default_rng(0)
    while n:
        cell = np.diag(rng.uniform(2.0, 14.0, 3)) + rng.integers(2) * rng.uniform(-2.0, 2.0, (3, 3))
        if abs(np.linalg.det(cell)) < 1.0:
            continue
        n -= 1
        n_atoms = int(rng.integers(1, 100))
        positions = rng.uniform(-1.0, 2.0, (n_atoms, 3)) @ cell
        pbc = rng.integers(0, 2, 3).astype(bool)
        yield Geometry(np.ones(n_atoms, dtype=np.int64), positions, cell, pbc), float(rng.uniform(2.0, 7.0))


def check_same(system: Geometry, cutoff: float, searches: Sequence[Callable[..., Any]]) -> int:
    """Return the number of pairs nearer than the cutoff.

    Raises
    ------
    SchNetError
        The searches do not find the same pairs and shifts.
    """
    found = []
    for search in searches:
        first, second, shifts = search(*system[1:], cutoff)
        pairs = np.column_stack([first, second, shifts]).astype(np.int64)
        vectors = system.positions[pairs[:, 1]] - system.positions[pairs[:, 0]] + pairs[:, 2:] @ system.cell
        pairs = pairs[np.linalg.norm(vectors, axis=1) < cutoff]  # for a small molecule, our list has all pairs
        turned = np.column_stack([pairs[:, 1], pairs[:, 0], -pairs[:, 2:]])
        found.append(sorted(max(pair, other) for pair, other in zip(pairs.tolist(), turned.tolist(), strict=True)))
        if found[-1] != found[0]:
            raise SchNetError(f"{len(found[0])} pairs, but {len(found[-1])} or others by {search.__name__}: {system}")
    return len(found[0])


def monitor(entries: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """A step of dynamics with the ensembles ARGUMENTS, alone and with a monitor that checks every step."""
    for entry in entries:
        card, _ = calibrated(entry)
        dynamics = moving(card.structure.atoms(), SchNetEnsembleCalculator(card.path, threads=1))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            watching = UncertaintyMonitor(dynamics.atoms, file=folder / "flagged.extxyz", log=folder / "log.csv")
            dynamics.attach(watching)
            ways = [partial(observed, dynamics, observers, turns.steps) for observers in ([], dynamics.observers)]
            yield Measured((card.name,), turns.take(ways))


def observed(dynamics: VelocityVerlet, observers: list[Any], steps: int) -> None:
    dynamics.observers = observers
    dynamics.run(steps)


def watch(entries: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Dynamics of ARGUMENTS with the best member, with the student and a check by all every ten steps, and with all.

    For an entry without a student, its best member takes the student's place.
    """
    for entry in entries:
        card = get_card(entry)
        calculators = (
            SchNetCalculator(card.path / card.best.file, threads=1),
            SchNetCalculator(card.path, threads=1),
            SchNetEnsembleCalculator(card.path, threads=1),
        )
        runs = [moving(card.structure.atoms(), calculator) for calculator in calculators]
        looks = SchNetEnsembleCalculator(card.path, threads=1)
        with tempfile.TemporaryDirectory() as name:
            for dynamics, ensemble, interval in ((runs[1], looks, 10), (runs[2], None, 1)):
                files = {"file": Path(name) / f"{interval}.extxyz", "log": Path(name) / f"{interval}.csv"}
                dynamics.attach(UncertaintyMonitor(dynamics.atoms, ensemble=ensemble, interval=interval, **files))
                dynamics.run(turns.steps)
            yield Measured((card.name,), turns.take([partial(dynamics.run, turns.steps) for dynamics in runs]))


def prior(systems: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """The compiled call of untrained networks without and with the repulsion `zbl`, one and five, for ARGUMENTS."""
    for system, members in product(systems, (1, 5)):
        atoms, config = geometry(make_system(system)), SchNetConfig.md()
        pairs = compiled_half_list(atoms.positions, atoms.cell, atoms.pbc, config.cutoff + SKIN)
        kernels = []
        for term in (None, "zbl"):
            torch.manual_seed(0)
            models = [SchNet(replace(config, prior=term)) for _ in range(members)]
            kernels.append(CompiledSchNet(FixedNetworks(models), "float32", threads=1))
            kernels[-1](atoms, pairs)  # compiles
        yield Measured((system, members), turns.take([partial(calls, k, atoms, pairs, turns.steps) for k in kernels]))


def calls(kernel: CompiledSchNet, atoms: Geometry, pairs: HalfNeighbors, steps: int) -> None:
    for _ in range(steps):
        kernel(atoms, pairs)


def dispersion(systems: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """The term `dispersion = "pbe"` alone, for ARGUMENTS."""
    term = Dispersion("pbe")
    nothing = HalfNeighbors(*(np.zeros(shape, dtype=np.int64) for shape in (0, 0, (0, 3))))
    for system in systems:
        atoms = geometry(make_system(system))
        yield Measured((system,), turns.take([partial(term, atoms, nothing)]))


def filters(_: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Training steps compiled by torch, and with filters from tables and derivatives written out."""
    for name in MOLECULES:
        model = network(0)
        points, terms = steps_for(model), LossTerms(0.01, 1.0)
        assert points is not None
        batch = make_batch(labelled_frames(name, BATCH))
        written_out = eager_step(model, terms, partial(predict_written_out, model, TabulatedFilters(model, points)))
        steps = [compiled_step(model, terms), written_out]
        label = (name, len(batch.graph.pairs.first), points, difference(*(gradient(s, model, batch) for s in steps)))
        yield Measured(label, turns.take([partial(repeat, turns.steps, [(step, batch)]) for step in steps]))


def folds(devices: tuple[str, ...], turns: Turns) -> Iterator[Measured]:
    """Training steps of five folds one after the other and side by side, on the devices ARGUMENTS."""
    for device in devices:
        place = resolve_device(device)
        for name in MOLECULES:
            frames = labelled_frames(name, FOLDS * BATCH)
            batches = [make_batch(frames[k::FOLDS]) for k in range(FOLDS)]
            for way in WAYS:
                training = TrainingConfig(compile=way == "compiled")
                models = [network(k).to(place) for k in range(FOLDS)]
                alone = [
                    (Steps(model, training, same_shape=True).current(), batch_to(batch, place))
                    for model, batch in zip(models, batches, strict=True)
                ]
                expected = [gradient(step, model, b) for model, (step, b) in zip(models, alone, strict=True)]
                joint = SideBySide(models)
                together = (step_maker(training, 0.0, same_shape=True)(joint), batch_to(side_by_side(batches), place))
                repeat(1, [together])
                joint.hand_out_gradients()
                differences = [difference(e, gradients(m)) for e, m in zip(expected, models, strict=True)]
                clock = time.perf_counter if place.type == "cuda" else time.process_time
                times = turns.take([partial(repeat, turns.steps, side) for side in (alone, [together])], clock)
                yield Measured((name, device, way, max(differences)), times)


def network(seed: int) -> SchNet:
    torch.manual_seed(seed)
    return SchNet(NETWORK)


def make_batch(labelled: list[Atoms]) -> Batch:
    frames = [Frame(geometry(a), a.get_potential_energy(), a.get_forces()) for a in labelled]
    return collate(make_training_examples(frames, range(len(frames)), NETWORK.pair_cutoff))


def repeat(steps: int, work: Sequence[tuple[GradientStep, Batch]]) -> None:
    for _ in range(steps):
        for step, batch in work:
            step(batch).tolist()  # a training reads its loss, too, which waits for the GPU


def gradient(step: GradientStep, model: SchNet, batch: Batch) -> list[torch.Tensor]:
    step(batch)
    return gradients(model)


def gradients(model: SchNet) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def difference(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Return the largest difference of a component, relative to the largest of its parameter, with two digits."""
    pairs = zip(expected, found, strict=True)
    return float(f"{max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a.any()):.1e}")


ENTRIES = ("rmd17-ethanol", "rmd17-aspirin")
SUBJECTS = {
    "threads": Subject(threads, ("atoms", "members"), ("1 thread", "2 threads"), Turns(11, 93), ("8",)),
    "parts": Subject(
        parts,
        ("entry", "members", "weights (MB)"),
        ("compiled call", "around it", "ASE"),
        Turns(31, 200),
        ENTRIES,
        False,
    ),
    "start": Subject(
        start, ("entry",), ("import", "`--help`", "`models`", "one member", "all members"), Turns(5, 1), ENTRIES, False
    ),
    "neighbors": Subject(neighbors, ("system", "atoms", "pairs"), ("compiled", "matscipy", "vesin"), Turns(15, 1)),
    "monitor": Subject(monitor, ("entry",), ("alone", "with a monitor"), Turns(101, 100), ENTRIES),
    "watch": Subject(watch, ("entry",), ("member", "watched", "ensemble, every step"), Turns(41, 100), ENTRIES),
    "prior": Subject(prior, ("atoms", "networks"), ("without", "with zbl"), Turns(301, 10), (*MOLECULES, "water-192")),
    "dispersion": Subject(dispersion, ("atoms",), ("D3(BJ)",), Turns(5, 1), (*MOLECULES, "water-192"), False),
    "filters": Subject(filters, ("molecule", "pairs", "steps", "ΔG rel."), ("compiled", "written out"), Turns(9, 20)),
    "folds": Subject(
        folds, ("molecule", "device", "way", "ΔG rel."), ("one after the other", "side by side"), Turns(9, 20), ("cpu",)
    ),
}
EPILOG = "\n\n".join(f"{name}: {' '.join((s.measure.__doc__ or '').split())}" for name, s in SUBJECTS.items())


@click.command(help=f"{__doc__}\n\n{EPILOG}", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", type=click.Choice(list(SUBJECTS)))
@click.argument("arguments", nargs=-1)
@click.option("--rounds", type=click.IntRange(1), help="Number of rounds.")
@click.option("--steps", type=click.IntRange(1), help="Number of steps of a turn.")
@exit_on_error
def main(name: str, arguments: tuple[str, ...], rounds: int | None, steps: int | None) -> None:
    torch.set_num_threads(1)
    subject = SUBJECTS[name]
    turns = Turns(rounds or subject.turns.rounds, steps or subject.turns.steps)
    ratios = [f"{way} / {subject.ways[0]}" for way in subject.ways[1:]] if subject.ratios else []
    print(table([*subject.labels, *(f"{way} (ms)" for way in subject.ways), *ratios], ()))
    for measured in subject.measure(arguments or subject.arguments, turns):
        print(line(measured.cells(subject.ratios)), flush=True)
    print(f"\n{conditions()}")


if __name__ == "__main__":
    main()
