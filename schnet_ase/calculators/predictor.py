"""Predictions for many systems at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ase import Atoms

from schnet_ase.calculators.members import ModelLike, gather
from schnet_ase.calculators.prediction import Prediction, of_members, of_one
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.batched import BatchEvaluator
from schnet_ase.inference.evaluator import EngineChoice
from schnet_ase.networks import SchNet


class Predictor:
    """One or several SchNets as a function of many systems, which share the calls of the engine and its threads.

    Several small molecules in a call take less time than in calls of their own. Programs that move many systems keep a
    predictor, with a `skin`; for a single list of atoms take `predict`.

    Parameters
    ----------
    models
        A registry name or the folder of an entry, which stand for all its members; one of its models, such as
        ``"rmd17-ethanol/student"``; a ``.safetensors`` file; a folder of checkpoints; a `SchNet`; or a sequence of
        these.
    device, dtype, engine
        As for `SchNetCalculator`.
    threads
        Number of threads of a call; default: PyTorch's number of threads.
    skin
        None: neighbour lists are made anew in each call. A number, in Å: the list of each system is kept by its place
        in the sequence, for a next call in which atoms have moved little.
    calibration
        As for `SchNetEnsembleCalculator`.

    Raises
    ------
    RegistryError, CheckpointError
        A model cannot be found or read.
    StructureError
        The members have different configs, or come from entries with different levels of theory.
    ValueError
        An argument is not one of the above.
    """

    def __init__(
        self,
        models: str | os.PathLike[str] | SchNet | Sequence[ModelLike],
        *,
        device: str | None = None,
        dtype: str = "float32",
        engine: str = "auto",
        threads: int | None = None,
        skin: float | None = None,
        calibration: str | None = "auto",
    ) -> None:
        if calibration not in ("auto", None):
            raise ValueError(f"calibration is {calibration!r}; expected 'auto' or None")
        members = gather(models)
        self._single = not members.networks.member_shape
        self._calibration = members.calibration if calibration == "auto" else None
        self._evaluate = BatchEvaluator(
            members.networks,
            device=device,
            dtype=dtype,
            engine=engine,
            threads=threads,
            skin=skin,
        )

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the models were trained on; see `SchNetCalculator.elements`."""
        return self._evaluate.evaluator.elements

    @property
    def cutoff(self) -> float | None:
        """Distance in Å up to which atoms interact; None if all atoms interact."""
        return self._evaluate.evaluator.cutoff

    @property
    def engine(self) -> EngineChoice:
        """Engine in use, and the reason for choosing it."""
        return self._evaluate.evaluator.engine

    def __call__(self, atoms: Iterable[Atoms]) -> list[Prediction]:
        """Predict all systems.

        Parameters
        ----------
        atoms
            Systems of any composition, size, cell and periodicity.

        Returns
        -------
        list of Prediction
            One for each system, in the same order.

        Raises
        ------
        StructureError
            A system cannot be evaluated; the message begins with its number, counted from 0.
        ValueError
            `atoms` is one `ase.Atoms`, or contains something else.
        """
        if isinstance(atoms, Atoms):
            raise ValueError("atoms is one ase.Atoms; expected a list of them, for one system a list with one")
        given = list(atoms)
        for n, each in enumerate(given):
            if not isinstance(each, Atoms):
                raise ValueError(f"structure {n} is of type {type(each).__name__}; expected ase.Atoms")
        systems = [geometry(each) for each in given]
        results = zip(systems, self._evaluate(systems), strict=True)
        if self._single:
            return [of_one(result) for _, result in results]
        return [of_members(result, system.numbers, self._calibration) for system, result in results]


def predict(
    models: str | os.PathLike[str] | SchNet | Sequence[ModelLike],
    atoms: Iterable[Atoms],
    *,
    device: str | None = None,
    dtype: str = "float32",
    engine: str = "auto",
    threads: int | None = None,
    calibration: str | None = "auto",
) -> list[Prediction]:
    """Predict energies, forces and stresses of many systems, and with several models the spread between them.

    Parameters
    ----------
    models
        A registry name, which stands for all members of the entry, or whatever `Predictor` takes.
    atoms
        Systems of any composition, size, cell and periodicity.
    device, dtype, engine, threads, calibration
        As for `Predictor`.

    Returns
    -------
    list of Prediction
        Named tuples ``(energy, energies, forces, stress, spread)`` in the order of `atoms`, in ASE's units; ``stress``
        is None if the cell has no volume, and ``spread`` is None for one model.

    Raises
    ------
    RegistryError, CheckpointError
        A model cannot be found or read.
    StructureError
        A system cannot be evaluated, for example because of an element that the models were not trained on; the
        message begins with its number, counted from 0.
    ValueError
        An argument is not one of the above.

    Examples
    --------
    >>> frames = [structure("rmd17-ethanol") for _ in range(3)]
    >>> predictions = predict("rmd17-ethanol", frames)
    >>> predictions[2].forces.shape, predictions[2].spread.forces_deviation.shape
    ((9, 3), (9,))
    """
    predictor = Predictor(models, device=device, dtype=dtype, engine=engine, threads=threads, calibration=calibration)
    return predictor(atoms)
