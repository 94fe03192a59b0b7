"""Choose the device, and limit PyTorch to one thread after a fork."""

from __future__ import annotations

import os

import torch

from schnet_ase.errors import SchNetError

_imported_by = os.getpid()


def resolve_device(name: str | None) -> torch.device:
    """Return the named device; None: cuda if available, otherwise cpu.

    Raises
    ------
    SchNetError
        The device is not available on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SchNetError(f"device {name!r} cannot be used here ({reason}); use 'cpu' or leave it out") from error
    return device


def is_forked() -> bool:
    """Return whether this process is a fork of the one that imported this module.

    PyTorch's threads do not survive a fork, and a call that waits for them never returns. A forked process, such as a
    worker of ``multiprocessing.Pool`` on Linux up to Python 3.13, therefore computes on one thread, as the workers of
    PyTorch's own ``DataLoader`` do.
    """
    return os.getpid() != _imported_by


def _one_thread() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_one_thread)
