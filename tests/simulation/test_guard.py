"""A run whose atoms fly apart, or fall into each other, ends there, with its last good frame kept."""

import csv
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.io import read, write

from schnet_ase.errors import RunawayError
from schnet_ase.monitor.guard import Guard
from schnet_ase.simulation.dynamics import run_md
from schnet_ase.simulation.relaxation import run_relax

# Relaxed with GFN2-xTB; it has the elements of rMD17's molecules and is none of them.
CAFFEINE = """24

C -2.705 -1.611 0.010
N -1.535 -0.749 -0.053
C -0.321 -1.280 0.393
O -0.227 -2.415 0.820
C 0.732 -0.318 0.268
C 0.526 0.958 -0.234
N 1.682 1.658 -0.242
C 2.576 0.825 0.245
N 2.073 -0.378 0.572
C 2.758 -1.511 1.123
N -0.699 1.381 -0.643
C -0.873 2.720 -1.161
C -1.775 0.522 -0.561
O -2.886 0.853 -0.913
H -3.465 -1.157 0.645
H -2.386 -2.566 0.421
H -3.121 -1.744 -0.988
H 3.610 1.079 0.371
H 2.659 -2.368 0.455
H 3.810 -1.267 1.256
H 2.317 -1.782 2.083
H -0.586 3.447 -0.402
H -0.242 2.859 -2.039
H -1.921 2.841 -1.425
"""


class Stated(Calculator):
    """Says what it is told to."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def __init__(self, n_atoms, threshold=None):
        super().__init__()
        self.energy, self.forces, self.deviation, self.lone = 0.0, np.zeros((n_atoms, 3)), np.zeros(n_atoms), []
        self.calibration = None
        if threshold is not None:
            self.calibration = SimpleNamespace(threshold=lambda: threshold, exceeded_by="1 in 1,000")

    def get_property(self, name, atoms=None, allow_calculation=True):
        self.results = {"energy": self.energy, "forces": self.forces, "forces_deviation": self.deviation}
        return self.results.get(name)

    def out_of_reach(self, atoms):
        return np.array(self.lone, dtype=int)


class Hole(Calculator):
    """Every pair attracts the more the nearer: E = -2 eV Å / r summed over pairs."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        vectors = atoms.positions[:, None] - atoms.positions
        lengths = np.linalg.norm(vectors, axis=-1) + np.diag(np.full(len(atoms), np.inf))
        forces = -2.0 * np.sum(vectors / lengths[..., None] ** 3, axis=1)
        self.results = {"energy": -(1.0 / lengths).sum(), "forces": forces}


@pytest.fixture
def water():
    atoms = molecule("H2O")
    atoms.calc = Stated(3, threshold=0.1)
    return atoms


def test_what_it_lets_pass(water):
    guard = Guard(water, 300.0)
    water.calc.energy = -14.9
    water.calc.forces = np.full((3, 3), 57.0)  # 98.7 eV/Å
    water.calc.deviation = np.array([0.0, 4.99, 0.0])
    water.set_momenta(np.full((3, 3), 0.1))
    assert guard(1) is None
    assert guard.good.step == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"energy": math.nan}, "the energy is nan"),
        ({"energy": -math.inf}, "the energy is -inf"),
        ({"energy": -15.3}, "the energy is 5.1 eV per atom below that of the start"),
        ({"forces": np.full((3, 3), math.nan)}, "a force is no finite number"),
        ({"forces": np.full((3, 3), 58.0)}, "a force is 100 eV/Å"),
        ({"deviation": np.array([0.0, 5.01, 0.0])}, "differ by 5.01 eV/Å, 50 times"),
        ({"lone": [2]}, r"atom 2 \(H\) has no other within the cutoff"),
    ],
)
def test_what_ends_a_run(water, change, reason):
    guard = Guard(water, 300.0)
    start = water.positions.copy()
    water.positions += 1.0
    for name, value in change.items():
        setattr(water.calc, name, value)
    with pytest.raises(AssertionError, match=reason):
        assert not guard(10), guard(10)
    guard.restore()
    assert np.array_equal(water.positions, start)


def test_a_bad_start_may_become_better(water):
    """Its own deviations, forces and lone atoms end nothing, and twice of the first two do."""
    calc = water.calc
    calc.forces, calc.deviation, calc.lone = np.full((3, 3), 100.0), np.full(3, 6.0), [1]
    guard = Guard(water, None)
    assert guard(0) is None
    calc.forces = np.full((3, 3), 190.0)
    assert guard(10) is None
    calc.deviation = np.full(3, 12.1)
    assert "differ" in guard(20)


