"""The benchmarks' own parts: structures, taking turns, and that a side that differs is not timed; no SchNetPack."""

from pathlib import Path

import _sides
import md_speed
import numpy as np
import pytest
import train_speed
from _sides import MARK, Side, alternate, schnetpack_python, together
from _systems import ASPIRIN, labelled_frames, make_system
from _worker import CUTOFF, N_INTERACTIONS, N_RBF, Job
from ase import units
from ase.io import write
from ase.neighborlist import natural_cutoffs, neighbor_list
from click.testing import CliRunner
from scipy.sparse.csgraph import connected_components

from schnet_ase.errors import SchNetError

FEATURES = 8


def schnetpack_weights(seed):
    """What SchNetPack's side writes."""
    rng = np.random.default_rng(seed)
    dense = {"output_modules.0.outnet.0": (FEATURES // 2, FEATURES), "output_modules.0.outnet.1": (1, FEATURES // 2)}
    weights = {"representation.embedding.weight": rng.normal(size=(100, FEATURES))}
    for k in range(N_INTERACTIONS):
        block = f"representation.interactions.{k}"
        weights[f"{block}.in2f.weight"] = rng.normal(size=(FEATURES, FEATURES))
        for layer in ("f2out.0", "f2out.1", "filter_network.1"):
            dense[f"{block}.{layer}"] = (FEATURES, FEATURES)
        dense[f"{block}.filter_network.0"] = (FEATURES, N_RBF)
    for layer, shape in dense.items():
        weights[f"{layer}.weight"] = rng.normal(scale=0.2, size=shape)
        weights[f"{layer}.bias"] = rng.normal(scale=0.2, size=shape[0])
    weights["representation.radial_basis.offsets"] = np.linspace(0.0, CUTOFF, N_RBF)
    weights["representation.radial_basis.widths"] = np.full(N_RBF, CUTOFF / (N_RBF - 1))
    weights["representation.cutoff_fn.cutoff"] = np.array([CUTOFF])
    return {name: array.astype(np.float32) for name, array in weights.items()}


@pytest.fixture
def job(tmp_path):
    for member in range(2):
        np.savez(tmp_path / f"{member}.npz", **schnetpack_weights(member))
    write(tmp_path / "atoms.traj", make_system("ethanol"))
    return Job("md", str(tmp_path / "atoms.traj"), str(tmp_path), FEATURES, 1, 1, "auto")


def test_water_is_water():
    atoms = make_system("water-192")
    assert len(atoms) == 192
    assert atoms.pbc.all()
    density = atoms.get_masses().sum() * units._amu * 1e3 / (atoms.get_volume() * 1e-24)
    assert density == pytest.approx(0.997, rel=1e-9)
    i, j, d = neighbor_list("ijd", atoms, 1.2)
    bonds = d[(atoms.numbers[i] == 8) & (atoms.numbers[j] == 1)]
    assert len(bonds) == 128
    assert np.ptp(bonds) < 1e-6
    molecule = np.arange(192) // 3
    i, j, d = neighbor_list("ijd", atoms, 2.5)
    assert d[molecule[i] != molecule[j]].min() > 0.7, "molecules lie in each other"
    turned = np.diff(atoms.positions[molecule == 1], axis=0), np.diff(atoms.positions[molecule == 2], axis=0)
    assert np.abs(turned[0] - turned[1]).max() > 0.1
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-9


def test_larger_boxes_are_the_same_liquid():
    small, large = make_system("water-192"), make_system("water-1536")
    assert len(large) == 1536
    assert large.get_volume() == pytest.approx(8 * small.get_volume())


def test_aspirin_is_aspirin():
    assert ASPIRIN.get_chemical_formula() == "C9H8O4"
    i, j = neighbor_list("ij", ASPIRIN, natural_cutoffs(ASPIRIN, mult=1.15))
    assert len(i) == 2 * 21  # a ring in a connected graph of 21 atoms
    adjacency = np.zeros((21, 21))
    adjacency[i, j] = 1
    assert connected_components(adjacency)[0] == 1
    degrees = np.bincount(i)
    assert set(degrees[ASPIRIN.numbers == 1]) == {1}
    assert sorted(degrees[ASPIRIN.numbers == 6]) == [3, 3, 3, 3, 3, 3, 3, 3, 4]


def test_sides_take_turns_and_one_that_differs_is_not_timed(job, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    np.savez(other / "0.npz", **schnetpack_weights(5))
    jobs = [job, job._replace(members=2), job._replace(weights=str(other))]
    with together(Side(f"side {number}", one) for number, one in enumerate(jobs)) as sides:
        assert md_speed.check_agreement(sides[:2], tmp_path)[1].of_forces <= 1e-5
        with pytest.raises(SchNetError, match=r"side 2 and side 0 differ by .* in the energy .* nothing was timed"):
            md_speed.check_agreement(sides, tmp_path)
        timings = alternate(sides[:2], blocks=3, seconds=0.02)
        assert all(side.peak_mb >= side.start_mb > 10.0 for side in sides)
    assert all(timing.seconds > 0.0 and timing.steps >= 3 and timing.lists == 0 for timing in timings)


def test_side_that_fails_says_why(job):
    with pytest.raises(SchNetError, match=r"lonely ended with status 1: FileNotFoundError: .*2\.npz") as caught:
        Side("lonely", job._replace(members=3))
    assert "\n" not in str(caught.value)


def test_ways_of_training_have_one_gradient(job, tmp_path):
    write(tmp_path / "frames.traj", labelled_frames("aspirin", 2))
    training = job._replace(task="train", frames=str(tmp_path / "frames.traj"))
    losses, gradients = [], []
    with together(Side(way, training._replace(way=way)) for way in ("full", "half")) as sides:
        for side in sides:
            losses.append(side.ask("gradient", file=str(tmp_path / f"{side.name}.npz"))["loss"])
            with np.load(tmp_path / f"{side.name}.npz") as arrays:
                gradients.append(np.concatenate([arrays[name].ravel() for name in sorted(arrays)]))
        assert sides[0].ask("run", steps=2)["seconds"] > 0.0
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-5 * np.abs(gradients[0]).max())


def test_exponents_are_those_of_the_numbers():
    def row(system, atoms, program):
        linear = program == "linear"
        ms = 0.01 * atoms if linear else 1e-5 * atoms**2
        return md_speed.Row(
            system, atoms, 64, 1, program, 1, "compiled", ms, 0.0, 1.0, 1.0, 100.0 + 0.2 * atoms, 100.0, None, 0.0, 0.0
        )

    sizes = {"ethanol": 9, "water-192": 192, "water-1536": 1536, "water-12288": 12288}
    rows = [row(system, atoms, program) for program in ("linear", "square") for system, atoms in sizes.items()]
    found = md_speed.exponents(rows)
    assert found == [("linear", 1, 64, 1, "1.00", "1.00"), ("square", 1, 64, 1, "2.00", "1.00")]
    page = md_speed.markdown(rows, "note")
    assert page.count("\n| ethanol") == 2


def test_picture(tmp_path):
    row = md_speed.Row(
        "ethanol", 9, 64, 1, "schnet_ase", 1, "compiled", 0.2, 0.0, 1.0, 1.0, 300.0, 200.0, None, 0.0, 0.0
    )
    md_speed.draw([row], tmp_path / "performance.png")
    assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")


def test_environment_is_made_once_and_again_after_an_interruption(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(_sides, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(_sides, "_install", lambda environment: (environment.mkdir(), made.append(environment)))
    python = Path(schnetpack_python(None))
    assert python.is_relative_to(tmp_path)
    assert schnetpack_python(None) == str(python)
    assert len(made) == 1
    (made[0] / MARK).unlink()
    schnetpack_python(None)
    assert len(made) == 2


def test_environment_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(_sides, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(_sides, "REQUIREMENTS", ("schnetpack==2.1.1", str(tmp_path / "nowhere")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SchNetError, match="give --schnetpack-venv") as caught:
        schnetpack_python(None)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob(MARK))


@pytest.mark.parametrize("command", [md_speed.main, train_speed.main])
def test_no_environment_is_status_2_and_one_line(command, tmp_path):
    result = CliRunner().invoke(command, ["--schnetpack-venv", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "nowhere: no virtual environment; expected one with schnetpack==2.1.1" in result.output
