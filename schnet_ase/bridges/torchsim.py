"""Models for torch-sim: one or all members of an entry as a `ModelInterface`, many systems in a call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from schnet_ase.calculators.prediction import Prediction
from schnet_ase.calculators.predictor import Predictor
from schnet_ase.errors import StructureError
from schnet_ase.registry.loading import load_model

SKIN = 1.0
"""Å; that of the calculators."""


class SchNetModel(ModelInterface):
    """Energies, forces and stress of many systems at once for torch-sim.

    Parameters
    ----------
    model
        Model as `SchNetCalculator` takes it by name or file or, with `ensemble`, as `SchNetEnsembleCalculator` does.
    ensemble
        Whether the mean of all members moves the atoms; their spread is then among the outputs.
    device
        Device of the states that torch-sim hands over, and of the network; default: cpu.
    network_dtype
        ``"float32"`` or ``"float64"``, in which the network computes. States and results are float64: integrators
        need the digits of the positions.
    engine, threads
        As for `Predictor`.

    Raises
    ------
    SchNetError
        The model cannot be loaded.

    Notes
    -----
    Outputs are ``energy`` (B,) eV, ``forces`` (N, 3) eV/Å and ``stress`` (B, 3, 3) eV/Å³, which is zero for systems
    that are not periodic; of an ensemble also ``energy_std`` (B,) eV and ``forces_deviation`` (N,) eV/Å.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        ensemble: bool = False,
        device: str | torch.device = "cpu",
        network_dtype: str = "float32",
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__()
        self._device, self._dtype = torch.device(device), torch.float64
        self._compute_stress = self._compute_forces = True
        self._predict = Predictor(
            model if ensemble else load_model(model),
            device=str(device),
            dtype=network_dtype,
            engine=engine,
            threads=threads,
            skin=SKIN,
        )
        self._atoms: list[Atoms] = []
        self._known = b""

    def forward(self, state: SimState | dict[str, Any], **_: object) -> dict[str, Tensor]:
        """Compute a state of B systems and N atoms.

        Raises
        ------
        StructureError
            A system cannot be evaluated; or it is periodic in some directions and not in others, which torch-sim's
            integrators and optimizers do not distinguish.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        predictions = self._predict(self._systems(state))
        return self._outputs(predictions, state.positions)

    def _systems(self, state: SimState) -> Sequence[Atoms]:
        """Return the systems of a state, which are kept: making them anew would take longer than the network."""
        periodic = np.atleast_1d(np.asarray(state.pbc))
        if periodic.any() != periodic.all():
            raise StructureError(
                f"pbc is {periodic.tolist()}; torch-sim moves systems that are periodic in all directions or in none: "
                "use the ASE calculator"
            )
        numbers = state.atomic_numbers.cpu().numpy()
        index = state.system_idx.cpu().numpy()
        positions = state.positions.detach().cpu().numpy().astype(np.float64)
        cells = state.cell.detach().cpu().numpy().astype(np.float64).transpose(0, 2, 1)  # torch-sim's are columns
        known = numbers.tobytes() + index.tobytes()
        if known != self._known:
            begins = np.searchsorted(index, np.arange(state.n_systems + 1))
            self._atoms = [Atoms(numbers[a:b]) for a, b in pairwise(begins)]
            self._known = known
        begin = 0
        for atoms, cell in zip(self._atoms, cells, strict=True):
            atoms.positions = positions[begin : begin + len(atoms)]
            atoms.cell[:] = cell
            atoms.pbc = periodic.all()
            begin += len(atoms)
        return self._atoms

    def _outputs(self, predictions: Sequence[Prediction], like: Tensor) -> dict[str, Tensor]:
        zero = np.zeros((3, 3))
        stress = [zero if p.stress is None else voigt_6_to_full_3x3_stress(p.stress) for p in predictions]
        outputs = {
            "energy": np.array([p.energy for p in predictions]),
            "forces": np.concatenate([p.forces for p in predictions]),
            "stress": np.array(stress),
        }
        spreads = [p.spread for p in predictions if p.spread is not None]
        if spreads:
            outputs["energy_std"] = np.array([spread.energy_std for spread in spreads])
            outputs["forces_deviation"] = np.concatenate([spread.forces_deviation for spread in spreads])
        return {name: torch.from_numpy(values).to(like.device) for name, values in outputs.items()}
