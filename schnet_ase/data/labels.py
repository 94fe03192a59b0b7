"""What files hold as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schnet_ase.errors import DataError


def scalar(energy: object, file: Path, index: int) -> float | None:
    """The energy of frame `index` as a number, whatever its type; None is None.

    Raises
    ------
    DataError
        It is several numbers.
    """
    if energy is None:
        return None
    value: NDArray[np.float64] = np.asarray(energy, dtype=float)
    if value.size != 1:
        raise DataError(f"{file}: frame {index} has an energy of shape {value.shape}; expected one number")
    return float(value.reshape(()))
