"""Several SchNets as one ASE calculator: their mean, and the spread between them as an uncertainty."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, PropertyNotPresent, all_changes
from ase.outputs import Properties

from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.calculators.members import ModelLike, gather
from schnet_ase.calculators.prediction import Disagreement, disagreement_of, of_members
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.evaluator import Evaluator

PER_SYSTEM = ("energy_std", "stress_std", "energy_ensemble", "stress_ensemble", "energy_uncertainty")
PER_ATOM = ("forces_std", "energies_std", "forces_deviation", "forces_uncertainty")
PER_MEMBER = ("forces_ensemble",)
EXTRA = (*PER_SYSTEM, *PER_ATOM, *PER_MEMBER)
ANNOTATION = re.compile(rf"schnet_({'|'.join(PER_SYSTEM + PER_ATOM)}|forces_\d+)")
"""Pattern of the keys that `SchNetEnsembleCalculator.annotate` writes."""


class SchNetEnsembleCalculator(FixedCalculator):
    r"""Mean and spread of M SchNet models, computed with one neighbour list and one batched pass.

    Parameters
    ----------
    models
        Registry name (which selects all members), folder of checkpoints, or a sequence of whatever `SchNetCalculator`
        takes; at least two models of the same architecture.
    device, dtype, engine, skin, threads
        As for `SchNetCalculator`.
    calibration
        ``"auto"``: use the calibration on the entry's card if `models` is a registry name or the folder of an entry,
        and the card has one. Without a calibration, and with None, only spreads are computed.

    Attributes
    ----------
    calibration : Calibration or None
        Calibration that gives ``energy_uncertainty`` and ``forces_uncertainty``.

    Raises
    ------
    RegistryError, CheckpointError
        A model cannot be found or read, or fewer than two models are given.
    StructureError
        The members have different configs, or come from entries with different levels of theory.
    ValueError
        An argument is not one of the above.

    Notes
    -----
    ``energy``, ``free_energy``, ``energies``, ``forces``, ``stress`` and ``stresses`` are means over members; forces
    are minus the gradient of the mean energy. Standard deviations over members (``ddof=1``) are ``energy_std``,
    ``energies_std`` (N,), ``forces_std`` (N, 3) and ``stress_std`` (6,). The values of each member are
    ``energy_ensemble`` (M,), ``forces_ensemble`` (M, N, 3) and ``stress_ensemble`` (M, 6). The spread of each atom's
    force, in eV/Å, is rotation-invariant:

    .. math:: \mathtt{forces\_deviation}_i = \sqrt{\frac{1}{M-1} \sum_m |F_{m,i} - \langle F_i \rangle|^2}

    It divides by M - 1, where DP-GEN, Comput. Phys. Commun. 253, 107206 (2020), eq. 3, divides by M.

    With a calibration, ``energy_uncertainty`` (eV) and ``forces_uncertainty`` (N,) eV/Å are half-widths that contain
    the error of the energy, and the length of an atom's force error, with the calibration's coverage (90 % by default)
    on frames like those used for calibration; see `schnet_ase.uncertainty`. For any other coverage use
    ``calibration.energy.half_width(energy_std, coverage)`` and
    ``calibration.forces_half_width(forces_deviation, numbers, coverage)``.

    ASE's writers save only the properties they know; `annotate` puts the others where extxyz saves them.

    Examples
    --------
    >>> from ase.build import molecule
    >>> atoms = molecule("CH3CH2OH")
    >>> atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol")
    >>> atoms.calc.get_property("forces_deviation", atoms).shape
    (9,)
    """

    implemented_properties = [  # noqa: RUF012 - ASE's form
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
        "energy_std",
        "energies_std",
        "forces_std",
        "stress_std",
        "energy_ensemble",
        "forces_ensemble",
        "stress_ensemble",
        "forces_deviation",
        "energy_uncertainty",
        "forces_uncertainty",
    ]

    def __init__(
        self,
        models: str | os.PathLike[str] | Sequence[ModelLike],
        *,
        device: str | None = None,
        dtype: str = "float32",
        engine: str = "auto",
        skin: float = 1.0,
        threads: int | None = None,
        calibration: str | None = "auto",
    ) -> None:
        super().__init__()
        if calibration not in ("auto", None):
            raise ValueError(f"calibration is {calibration!r}; expected 'auto' or None")
        members = gather(models, at_least=2)
        self._hashes = members.hashes
        self._evaluator = Evaluator(
            members.networks, device=device, dtype=dtype, engine=engine, skin=skin, threads=threads
        )
        self.calibration = self._card_calibration = members.calibration if calibration == "auto" else None
        self.parameters.update(
            models=members.name,
            device=None if device is None else str(device),
            dtype=dtype,
            engine=engine,
            skin=float(skin),
            threads=threads,
            calibration=calibration,
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of `atoms` into `results`; called by ASE. See `SchNetCalculator` for errors."""
        results = self._evaluate(atoms, properties, system_changes)
        assert self._system is not None
        energy, energies, forces, stress, spread = of_members(results, self._system.numbers, self.calibration)
        assert spread is not None
        self.results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
        if stress is not None:
            self.results["stress"] = stress
        self.results |= {name: value for name, value in spread._asdict().items() if value is not None}
        self._add_asked(properties)

    def disagreement(self, atoms: Atoms) -> Disagreement:
        """Return what a monitor needs: the same numbers as in `results`, in less time than all results take.

        They are computed again only if the last calculation was for other atoms. The results are left as they are. See
        `SchNetCalculator` for errors.
        """
        if self.results and not self.check_state(atoms):
            return Disagreement(self.results["energy_std"], self.results["forces_deviation"])
        return disagreement_of(self._evaluator(geometry(atoms)))

    def annotate(self, atoms: Atoms) -> None:
        """Copy the spread and uncertainty of the last calculation to ``atoms.info`` and ``atoms.arrays`` for saving.

        Keys get the prefix ``schnet_``. The forces of each member become an array ``schnet_forces_<m>``. Values from an
        earlier call are removed. ASE's extxyz format saves all of them, traj only those in ``atoms.info``, json and db
        none.

        Raises
        ------
        PropertyNotPresent
            The last calculation was for other atoms.
        """
        if not self.results or self.check_state(atoms):
            raise PropertyNotPresent("annotate: these atoms were not the last to be calculated; ask for their energy")
        for known in (atoms.info, atoms.arrays):
            for key in [k for k in known if isinstance(k, str) and ANNOTATION.fullmatch(k)]:
                del known[key]
        for name, value in self.results.items():
            if name in PER_SYSTEM:
                atoms.info[f"schnet_{name}"] = np.copy(value) if np.ndim(value) else value
            elif name in PER_ATOM:
                atoms.set_array(f"schnet_{name}", value)
            elif name in PER_MEMBER:
                for m, forces in enumerate(value):
                    atoms.set_array(f"schnet_forces_{m}", forces)

    def export_properties(self) -> Properties:
        """Return all results, including the spread, as ASE's `Properties`."""
        return EnsembleProperties(self.results)

    def calculate_properties(self, atoms: Atoms, properties: Sequence[str]) -> Properties:
        """Compute some properties for `Atoms.get_properties`; ASE's own method accepts only the names ASE knows."""
        unknown = [name for name in properties if name not in self.implemented_properties]
        if unknown:
            raise ValueError(f"no such property: {', '.join(unknown)}")
        self.calculate(atoms, properties, all_changes)
        missing = [name for name in properties if name not in self.results]
        if missing:
            raise PropertyNotImplementedError(f"{', '.join(missing)}: the ensemble is not calibrated")
        return self.export_properties()


class EnsembleProperties(Properties):
    """ASE's `Properties`, extended by those of the ensemble, since ASE accepts only a fixed set of names."""

    def __init__(self, results: dict[str, Any]) -> None:
        super().__init__({name: value for name, value in results.items() if name not in EXTRA})
        self._extra = {name: value for name, value in results.items() if name in EXTRA}

    def __len__(self) -> int:
        return super().__len__() + len(self._extra)

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield from self._extra

    def __getitem__(self, name: str) -> Any:
        return self._extra[name] if name in self._extra else super().__getitem__(name)
