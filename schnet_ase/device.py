"""Where to compute."""

from __future__ import annotations

import torch

from schnet_ase.errors import SchNetError


def resolve_device(name: str | None) -> torch.device:
    """The named device; for None cuda where it is there, else cpu.

    Raises
    ------
    SchNetError
        No such device on this machine.
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
