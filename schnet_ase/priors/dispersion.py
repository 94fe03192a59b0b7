"""D3(BJ) dispersion, computed by the library `dftd3` (simple-dftd3) with its own cutoff.

References
----------
Grimme, Antony, Ehrlich, Krieg, J. Chem. Phys. 132, 154104 (2010); Grimme, Ehrlich, Goerigk, J. Comput. Chem. 32, 1456
(2011).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree

from schnet_ase.errors import SchNetError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import HalfNeighbors
from schnet_ase.geometry.system import Geometry
from schnet_ase.priors.term import Contribution

LAST_ELEMENT = 103
"""Last element with parameters; for others the library returns zero, or wrong values."""
MARGIN = 1.0
"""Margin in Å around the atoms in directions that are not periodic."""
STEP = 1e-3
"""Å; step of the differences in `Dispersion.hessian`."""


class Dispersion:
    """Two-body D3(BJ) energy with derivatives from the library, which takes far longer than a network.

    Parameters
    ----------
    method
        Density functional whose damping parameters are used, by the library's name, such as ``"pbe"``.

    Raises
    ------
    SchNetError
        `dftd3` is not installed, or has no parameters for this functional.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self._library = _library()
        try:
            self._parameters = self._library.RationalDampingParam(method=method)
        except RuntimeError as error:
            raise SchNetError(
                f"dispersion is {method!r}, for which dftd3 has no D3(BJ) parameters; expected the name of a density "
                "functional, such as 'pbe'"
            ) from error

    def __reduce__(self) -> tuple[type[Dispersion], tuple[str]]:
        return Dispersion, (self.method,)  # the library's handles belong to this process and cannot be pickled

    def __call__(self, system: Geometry, pairs: HalfNeighbors) -> Contribution:
        """Compute energy, forces and virial; `pairs` are not used, since dispersion has a longer range.

        Raises
        ------
        StructureError
            There is an element beyond lawrencium, or the library cannot evaluate the atoms.
        """
        last = int(system.numbers.max())
        if last > LAST_ELEMENT:
            raise StructureError(
                f"dispersion is not known for {chemical_symbols[last] if last < len(chemical_symbols) else last}; "
                f"D3 has parameters up to element {LAST_ELEMENT}"
            )
        numbers, positions = system.numbers.astype(np.int32), system.positions
        try:
            if system.pbc.any():
                cell, corner = _box(system)
                model = self._library.DispersionModel(numbers, (positions - corner) / Bohr, cell / Bohr, system.pbc)
            else:
                model = self._library.DispersionModel(numbers, positions / Bohr)
            result = model.get_dispersion(self._parameters, grad=True)
            by_pair = model.get_pairwise_dispersion(self._parameters)["additive pairwise energy"]
        except RuntimeError as error:
            raise StructureError(f"dftd3 cannot evaluate these atoms ({error}); look at their distances") from error
        return Contribution(
            by_pair.sum(axis=1) * Hartree, result["gradient"] * (-Hartree / Bohr), result["virial"] * Hartree
        )

    def hessian(self, system: Geometry, pairs: HalfNeighbors) -> Floats:
        """Return the second derivatives, (N, 3, N, 3) eV/Å², as differences of the forces, since the library has none.

        Central differences over `STEP` have an error of its square times the fourth derivatives, below 1e-7 eV/Å².
        """
        n_atoms = len(system.numbers)
        result = np.empty((n_atoms, 3, n_atoms, 3))
        for i, a in np.ndindex(n_atoms, 3):
            forces = []
            for step in (STEP, -STEP):
                moved = system.copy()
                moved.positions[i, a] += step
                forces.append(self(moved, pairs).forces)
            result[i, a] = (forces[1] - forces[0]) / (2.0 * STEP)
        return result

    def pair_gradients(self, system: Geometry, pairs: HalfNeighbors) -> None:
        """Return None: the library gives no derivatives of pairs, and the range is longer than that of the list."""


def _box(system: Geometry) -> tuple[Floats, Floats]:
    """Return a cell that contains the atoms also in directions that are not periodic, and its corner.

    The library wraps atoms into the cell in every direction, and does not recognize a cell vector of zero length.
    """
    cell, free = system.cell.copy(), ~system.pbc
    if not free.any():
        return cell, np.zeros(3)
    # The null space of the periodic vectors: the right singular vectors beyond their number.
    normals = np.linalg.svd(np.vstack([cell[~free], np.zeros((1, 3))]))[2][(~free).sum() :]
    heights = system.positions @ normals.T
    lowest = heights.min(axis=0) - MARGIN
    cell[free] = normals * (np.ptp(heights, axis=0) + 2.0 * MARGIN)[:, None]
    corner: Floats = lowest @ normals
    return cell, corner


def _library() -> Any:
    try:
        return import_module("dftd3.interface")
    except ImportError as error:
        raise SchNetError(
            "dispersion needs the package dftd3, which is not installed; pip install 'schnet_ase[dispersion]'"
        ) from error