@pytest.mark.parametrize(("times", "ends"), [(9.9, False), (10.1, True)])
def test_ten_times_the_temperature(water, times, ends):
    """2 E_kin = 3 · 3 k_B T with a thermostat."""
    from ase import units

    guard = Guard(water, 200.0)
    speed = np.sqrt(times * 200.0 * units.kB / water.get_masses())
    water.set_velocities(speed[:, None] * np.ones((3, 3)))
    assert bool(guard(1)) is ends
    if ends:
        assert "the temperature is 2,020 K, and 200 K was requested" in guard(1)


def test_a_molecule_that_flies_as_one_is_not_hot(water):
    guard = Guard(water, 300.0, conserved=True)
    water.set_velocities(np.full((3, 3), 10.0))
    assert guard(1) is None


def test_an_uncalibrated_model_has_no_limit_of_its_deviation():
    atoms = molecule("H2O")
    atoms.calc = Stated(3)
    guard = Guard(atoms, None)
    atoms.calc.deviation = np.full(3, 1e6)
    assert guard(1) is None


def test_dynamics_into_a_hole_ends_with_its_last_good_frame(tmp_path):
    atoms = Atoms("H4", positions=1.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.1], [0, 0, 1]]))
    atoms.calc = Hole()
    atoms.set_velocities(np.full((4, 3), 1e-3))
    with pytest.raises(RunawayError, match=r"stopped at step \d+: .*run.traj is the last good one, step \d+") as caught:
        run_md(atoms, tmp_path / "run", steps=5000, interval=1000)
    assert 0 < caught.value.step < 5000
    frames = read(tmp_path / "run.traj", ":")
    assert np.array_equal(frames[-1].positions, atoms.positions)
    with open(tmp_path / "run.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(frames)
    assert float(rows[-1]["time_ps"]) == pytest.approx(5e-4 * (caught.value.step - 1))
    assert float(rows[-1]["temperature_K"]) < 3000.0
    assert float(rows[-1]["potential_eV"]) > float(rows[0]["potential_eV"]) - 20.0
    assert (tmp_path / "run.png").exists()


def test_an_equilibration_into_a_hole_ends_too(tmp_path):
    atoms = Atoms("H4", positions=1.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.1], [0, 0, 1]]))
    atoms.calc = Hole()
    with pytest.raises(RunawayError, match=r"stopped at step \d+ of 2000 of the equilibration: ") as caught:
        run_md(atoms, tmp_path / "run", steps=100)
    assert caught.value.step < 0
    assert len(read(tmp_path / "run.traj", ":")) == 1


def test_an_optimization_into_a_hole_ends_too(tmp_path):
    atoms = Atoms("H3", positions=[[0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]])
    atoms.calc = Hole()
    with pytest.raises(
        RunawayError, match=r"stopped at step \d+: .*; the last frame of .* is the last good one"
    ) as caught:
        run_relax(atoms, tmp_path / "run")
    frames = read(tmp_path / "run.traj", ":")
    assert len(frames) == caught.value.step
    assert np.array_equal(frames[-1].positions, atoms.positions)
    assert not (tmp_path / "run.xyz").exists()


def test_the_error_is_the_same_in_another_process():
    error = pickle.loads(pickle.dumps(RunawayError("stopped", 7)))
    assert (str(error), error.step) == ("stopped", 7)


@pytest.mark.parametrize("command", ["md", "relax"])
def test_a_molecule_that_the_entry_does_not_hold_together(command, tmp_path, monkeypatch, run):
    """Relaxed, it went on to -2.6e8 eV in 1,000 steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "caffeine.xyz").write_text(CAFFEINE)
    status, _, said = run(command, "rmd17-all", "caffeine.xyz", "--dtype", "float64")
    assert status == 3
    assert "C8H10N4O2 is none of the ten molecules this entry knows" in said
    assert f"rmd17-all-{command}.traj is the last good one" in said
    assert "schnet-ase learn" in said
    frames = read(f"rmd17-all-{command}.traj", ":")
    energies = [frame.get_potential_energy() for frame in frames]
    assert min(energies) > energies[0] - 5.0 * 24
    assert all(frame.get_temperature() < 3000.0 for frame in frames)


def test_a_molecule_that_it_knows_runs(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    rattled = molecule("CH3CH2OH")
    rattled.rattle(0.12, seed=3)
    write("rattled.xyz", rattled)
    for command in (("relax", "--dtype", "float64"), ("md", "--steps", 50, "--temperature", 500)):
        status, _, said = run(command[0], "rmd17-ethanol", "rattled.xyz", *command[1:])
        assert status == 0
        assert "stopped" not in said
        assert "knows" not in said
