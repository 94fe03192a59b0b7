"""Potential for OpenMM-ML: ``MLPotential("schnet_ase", model="rmd17-ethanol")``.

The package's entry point in the group ``openmmml.potentials`` names `SchNetPotentialImplFactory`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import openmm
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory
from openmmml.models.asepotential import ASEPotentialImplFactory

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import SchNetCalculator


class SchNetPotentialImplFactory(MLPotentialImplFactory):
    """Makes the potential of a model."""

    def createImpl(self, name: str, *, model: str, ensemble: bool = False, **options: Any) -> SchNetPotentialImpl:
        """Load a model; called by ``MLPotential("schnet_ase", ...)`` with its keyword arguments.

        Parameters
        ----------
        name
            The potential's name in OpenMM-ML.
        model
            Model as `SchNetCalculator` takes it or, with `ensemble`, as `SchNetEnsembleCalculator` does.
        ensemble
            Whether the mean of all members moves the atoms.
        options
            Keyword arguments of the calculator, such as `dtype`.

        Raises
        ------
        SchNetError
            The model cannot be loaded.
        """
        kind = SchNetEnsembleCalculator if ensemble else SchNetCalculator
        return SchNetPotentialImpl(kind(model, **options))


class SchNetPotentialImpl(MLPotentialImpl):
    """Potential that a calculator of this package computes.

    Parameters
    ----------
    calculator
        The calculator.
    """

    def __init__(self, calculator: SchNetCalculator | SchNetEnsembleCalculator) -> None:
        self._calculator = calculator
        self._ase = ASEPotentialImplFactory().createImpl("ase")

    def addForces(
        self,
        topology: openmm.app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **options: Any,
    ) -> None:
        """Add the model's force on `atoms` (None: all) to `system`; see `MLPotentialImpl`."""
        self._ase.addForces(topology, system, atoms, forceGroup, calculator=self._calculator, **options)

    def getMLLongRange(self) -> bool:
        """Return False: atoms interact up to the cutoff, so that a mixed system needs no Ewald correction."""
        return False
