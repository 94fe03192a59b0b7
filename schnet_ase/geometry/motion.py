"""Degrees of freedom, temperature, and equilibration to a mean temperature."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta

from schnet_ase.geometry.arrays import Floats

LINEAR = 0.17
"""Å. Atoms whose root mean square distance from a line is smaller form a linear molecule, which vibrates by less; it
is 0.28 Å for water, the smallest of bent molecules."""
SETTLE_FS, MEASURE_FS = 500.0, 500.0
"""Times of an equilibration: for the bonds to take up their share of the energy, and to measure."""
FRICTION_PER_PS = 20.0
"""Friction of the thermostat in an equilibration, 1/ps."""
SPACING = 5
"""Steps between the states from which a run at constant energy may start."""


class Thermometer(NamedTuple):
    """Measures temperature by the degrees of freedom that exchange energy in a run.

    At constant energy a free molecule keeps its total momentum and its angular momentum, a periodic system its total
    momentum; these motions do not contribute to the temperature. A Langevin thermostat drives all motions.
    """

    conserved: bool
    """Whether the run conserves the momenta that its forces and constraints allow it to conserve."""

    def degrees(self, atoms: Atoms) -> int:
        """Return the number of degrees of freedom of `atoms` that count."""
        return degrees_of_freedom(atoms) - (rigid_modes(atoms).shape[1] if self.conserved else 0)

    def kinetic(self, atoms: Atoms) -> float:
        """Return the kinetic energy of these degrees of freedom, eV."""
        return internal_kinetic_energy(atoms) if self.conserved else float(atoms.get_kinetic_energy())

    def kelvin(self, atoms: Atoms) -> float:
        """Return the temperature 2 E_kin / (k_B n) for n degrees of freedom, K; 0 if there are none."""
        return 2.0 * self.kinetic(atoms) / (max(1, self.degrees(atoms)) * units.kB)


def degrees_of_freedom(atoms: Atoms) -> int:
    """Return 3N less what the constraints report to remove; those that report nothing (ASE's ``MirrorForce``) count
    0."""
    left = 3 * len(atoms)
    for constraint in atoms.constraints:
        with contextlib.suppress(NotImplementedError):
            left -= constraint.get_removed_dof(atoms)
    return max(0, left)


def rigid_modes(atoms: Atoms) -> Floats:
    """Return the rigid motions of all atoms that a run at constant energy conserves.

    Parameters
    ----------
    atoms
        Free, periodic or constrained atoms.

    Returns
    -------
    (3N, K) array
        Orthonormal, in velocities times the root of the mass. K is 6 for a free molecule, 5 for a linear one, 3 for one
        atom and for a periodic system, and fewer if a constraint, such as that of a fixed atom, prevents a motion.
    """
    root = np.sqrt(atoms.get_masses())[:, None]
    motions = [root * axis for axis in np.eye(3)]
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.positions.mean(axis=0)
        spread, axes = np.linalg.eigh(arms.T @ arms)  # ascending: the axis of a linear molecule comes last
        linear = spread[1] < LINEAR**2 * len(atoms)
        motions += [root * np.cross(axis, arms) for axis in axes.T[: 2 if linear else 3]]
    columns = np.array([motion.ravel() for motion in motions]).T
    left, spread, _ = np.linalg.svd(columns, full_matrices=False)
    rigid: Floats = left[:, spread > 1e-6 * spread[0]]
    if not atoms.constraints:
        return rigid
    allowed = np.array([_constrained(atoms, mode, root) for mode in rigid.T]).T
    _, changed, combinations = np.linalg.svd(allowed - rigid, full_matrices=False)
    kept: Floats = rigid @ combinations[changed < 1e-6].T
    return kept


def _constrained(atoms: Atoms, mode: Floats, root: Floats) -> Floats:
    """Return the part of a motion that the constraints allow."""
    copy = atoms.copy()
    copy.set_momenta(mode.reshape(-1, 3) * root)
    left: Floats = (copy.get_momenta() / root).ravel()
    return left


def internal_kinetic_energy(atoms: Atoms) -> float:
    """Return the kinetic energy without that of the motions of `rigid_modes`, eV."""
    scaled = (atoms.get_momenta() / np.sqrt(atoms.get_masses())[:, None]).ravel()
    modes = rigid_modes(atoms)
    scaled -= modes @ (modes.T @ scaled)
    return 0.5 * float(scaled @ scaled)


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw Maxwell-Boltzmann velocities at `temperature`, K, without total momentum and, for a molecule, without
    rotation."""
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms, preserve_temperature=len(atoms) > 1)  # nothing is left to scale for a single atom
    if not atoms.pbc.any() and len(atoms) > 2:
        with np.errstate(invalid="ignore"):  # a linear molecule does not rotate about its axis
            ZeroRotation(atoms)


def equilibration_steps(timestep_fs: float) -> int:
    """Return the number of steps of `equilibrate`."""
    return math.ceil(SETTLE_FS / timestep_fs) + math.ceil(MEASURE_FS / timestep_fs)


def equilibrate(
    atoms: Atoms,
    temperature: float,
    timestep_fs: float,
    rng: np.random.Generator,
    look: Callable[[int], None] = lambda step: None,
) -> None:
    r"""Bring `atoms` to a state from which a run at constant energy has the mean temperature `temperature`.

    Langevin dynamics settles for 0.5 ps. During another 0.5 ps it measures the energy E that the run should have,

    .. math:: E = \langle U - K \rangle + n k_B T,

    with the n degrees of freedom of `Thermometer` and their kinetic energy K, whose mean at T is half of the second
    term. U - K scatters less than U: for harmonic bonds its mean over a vibration is zero, whatever their energy.
    The result is the state of the second half whose energy is nearest to E, with its rigid motion removed and its
    velocities scaled to make up the difference.

    Parameters
    ----------
    atoms
        Atoms with a calculator and velocities.
    temperature
        Target temperature, K, above zero.
    timestep_fs
        Time step, fs.
    rng
        Random numbers of the thermostat.
    look
        Callback after every step with the number of steps left, from `equilibration_steps` less one down to 0.
    """
    dynamics = Langevin(
        atoms,
        timestep_fs * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_PS / (1000.0 * units.fs),
        fixcm=False,
        rng=rng,
    )
    total, measured = equilibration_steps(timestep_fs), math.ceil(MEASURE_FS / timestep_fs)
    differences: list[float] = []
    states: list[tuple[float, Floats, Floats]] = []
    for left in reversed(range(total)):
        dynamics.run(1)
        look(left)
        if left < measured:
            potential, kinetic = atoms.get_potential_energy(), internal_kinetic_energy(atoms)
            differences.append(potential - kinetic)
            if left % SPACING == 0:
                states.append((potential + kinetic, atoms.get_positions(), atoms.get_momenta()))
    degrees = Thermometer(True).degrees(atoms)
    wanted = float(np.mean(differences)) + degrees * units.kB * temperature
    _, positions, momenta = min(states, key=lambda state: abs(state[0] - wanted))
    atoms.set_positions(positions, apply_constraint=False)
    root = np.sqrt(atoms.get_masses())[:, None]
    modes, scaled = rigid_modes(atoms), (momenta / root).ravel()
    scaled -= modes @ (modes.T @ scaled)
    kinetic = wanted - atoms.get_potential_energy()
    if kinetic > 0.0 and scaled.any():
        scaled *= math.sqrt(kinetic / (0.5 * float(scaled @ scaled)))
    atoms.set_momenta(scaled.reshape(-1, 3) * root, apply_constraint=False)
