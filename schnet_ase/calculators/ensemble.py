"""Several SchNets as one ASE calculator: their mean, and the spread between them as an uncertainty."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, PropertyNotPresent, all_changes
from ase.outputs import Properties

from schnet_ase.calculators.single import IN_MEMORY, FixedCalculator
from schnet_ase.errors import RegistryError, StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.evaluator import Evaluator
from schnet_ase.networks import SchNet, StackedSchNet
from schnet_ase.registry.card import NOT_STATED
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.lookup import find_card, lasting_name, owning_card
from schnet_ase.uncertainty.calibration import Calibration

ModelLike = str | os.PathLike[str] | SchNet

PER_SYSTEM = ("energy_std", "stress_std", "energy_ensemble", "energy_uncertainty")
PER_ATOM = ("forces_std", "energies_std", "forces_deviation", "forces_uncertainty")
PER_MEMBER = ("forces_ensemble",)
EXTRA = (*PER_SYSTEM, *PER_ATOM, *PER_MEMBER)
ANNOTATION = re.compile(rf"schnet_({'|'.join(PER_SYSTEM + PER_ATOM)}|forces_\d+)")
"""Pattern of the keys that `SchNetEnsembleCalculator.annotate` writes."""


class Spread(NamedTuple):
    """What a monitor needs of an ensemble."""

    energy_std: float
    """Standard deviation of the energy over members, eV."""
    forces_deviation: Floats
    """(N,) ``forces_deviation``, eV/Å."""


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
    ``energy``, ``free_energy``, ``energies``, ``forces`` and ``stress`` are means over members, and forces are minus
    the gradient of the mean energy. Standard deviations over members (``ddof=1``) are ``energy_std``, ``energies_std``
    (N,), ``forces_std`` (N, 3) and ``stress_std`` (6,). The values of each member are ``energy_ensemble`` (M,) and
    ``forces_ensemble`` (M, N, 3). The spread of each atom's force, in eV/Å, is rotation-invariant:

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
        "energy_std",
        "energies_std",
        "forces_std",
        "stress_std",
        "energy_ensemble",
        "forces_ensemble",
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
        given = _given(models)
        if len(given) > 1:
            _check_levels(given)
        members = [member for model in given for member in _members(model)]
        name = _name(given[0]) if len(given) == 1 else json.dumps([_name(model) for model in given])
        if len(members) < 2:
            raise RegistryError(
                f"{name} gives {len(members)} model(s); an ensemble needs at least two, for one take SchNetCalculator"
            )
        self._evaluator = Evaluator(
            StackedSchNet(members), device=device, dtype=dtype, engine=engine, skin=skin, threads=threads
        )
        self.calibration = _calibration(given) if calibration == "auto" else None
        self.parameters.update(
            models=name,
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
        energy, energies, forces, stress = self._evaluate(atoms, properties, system_changes)
        members, n_atoms = energies.shape
        columns = [energy[:, None], energies, forces.reshape(members, -1)]
        if stress is not None:
            columns.append(stress)
        # All quantities at once: for a small molecule, one call each would cost more than everything else in Python.
        mean, std = _mean_and_std(np.concatenate(columns, axis=1))
        of_energies, of_forces = slice(1, 1 + n_atoms), slice(1 + n_atoms, 1 + 4 * n_atoms)
        forces_std = std[of_forces].reshape(-1, 3)
        self.results = {
            "energy": float(mean[0]),
            "free_energy": float(mean[0]),
            "energies": mean[of_energies],
            "forces": mean[of_forces].reshape(-1, 3),
            "energy_std": float(std[0]),
            "energies_std": std[of_energies],
            "forces_std": forces_std,
            "energy_ensemble": energy,
            "forces_ensemble": forces,
            "forces_deviation": _lengths(forces_std),
        }
        if stress is not None:
            self.results["stress"] = mean[-6:]
            self.results["stress_std"] = std[-6:]
        if self.calibration is not None:
            assert self._system is not None
            self._add_uncertainty(self.calibration, self._system.numbers)

    def spread(self, atoms: Atoms) -> Spread:
        """Return the spread alone: the same numbers as in `results`, in less time than all results take.

        It is computed again only if the last calculation was for other atoms. The results are left as they are. See
        `SchNetCalculator` for errors.
        """
        if self.results and not self.check_state(atoms):
            return Spread(self.results["energy_std"], self.results["forces_deviation"])
        energy, _, forces, _ = self._evaluator(geometry(atoms))
        _, std = _mean_and_std(np.concatenate([energy[:, None], forces.reshape(len(forces), -1)], axis=1))
        return Spread(float(std[0]), _lengths(std[1:].reshape(-1, 3)))

    def _add_uncertainty(self, calibration: Calibration, numbers: Integers) -> None:
        results, coverage = self.results, calibration.coverage
        if calibration.energy is not None:
            results["energy_uncertainty"] = float(calibration.energy.half_width(results["energy_std"], coverage))
        if calibration.forces is not None:
            deviation = results["forces_deviation"]
            results["forces_uncertainty"] = calibration.forces_half_width(deviation, numbers, coverage)

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


def _mean_and_std(values: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (``ddof=1``) over members, (M, K) to (K,) each; faster than NumPy's if few."""
    mean = np.add.reduce(values, axis=0) / len(values)
    deviations = values - mean
    return mean, np.sqrt(np.add.reduce(deviations * deviations, axis=0) / (len(values) - 1))


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths (N,) of vectors (N, 3)."""
    lengths: Floats = np.sqrt(np.add.reduce(vectors * vectors, axis=1))
    return lengths


def _given(models: str | os.PathLike[str] | Sequence[ModelLike]) -> list[ModelLike]:
    """Return the models as a list; `models` may be one model, a sequence, or the JSON list that `todict` gives."""
    if isinstance(models, str) and models.startswith("["):
        with contextlib.suppress(json.JSONDecodeError):  # not JSON, hence the name of a folder
            models = json.loads(models)
    given: list[ModelLike] = [models] if isinstance(models, str) or not isinstance(models, Iterable) else list(models)
    for model in given:
        if not isinstance(model, (str, os.PathLike, SchNet)):
            raise ValueError(
                f"model is {model!r}; expected the name or folder of an entry, a folder of checkpoints, or a sequence "
                "of names, .safetensors files or SchNets"
            )
    return given


def _members(model: ModelLike) -> list[SchNet]:
    return [model] if isinstance(model, SchNet) else [loaded.model for loaded in locate_members(model)]


def _check_levels(given: Sequence[ModelLike]) -> None:
    """Refuse members of different levels of theory, whose mean has no meaning; accept cards that state none."""
    levels: dict[str, str] = {}
    for model in given:
        card = None if isinstance(model, SchNet) else owning_card(model)
        if card is not None and card.data.level_of_theory != NOT_STATED:
            levels.setdefault(card.data.level_of_theory, card.name)
    if len(levels) > 1:
        each = ", ".join(f"{name} {level}" for level, name in levels.items())
        raise StructureError(
            f"members of different levels of theory ({each}); give those of one, or mend level_of_theory on the cards"
        )


def _calibration(given: Sequence[ModelLike]) -> Calibration | None:
    """Return the calibration of the entry that was given; None for any other set of models."""
    if len(given) > 1 or isinstance(given[0], SchNet):
        return None
    card = find_card(given[0])
    return None if card is None else card.calibration


def _name(model: ModelLike) -> str:
    return IN_MEMORY if isinstance(model, SchNet) else lasting_name(model)
