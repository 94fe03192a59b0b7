"""Several processes that train one model, started by torchrun on one machine or several.

Every process computes its share of each batch, the gradients are summed, and each process takes the same step. If an
operation fails in one process (reading a file, writing a checkpoint), the others are informed and end too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from schnet_ase.errors import SchNetError, TrainingError
from schnet_ase.geometry.arrays import Integers

T = TypeVar("T")
_TO_SPEAK = timedelta(seconds=10)  # for the first process to report an error before the others exit
_PATIENCE = timedelta(days=7)  # a process may wait long while another stores data; a dead one is noticed at once


class Processes(NamedTuple):
    """Rank of this process among those that train one model together.

    Only the first process, of rank 0, reads and writes the folder of the run.
    """

    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None
    """Process group for everything but gradients; None for a single process."""

    def agree(self, make: Callable[[], T]) -> T:
        """Return this process's ``make()``; if the call fails in one process, all processes raise.

        Raises
        ------
        TrainingError
            The call failed in another process, which the message names, or another process has ended.
        """
        if self.size == 1:
            return make()
        value, error = _attempt(make)
        self._exchange(None, error)
        return value  # type: ignore[return-value]  # without an error there is a value

    def gather(self, make: Callable[[], T]) -> list[T]:
        """Return ``make()`` of every process in the order of their ranks; see `agree` for errors."""
        if self.size == 1:
            return [make()]
        return self._exchange(*_attempt(make))  # type: ignore[return-value]

    def of_first(self, make: Callable[[], T]) -> T:
        """Return ``make()`` of the first process to all; the others do not call it. See `agree` for errors."""
        return self.gather(lambda: cast("T", make() if self.rank == 0 else None))[0]

    def share(self, items: Sequence[T] | Integers) -> slice:
        """Return the slice of `items` for this process; shares are consecutive and differ by at most one item."""
        n, rest = divmod(len(items), self.size)
        start = self.rank * n + min(self.rank, rest)
        return slice(start, start + n + (self.rank < rest))

    def mean_gradient(self, step: Callable[[], Tensor], weight: float, parameters: Sequence[nn.Parameter]) -> float:
        """Combine loss and gradient of the shares of a batch.

        Parameters
        ----------
        step
            Function that returns the loss of this process's share and leaves its gradient in the parameters' ``.grad``.
        weight
            Weight of this share in the mean over the batch: its fraction of the frames. For a loss that is a mean over
            frames, loss and gradient are then exactly those of the whole batch.
        parameters
            Parameters of the model, the same in every process; afterwards ``.grad`` holds the gradient of the batch.

        Returns
        -------
        float
            Loss of the batch, the same in every process.

        Raises
        ------
        TrainingError
            See `agree`.
        """
        if self.size == 1:
            return step().item()
        loss, error = _attempt(step)
        device, dtype = parameters[0].device, parameters[0].dtype
        if loss is None:
            gradient = [torch.zeros_like(p).flatten() for p in parameters]
        else:
            gradient = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        head = torch.tensor([0.0 if loss is None else loss.item(), loss is None], device=device, dtype=dtype)
        # The sum also carries whether a process failed, since a process that waits for a sum receives nothing else.
        total = torch.cat([head, *gradient])
        total[0] *= weight
        total[2:] *= weight
        _or_gone(lambda: dist.all_reduce(total))
        if total[1]:
            self._exchange(None, error)
        for p, g in zip(parameters, total[2:].split([p.numel() for p in parameters]), strict=True):
            p.grad = g.view_as(p)
        return total[0].item()

    def _exchange(self, value: T | None, error: Exception | None) -> list[T | None]:
        failure = None
        if error is not None:
            failure = str(error) if isinstance(error, (SchNetError, OSError)) else f"{type(error).__name__}: {error}"
        outcomes: list[tuple[T | None, str | None]] = [(None, None)] * self.size
        _or_gone(lambda: dist.all_gather_object(outcomes, (value, failure), group=self.control))
        failed = [rank for rank, (_, message) in enumerate(outcomes) if message is not None]
        if not failed:
            return [value for value, _ in outcomes]
        if error is not None and (failed[0] == self.rank or not isinstance(error, (SchNetError, OSError))):
            raise error
        raise TrainingError(f"process {failed[0]} of {self.size}: {outcomes[failed[0]][1]}")


ALONE = Processes()


@contextmanager
def torchrun_processes(device: str) -> Iterator[Processes]:
    """Yield the processes that torchrun started, or this one alone, according to torchrun's environment variables.

    If they end with an error that is the user's, the first process raises it, and then the others exit silently.

    Parameters
    ----------
    device
        ``"cuda"``: each process gets a GPU of its own.

    Raises
    ------
    TrainingError
        This machine has fewer GPUs than processes.
    """
    if not launched_by_torchrun():
        yield ALONE
        return
    # Gradients use the backend of their device; everything else, including errors, is exchanged between CPUs.
    dist.init_process_group()
    processes = Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        processes.agree(lambda: _take_gpu(device))
        yield processes
    except KeyboardInterrupt as error:
        if processes.rank == 0:
            raise
        raise SystemExit(130) from error
    except (SchNetError, OSError) as error:
        if processes.rank == 0:
            raise
        with suppress(RuntimeError):  # the first process has ended, so it has reported the error
            dist.barrier(processes.control, async_op=True).wait(_TO_SPEAK)
        raise SystemExit(2) from error
    dist.destroy_process_group()


def launched_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def _take_gpu(device: str) -> None:
    if device != "cuda" or not torch.cuda.is_available():
        return
    rank, size, gpus = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if size > gpus:
        raise TrainingError(f"{size} processes on a machine with {gpus} GPUs; give torchrun --nproc-per-node {gpus}")
    torch.cuda.set_device(rank)


def _attempt(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:  # any error: the other processes must not wait for this one
        return None, error


def _or_gone(collective: Callable[[], object]) -> None:
    try:
        collective()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"another process of this training has ended ({reason}); the same command resumes from the last checkpoint"
        ) from error
