"""LAMMPS's own commands with pair style schnet end as ASE says, or are refused in one line."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from schnet_ase import SchNetCalculator
from schnet_ase.export.lammps import write_model_file
from tests.support.lammps import (
    assert_as_in_ase,
    crowd,
    end,
    lammps_input,
    pair_lines,
    printed,
    run_lammps,
    start_lammps,
)

ALL = (True, True, True)


@pytest.fixture
def model(tmp_path, members):
    write_model_file(tmp_path / "model", members[:1], name="one", dtype="float64")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("pbc", "boundary", "before", "commands", "ranks"),
    [
        (ALL, None, [], ["minimize 0 1e-3 40 200"], 2),
        (ALL, None, [], ["fix m all npt temp 300 300 0.05 tri 0 0 0.2", "velocity all create 300 7", "run 20"], 3),
        (ALL, None, ["atom_modify sort 5 3.0"], ["fix m all nve", "velocity all create 300 7", "run 20"], 8),
        ((True, True, False), "p p s", [], ["fix m all nve", "velocity all create 300 7", "run 10"], 2),
        ((True, True, False), "p p fm", [], ["fix m all nve", "velocity all create 300 7", "run 10"], 2),
        ((False, False, False), "s s s", [], ["fix m all nve", "velocity all create 300 7", "run 10"], 4),
        (ALL, None, [], ["fix m all box/relax iso 0.0", "minimize 0 1e-3 10 50"], 2),
    ],
    ids=["minimize", "npt", "sort", "slab", "wall", "cluster", "box"],
)
def test_the_end_of_a_run_is_as_in_ase(tmp_path, plugin, members, model, pbc, boundary, before, commands, ranks):
    atoms = crowd(pbc)
    if boundary == "s s s":  # LAMMPS loses atoms of a tilted box that is shrink-wrapped
        atoms.cell[:] = 0.0
        atoms.center(vacuum=5.0)
    pair = pair_lines(plugin, model, atoms)
    after = ["timestep 0.0005", "thermo 10", *commands, f"write_data {tmp_path / 'end'} nocoeff"]
    result = run_lammps(
        tmp_path, lammps_input(tmp_path, atoms, pair, before=before, after=after, boundary=boundary), ranks=ranks
    )
    assert result.returncode == 0, result.stdout + result.stderr
    last = end(tmp_path, atoms)
    assert abs(last.positions - atoms.positions).max() > 1e-3
    assert_as_in_ase(tmp_path, last, SchNetCalculator(members[0], dtype="float64"))


def test_excluded_pairs_are_no_neighbours(tmp_path, plugin, members, model):
    """Two groups that do not see each other are what each is alone, and LAMMPS says that this changes the network."""
    atoms = crowd(ALL)
    after = ["group few id 1:7", "group rest subtract all few", "neigh_modify exclude group few rest", "run 0"]
    result = run_lammps(tmp_path, lammps_input(tmp_path, atoms, pair_lines(plugin, model, atoms), after=after), ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "neigh_modify exclude" in result.stdout
    found = printed(tmp_path, atoms)
    energy, forces = 0.0, []
    for part in (atoms[:7], atoms[7:]):
        part.calc = SchNetCalculator(members[0], dtype="float64")
        energy += part.get_potential_energy()
        forces.append(part.get_forces())
    assert found.energy == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(found.forces, np.concatenate(forces), rtol=0, atol=1e-8)


def test_a_killed_run_goes_on_from_its_restart_file(tmp_path, plugin, model):
    """A rank is killed; from the restart file on, the trajectory is that of a run that was not."""
    atoms = crowd(ALL)
    pair = pair_lines(plugin, model, atoms)
    move = ["fix move all nve", "timestep 0.0005", "thermo 10", "restart 20 at.*"]
    texts = {
        "killed": lammps_input(tmp_path, atoms, pair, after=["velocity all create 300 7", *move, "run 1000000"]),
        "whole": lammps_input(tmp_path, atoms, pair, after=["velocity all create 300 7", *move, "run 60"]),
    }
    again = lammps_input(tmp_path, atoms, pair, after=[*move, "run 20"])
    texts["again"] = again.replace(f"read_data {tmp_path / 'data'}", f"read_restart {tmp_path / 'killed' / 'at.40'}")
    ends = []
    for name, text in texts.items():
        folder = tmp_path / name
        folder.mkdir()
        text = text.replace(f"{tmp_path / 'dump'}", f"{folder / 'dump'}")
        if name == "killed":
            _kill_a_rank(folder, text)
            continue
        result = run_lammps(folder, text, ranks=2)
        assert result.returncode == 0, result.stdout + result.stderr
        ends.append(printed(folder, atoms))
    assert ends[0].energy == pytest.approx(ends[1].energy, abs=1e-8)
    np.testing.assert_allclose(ends[0].forces, ends[1].forces, rtol=0, atol=1e-7)


def _kill_a_rank(folder: Path, text: str) -> None:
    with start_lammps(folder, text, ranks=2) as process:
        until = time.monotonic() + 300.0
        while not (folder / "at.60").exists():
            assert process.poll() is None, "LAMMPS has ended by itself"
            assert time.monotonic() < until, "no restart file"
            time.sleep(0.05)
        ranks = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_rank(pid, folder)]
        assert len(ranks) == 2
        os.kill(ranks[0], signal.SIGKILL)
        assert process.wait(timeout=60.0) != 0


def _is_rank(pid: int, folder: Path) -> bool:
    """Whether a process is LAMMPS itself in this folder, not what started it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False
    return words[0].endswith(b"lammps/lmp") and bytes(folder / "in") in words


@pytest.mark.parametrize(
    ("before", "commands", "line"),
    [
        (
            [],
            ["compute g all group/group all", "thermo_style custom step c_g", "run 0"],
            "does not support compute group/group",
        ),
        (["comm_style tiled"], ["run 0"], "cannot exceed periodic box length"),
        ([], ["pair_write 1 1 10 r 1.0 2.0 table x", "run 0"], "does not support pair_write"),
        ([], ["fix w all pair 1 schnet deviation 0", "run 0"], "cannot extract property deviation"),
    ],
    ids=["group/group", "tiled", "pair_write", "one network"],
)
def test_what_lammps_refuses_it_refuses_in_one_line(tmp_path, plugin, model, before, commands, line):
    atoms = crowd(ALL)
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, model, atoms), before=before, after=commands)
    result = run_lammps(tmp_path, text)
    assert result.returncode
    said = [words for words in (result.stdout + result.stderr).splitlines() if "ERROR" in words]
    assert said
    assert any(line in words for words in said), said
