"""Dynamics at a temperature, begun from a structure or from the saved state of an earlier run."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.motion import draw_velocities, rigid_modes

TIMESTEP_FS = 0.5
DAMPING_FS = 50.0
"""Of the Nosé-Hoover chain: 100 steps, as ASE advises."""
FRICTION_FS = 100.0
"""1 / friction of the Langevin thermostat, as in schnet-ase md."""


class State(NamedTuple):
    """Everything that the next step of a dynamics depends on."""

    step: int
    positions: Floats
    """(N, 3) Å."""
    momenta: Floats
    """(N, 3) eV^½ u^½, as ASE has them."""
    chain: Floats
    """(2, links) positions and momenta of the Nosé-Hoover chain; empty with Langevin's thermostat."""
    random: str
    """State of the random numbers' generator, JSON."""


class Thermostatted(NamedTuple):
    """A dynamics with a thermostat."""

    dynamics: MolecularDynamics
    rng: np.random.Generator
    degrees: int
    """Degrees of freedom that hold kinetic energy."""

    def state(self) -> State:
        """Where it is."""
        atoms, chain = self.dynamics.atoms, np.empty((2, 0))
        if isinstance(self.dynamics, NoseHooverChainNVT):
            chain = np.array([self.dynamics._thermostat._eta, self.dynamics._thermostat._p_eta])
        random = json.dumps(self.rng.bit_generator.state)
        return State(self.dynamics.nsteps, atoms.get_positions(), atoms.get_momenta(), chain, random)


def start(atoms: Atoms, temperature: float, seed: int, heated_to: float | None = None) -> Thermostatted:
    """Draw velocities and begin.

    Parameters
    ----------
    atoms
        With a calculator; moved.
    temperature
        K, of the velocities, and of the thermostat but for `heated_to`.
    seed
        Of the velocities, and of Langevin's thermostat.
    heated_to
        K, of a Langevin thermostat. None: a Nosé-Hoover chain at `temperature` for a free molecule that is not linear,
        a Langevin thermostat for anything else.
    """
    rng = np.random.default_rng(seed)
    draw_velocities(atoms, temperature, rng)
    return _with_thermostat(atoms, temperature, heated_to, rng)


def resume(atoms: Atoms, temperature: float, state: State, heated_to: float | None = None) -> Thermostatted:
    """The dynamics that `start` began, in a later state; its numbers are those of one that was not interrupted."""
    rng = np.random.default_rng()
    rng.bit_generator.state = json.loads(state.random)
    begun = _with_thermostat(atoms, temperature, heated_to, rng, state)
    begun.dynamics.nsteps = state.step
    if isinstance(begun.dynamics, NoseHooverChainNVT):
        begun.dynamics._thermostat._eta, begun.dynamics._thermostat._p_eta = state.chain.copy()
    return begun


def _with_thermostat(
    atoms: Atoms, temperature: float, heated_to: float | None, rng: np.random.Generator, state: State | None = None
) -> Thermostatted:
    """ASE's chain reckons with all 3N degrees of freedom.

    Six of them would hold no energy, as the molecule keeps its total momentum and rotation of zero, and the others
    theirs: it would be 3N / (3N - 6) times too hot, ethanol at 643 K for 500 K. The chain is asked for as much less.
    """
    n, step = 3 * len(atoms), TIMESTEP_FS * units.fs
    nonlinear = rigid_modes(atoms).shape[1] == 6
    if state is not None:
        atoms.positions = state.positions
        atoms.set_momenta(state.momenta)
    if heated_to is None and nonlinear:
        scaled = temperature * (n - 6) / n
        chain = NoseHooverChainNVT(atoms, step, temperature_K=scaled, tdamp=DAMPING_FS * units.fs)
        return Thermostatted(chain, rng, n - 6)
    friction, kelvin = 1.0 / (FRICTION_FS * units.fs), temperature if heated_to is None else heated_to
    # Keeping the centre of mass would not sample NVT.
    langevin = Langevin(atoms, step, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)
    return Thermostatted(langevin, rng, n)
