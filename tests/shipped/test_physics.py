"""The shipped ethanol: its minimum, dynamics and precision; the compiled engine far from rest."""

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import build_neighbor_list

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.registry.lookup import get_card
from schnet_ase.testing import check_calculator
from tests.support.calculations import ENGINES
from tests.support.shipped import CALCULATORS


def test_relaxed_structure_is_ethanol_at_a_minimum(card):
    atoms = card.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64")
    assert np.abs(atoms.get_forces()).max() < 2e-3
    # A network has minima where it has no data, too: this one is below the hot training frames, but not by much,
    # the members agree on it, and atoms are bonded as in ethanol.
    assert card.data.energy_min - 0.6 < atoms.get_potential_energy() < card.data.energy_min
    assert atoms.calc.results["forces_deviation"].max() < 0.05
    expected = molecule("CH3CH2OH")
    bonded = [sorted(map(len, build_neighbor_list(a, self_interaction=False).nl.neighbors)) for a in (atoms, expected)]
    assert bonded[0] == bonded[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("calculator", CALCULATORS)
def test_physics(card, calculator, engine):
    atoms = card.structure.atoms()
    atoms.rattle(0.05, seed=0)
    check_calculator(calculator("rmd17-ethanol", engine=engine, dtype="float64"), atoms)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("calculator", CALCULATORS)
def test_float32_forces_are_those_of_float64(card, calculator, engine):
    atoms = card.structure.atoms()
    atoms.rattle(0.05, seed=1)
    single, double = (calculator("rmd17-ethanol", engine=engine, dtype=dtype) for dtype in ("float32", "float64"))
    assert np.abs(single.get_forces(atoms) - double.get_forces(atoms)).max() < 1e-4
    atoms.calc = double
    assert np.abs(calculate_numerical_forces(atoms, eps=1e-4) - double.get_forces(atoms)).max() < 1e-5


def run_nve(card, timestep_fs, ps, dtype, engine):
    """Total energies in meV/atom every fs, after velocities for 300 K."""
    atoms = card.structure.atoms()
    atoms.calc = SchNetCalculator("rmd17-ethanol", engine=engine, dtype=dtype)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=round(1 / timestep_fs))
    dynamics.run(round(1000 * ps / timestep_fs))
    return 1000 * np.array(energies) / len(atoms)


@pytest.mark.parametrize(("engine", "ps", "bound"), [("compiled", 2.0, 0.01), ("autograd", 0.4, 0.03)])
def test_energy_is_conserved_in_float32(card, engine, ps, bound):
    """Drift in meV/atom/ps, between the means over the first and the last quarter of a run.

    The bounds are what runs so short can tell: the energy fluctuates by 0.05 meV/atom, so that where nothing drifts
    0.003 is found in 2 ps and 0.006 in 0.4 ps. Below 0.005 over 1 ns is for ``benchmarks/nve.py`` to show.
    """
    energies = run_nve(card, 0.5, ps, "float32", engine)
    quarters = np.array_split(energies, 4)
    assert abs(quarters[-1].mean() - quarters[0].mean()) / (0.75 * ps) < bound
    assert np.ptp(energies) < 0.5


@pytest.mark.parametrize(("engine", "ps"), [("compiled", 0.1), ("autograd", 0.05)])
def test_energy_fluctuation_falls_with_the_square_of_the_time_step(card, engine, ps):
    fluctuation = [run_nve(card, dt, ps, "float64", engine).std() for dt in (0.25, 0.5, 1.0)]
    order = np.log2([fluctuation[1] / fluctuation[0], fluctuation[2] / fluctuation[1]])
    assert np.all((order > 1.7) & (order < 2.3)), order


def hot_frames(card, temperature_K, steps, interval):
    """Of a trajectory from the relaxed structure, on the ensemble's mean."""
    atoms = card.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(card.name, engine="compiled")
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, temperature_K=2 * temperature_K, rng=rng)  # half of it goes into the potential energy
    friction = 0.01 / units.fs
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature_K, friction=friction, fixcm=False, rng=rng)
    frames = []
    dynamics.attach(lambda: frames.append(atoms.copy()), interval=interval)
    dynamics.run(steps)
    temperatures = [frame.get_temperature() for frame in frames]
    assert max(temperatures) < 3 * temperature_K, temperatures  # and it does not fly apart
    return frames


def with_lengths(atoms, first, second, lengths):
    frames = [atoms.copy() for _ in lengths]
    for frame, length in zip(frames, lengths, strict=True):
        frame.set_distance(first, second, length, fix=0, mic=bool(frame.pbc.any()))
    return frames


def strained(atoms):
    """Smaller, larger, and sheared into a triclinic cell."""
    frames = [atoms.copy() for _ in range(3)]
    shear = np.array([[0.01, 0.04, 0.0], [0.0, -0.02, 0.03], [0.02, 0.0, 0.01]])
    for frame, strain in zip(frames, (-0.04 * np.eye(3), 0.04 * np.eye(3), shear), strict=True):
        frame.set_cell(frame.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return frames


@pytest.fixture(scope="module", params=["rmd17-ethanol", "water"])
def far_from_rest(request):
    """A shipped ensemble, hot frames, squeezed and stretched pairs, strained cells, and what the reference says."""
    card = get_card(request.param)
    relaxed = card.structure.atoms()
    oxygen = int(np.flatnonzero(relaxed.numbers == 8)[0])
    others = np.argsort(relaxed.get_distances(oxygen, range(len(relaxed)), mic=bool(relaxed.pbc.any())))[1:]
    hydrogen = int(others[relaxed.numbers[others] == 1][0])
    # Members have forces of a hundred eV/Å with an O-H of 0.5 (ethanol) or 0.6 Å (water), and a member of water flies
    # apart within 20 fs at 600 K: there, single precision is off by 1e-4 eV/Å in either engine.
    hot = hot_frames(card, 1000, 300, 10) if card.name == "rmd17-ethanol" else hot_frames(card, 400, 80, 20)
    frames = hot + with_lengths(relaxed, oxygen, hydrogen, (0.75, 0.85, 1.2, 1.5, 1.9))
    if card.name == "water":
        frames += with_lengths(relaxed, oxygen, int(others[relaxed.numbers[others] == 8][0]), (2.2, 3.3))
        frames += strained(hot[-1])
    reference = SchNetEnsembleCalculator(card.name, engine="autograd", dtype="float64")
    return card.name, [(frame, reference.calculate(frame) or dict(reference.results)) for frame in frames]


@pytest.mark.parametrize(("dtype", "bounds"), [("float32", (1e-6, 1e-5, 1e-6)), ("float64", (1e-9, 1e-8, 1e-9))])
def test_compiled_engine_is_the_reference_far_from_rest(far_from_rest, dtype, bounds):
    """Against autograd in float64: of every member energy an atom in eV and forces in eV/Å; stress in eV/Å³."""
    name, frames = far_from_rest
    compiled = SchNetEnsembleCalculator(name, engine="compiled", dtype=dtype)
    energy, force, stress = bounds
    for frame, exact in frames:
        ours = compiled.calculate(frame) or compiled.results
        assert np.abs(ours["energy_ensemble"] - exact["energy_ensemble"]).max() <= energy * len(frame)
        assert np.abs(ours["forces_ensemble"] - exact["forces_ensemble"]).max() <= force
        assert ("stress" in ours) == (name == "water")
        if name == "water":
            assert np.abs(ours["stress"] - exact["stress"]).max() <= stress
            assert np.abs(ours["stress_std"] - exact["stress_std"]).max() <= stress
