"""Small models with random weights, and atoms without symmetry: what most tests need."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from filelock import FileLock

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.cli import main
from schnet_ase.registry import lookup as registry
from schnet_ase.training import trainer
from schnet_ase.training.history import draw_history
from tests.support.factories import CalculatorFactory, ModelFactory

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def pytest_configure(config: pytest.Config) -> None:
    """Warnings that Python ascribes to one of our modules are errors: raised there, or by what it calls wrongly."""
    ours = ["schnet_ase", "tests", "__main__", *sorted(path.stem for path in BENCHMARKS.iterdir())]
    config.addinivalue_line("filterwarnings", rf"error:::({'|'.join(ours)})(\.|\Z)")


LONG = (
    "tests/learn/test_learn.py",
    "tests/crossval/test_ray.py",
    "tests/training/test_processes.py",
    "tests/shipped/test_entries.py",
    "tests/test_examples.py",
    "tests/crossval/test_crossval.py",
    "tests/training/test_interrupts.py",
    "tests/data/test_store.py",
    "tests/tune/test_tune.py",
)
"""Files with few tests that take long, which begin first: at the end, one worker would wait for them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; tests within a file stay in their order."""
    ranks = {file: rank for rank, file in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The systems are too small for more, tests run side by side, and sums in another order are other numbers.

    Processes that tests start inherit it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def no_learning_curves() -> Iterator[None]:
    """Trainings of a few steps take half of their time for the picture; `learning_curves` has it drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_history", lambda rows, folder: None)
        yield


@pytest.fixture
def learning_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw their picture, as they do for a user."""
    monkeypatch.setattr(trainer, "draw_history", draw_history)


@pytest.fixture(autouse=True, scope="session")
def compiled_engine(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of processes that test side by side, each compiles the engine for another precision, and none what one has."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker:
        return
    dtypes = ("float32", "float64")
    first = int(worker.removeprefix("gw")) % 2
    for dtype in (dtypes[first], dtypes[1 - first]):
        with FileLock(tmp_path_factory.getbasetemp().parent / f"{dtype}.lock"):
            SchNetCalculator("rmd17-ethanol", engine="compiled", dtype=dtype).get_forces(molecule("CH3CH2OH"))


@pytest.fixture(scope="session")
def make_model() -> ModelFactory:
    """A SchNet of random weights: ``make_model(seed, **fields_of_the_config)``."""

    def make(seed: int = 0, **fields: object) -> SchNet:
        small = {
            "n_features": 16,
            "n_interactions": 2,
            "n_rbf": 12,
            "cutoff": 4.0,
            "gamma": None,
            "envelope": "polynomial",
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SchNet(SchNetConfig(**{**small, **fields}))
            # Biases start at zero and the scale at one: a mistake with them would not be seen.
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    torch.nn.init.normal_(parameter, std=0.3)
            model.scale.fill_(2.0)
            model.reference.copy_(-500.0 * torch.rand(model.config.max_z, dtype=torch.float64))
        return model.eval()

    return make


@pytest.fixture(params=["single, autograd", "single, auto", "ensemble, autograd", "ensemble, auto"])
def make_calculator(request: pytest.FixtureRequest, make_model: ModelFactory) -> CalculatorFactory:
    """Either calculator on either engine: ``make_calculator(**arguments)``, ``config`` for the fields of the config."""
    kind, engine = request.param.split(", ")

    def make(config: dict[str, object] | None = None, **arguments: object) -> Calculator:
        arguments.setdefault("engine", engine)
        if kind == "single":
            return SchNetCalculator(make_model(0, **(config or {})), **arguments)
        return SchNetEnsembleCalculator([make_model(seed, **(config or {})) for seed in range(3)], **arguments)

    return make


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty folders in place of the real search path, by their role."""
    user_data = tmp_path / "data"
    found = {role: tmp_path / role for role in ("first", "second", "shipped")}
    found["user"] = user_data / "schnet_ase" / "models"
    monkeypatch.setenv(registry.SEARCH_VARIABLE, os.pathsep.join([str(found["first"]), str(found["second"])]))
    monkeypatch.setattr(registry, "user_data_path", lambda name: user_data / name)
    monkeypatch.setattr(registry, "SHIPPED", found["shipped"])
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs `schnet-ase` with arguments in this process: status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["schnet-ase", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capfd.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def mistake(run):
    """Runs and expects status 2 and one line, besides what is said of a user's data before; the line."""

    def mistake(*arguments):
        status, _, err = run(*arguments)
        assert status == 2
        *said, line = err.splitlines(keepends=True)
        assert line.startswith("schnet-ase: "), err
        usual = (": labels: ", " lack", "compiling the engine")  # the engine, where no test has compiled it before
        assert all(any(words in earlier for words in usual) for earlier in said), err
        return line

    return mistake


@pytest.fixture
def ethanol() -> Atoms:
    """A molecule of nine atoms."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.fixture
def crystal() -> Atoms:
    """A triclinic cell of four atoms, smaller than the cutoff: an atom sees several images of the others."""
    fractional = [[0.0, 0.1, 0.0], [0.55, 0.5, 0.1], [0.1, 0.5, 0.6], [0.6, 0.0, 0.5]]
    cell = np.array([[3.0, 0.0, 0.0], [0.7, 3.2, 0.0], [0.4, -0.5, 3.6]])
    return Atoms("OCHN", scaled_positions=fractional, cell=cell, pbc=True)
