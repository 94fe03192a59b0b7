"""Dynamics at a temperature, started from a structure or resumed from a saved state."""

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
"""Damping time of the Nosé-Hoover chain: 100 steps, as ASE recommends."""
FRICTION_FS = 100.0
"""Inverse friction of the Langevin thermostat, as in schnet-ase md."""


class State(NamedTuple):
    """Everything that the next step of the dynamics depends on."""

    step: int
    positions: Floats
    """(N, 3) Å."""
    momenta: Floats
    """(N, 3) eV^½ u^½, ASE's unit of momentum."""
    chain: Floats
    """(2, links) positions and momenta of the Nosé-Hoover chain; empty for a Langevin thermostat."""
    random: str
    """State of the random number generator, as JSON."""


class Thermostatted(NamedTuple):
    """Dynamics with a thermostat."""

    dynamics: MolecularDynamics
    rng: np.random.Generator
    degrees: int
    """Number of degrees of freedom that hold kinetic energy."""

    def state(self) -> State:
        """Return the present state."""
        atoms, chain = self.dynamics.atoms, np.empty((2, 0))
        if isinstance(self.dynamics, NoseHooverChainNVT):
            chain = np.array([self.dynamics._thermostat._eta, self.dynamics._thermostat._p_eta])
        random = json.dumps(self.rng.bit_generator.state)
        return State(self.dynamics.nsteps, atoms.get_positions(), atoms.get_momenta(), chain, random)


def start(atoms: Atoms, temperature: float, seed: int, heated_to: float | None = None) -> Thermostatted:
    """Draw velocities and prepare the dynamics.

    Parameters
    ----------
    atoms
        Atoms with a calculator; the dynamics moves them.
    temperature
        Temperature in K of the velocities and, unless `heated_to` is given, of the thermostat.
    seed
        Seed of the velocities and of the Langevin thermostat.
    heated_to
        Temperature in K of a Langevin thermostat. None: a free nonlinear molecule gets a Nosé-Hoover chain at
        `temperature`, anything else a Langevin thermostat.
    """
    rng = np.random.default_rng(seed)
    draw_velocities(atoms, temperature, rng)
    return _with_thermostat(atoms, temperature, heated_to, rng)


def resume(atoms: Atoms, temperature: float, state: State, heated_to: float | None = None) -> Thermostatted:
    """Resume the dynamics that `start` began from a later state, with the same numbers as without an interruption."""
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
    """Add a thermostat, in `state` if given.

    ASE's chain assumes that all 3N degrees of freedom hold kinetic energy. The total momentum and rotation of the
    molecule stay zero, so six hold none, and the others would be 3N / (3N - 6) times too hot: ethanol would be at
    643 K for 500 K. The temperature of the chain is reduced by this factor.
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
    # With a fixed centre of mass, the thermostat would not sample the NVT ensemble.
    langevin = Langevin(atoms, step, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)
    return Thermostatted(langevin, rng, n)
