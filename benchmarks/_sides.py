"""Comparison of processes in turns: SchNetPack in its own environment, and this package in the present one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from _worker import Job
from ase import Atoms
from ase.io import write
from filelock import FileLock
from platformdirs import user_cache_path

from schnet_ase.errors import SchNetError

WORKER = Path(__file__).with_name("_worker.py")
# SchNetPack requires sympy <= 1.12, which no torch after 2.4.1 accepts; pip would download all versions to find out.
REQUIREMENTS = ("schnetpack==2.1.1", "torch==2.4.1", f"ase=={version('ase')}", f"matscipy=={version('matscipy')}")
MARK = "complete"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
MAX_SECONDS = 120.0
T = TypeVar("T")


def schnetpack_python(environment: Path | None) -> str:
    """Return the Python of an environment with SchNetPack; None: that of a default one, created at the first use.

    Raises
    ------
    SchNetError
        The environment does not exist or cannot be created.
    """
    if environment is not None:
        python = environment / "bin" / "python"
        if not python.exists():
            raise SchNetError(
                f"{environment}: no virtual environment; expected one with {REQUIREMENTS[0]}, or leave it out"
            )
        return str(python)
    environment = user_cache_path("schnet_ase") / REQUIREMENTS[0].replace("==", "-")
    environment.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{environment}.lock"):
        if not (environment / MARK).exists():
            shutil.rmtree(environment, ignore_errors=True)  # what an interrupted run left
            _install(environment)
            (environment / MARK).touch()
    return str(environment / "bin" / "python")


def _install(environment: Path) -> None:
    print(f"installing {', '.join(REQUIREMENTS)} into {environment}: once, minutes, 5 GB", file=sys.stderr)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(environment)], [*pip, *REQUIREMENTS]):
        if subprocess.run(command, env=_variables(1, ours=False), stdout=sys.stderr).returncode:
            raise SchNetError(
                f"{' '.join(command)} failed; see above, or make an environment by hand and give --schnetpack-venv"
            )


def _variables(threads: int, *, ours: bool) -> dict[str, str]:
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    if not ours:
        variables.pop("PYTHONPATH", None)  # it must not import our packages
    return variables


class Side:
    """A process with a job, which answers one request at a time.

    Parameters
    ----------
    name
        Name for messages.
    job
        Job of the process.
    python
        Python of SchNetPack's environment; None: this package in the present environment.
    least
        Least number of steps for a fair block.

    Raises
    ------
    SchNetError
        The process ended; the message has the last line that it wrote.
    """

    def __init__(self, name: str, job: Job, *, python: str | None = None, least: int = 1) -> None:
        self.name, self.least = name, least
        job = job._replace(side="ours" if python is None else "theirs")
        self._log = open(Path(job.weights) / f"{name}.log", "w+")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [python or sys.executable, str(WORKER), json.dumps(job._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_variables(job.threads, ours=python is None),
        )
        self.peak_mb = self.start_mb = self._answer()["peak_mb"]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request, see `_worker.serve`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer is reported below
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip() or "no message").splitlines()[-1]
            self.close()
            raise SchNetError(f"{self.name} ended with status {status}: {last}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_mb = answer["peak_mb"]
        return answer

    def close(self) -> None:
        """End the process by closing its input."""
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Timing(NamedTuple):
    """Times of one side."""

    seconds: float
    """Median over blocks of the time per step."""
    spread: float
    """Half the distance between the quartiles of the blocks, relative to the median."""
    steps: int
    """Total number of steps."""
    lists: int
    """Number of neighbour lists made in these steps; 0 if the side does not count them."""


def alternate(sides: Sequence[Side], blocks: int, seconds: float) -> list[Timing]:
    """Time all sides block by block in turn, so that other load on the machine affects all of them alike.

    Parameters
    ----------
    sides
        Running processes, of which one computes while the others wait.
    blocks
        Number of blocks per side; fewer, but at least three, if that would take more than two minutes.
    seconds
        Intended duration of a block.
    """
    steps, estimate = [], 0.0
    for side in sides:
        side.ask("run", steps=2)  # compiles, allocates, makes lists
        pilot = side.ask("run", steps=3)["seconds"] / 3
        steps.append(max(side.least, math.ceil(seconds / pilot)))
        estimate += steps[-1] * pilot
    answers: list[list[dict[str, Any]]] = [[] for _ in sides]
    for _ in range(max(3, min(blocks, int(MAX_SECONDS / estimate)))):
        for side, n, collected in zip(sides, steps, answers, strict=True):
            time.sleep(0.2)  # threads of the previous side may still spin
            collected.append(side.ask("run", steps=n))
    return [_timing(collected, n) for collected, n in zip(answers, steps, strict=True)]


def _timing(answers: Sequence[dict[str, Any]], steps: int) -> Timing:
    times = [answer["seconds"] / steps for answer in answers]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    lists = sum(answer.get("lists", 0) for answer in answers)
    return Timing(middle, 0.5 * (high - low) / middle, steps * len(answers), lists)


@contextlib.contextmanager
def together(sides: Iterable[Side]) -> Iterator[list[Side]]:
    """Start sides one after the other; end all of them afterwards, even after an error."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(side) for side in sides]


class Program(NamedTuple):
    """Program to compare."""

    name: str
    way: str
    """Way to compute, see `Job.way`."""
    python: str | None = None
    """Python of SchNetPack's environment; None for this package."""
    members: int = 1
    least: int = 1
    """Least number of steps for a fair block."""


def compare(
    job: Job,
    frames: Sequence[Atoms],
    programs: Sequence[Program],
    agree: Callable[[Sequence[Side], Path], list[T]],
    blocks: int,
    seconds: float,
) -> list[tuple[Side, Timing, T]]:
    """Time all programs in turns on the same frames and weights, after `agree` has compared their results.

    Raises
    ------
    SchNetError
        A side failed, or they do not agree.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = job._replace(frames=str(Path(folder) / "frames.traj"), weights=folder)
        write(job.frames, frames)
        # SchNetPack's side writes the weights for ours.
        members = max(program.members for program in programs)
        with together(
            Side(
                f"{p.name} x {p.members}",
                job._replace(way=p.way, members=p.members if p.python is None else members),
                python=p.python,
                least=p.least,
            )
            for p in programs
        ) as sides:
            agreed = agree(sides, Path(folder))
            return list(zip(sides, alternate(sides, blocks, seconds), agreed, strict=True))
