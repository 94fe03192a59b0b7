"""Pair style schnet in LAMMPS against ASE: the same numbers on any number of ranks, in any box."""

import numpy as np
import pytest
from ase.units import kcal, mol

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.export.lammps import write_model_file
from tests.support.lammps import CONSTANTS, crowd, lammps_input, pair_lines, printed, run_lammps, trained


@pytest.mark.parametrize(
    ("pbc", "ranks", "threads"),
    [
        ((True, True, True), 1, 1),
        ((True, True, True), 1, 3),
        ((True, True, True), 2, 2),
        ((True, True, True), 4, 1),
        ((True, True, False), 3, 1),
        ((False, False, False), 1, 1),
        ((False, False, False), 2, 1),
    ],
)
def test_the_same_numbers_as_in_ase(tmp_path, plugin, members, pbc, ranks, threads):
    atoms = crowd(pbc)
    write_model_file(tmp_path / "model", members, name="test", dtype="float64")
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms), members=3)
    result = run_lammps(tmp_path, text, ranks=ranks, threads=threads)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms, members=3)
    atoms.calc = SchNetEnsembleCalculator(members, dtype="float64")
    wanted = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "energies", "forces", "stress")}
    assert found.energy == pytest.approx(wanted["energy"], abs=1e-9)
    np.testing.assert_allclose(found.energies, wanted["energies"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.forces, wanted["forces"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.deviation, atoms.calc.results["forces_deviation"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.member_energies, atoms.calc.results["energy_ensemble"], rtol=0, atol=1e-9)
    if all(pbc):
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(found.stress, stress, rtol=CONSTANTS, atol=CONSTANTS * abs(stress).max())
        of_atoms = found.peratom_virial / atoms.cell.volume
        np.testing.assert_allclose(of_atoms, stress, rtol=CONSTANTS, atol=CONSTANTS * abs(stress).max())


@pytest.mark.parametrize("trigger", [0, 1])
def test_a_student_drives_and_the_members_watch(tmp_path, plugin, members, make_model, trigger):
    """Energy and forces are the student's, which has another shape and cutoff, the deviation is the members'."""
    atoms = crowd((True, True, True))
    student = trained(make_model(9, n_features=24, n_interactions=3, cutoff=3.5))
    write_model_file(tmp_path / "model", members, name="test", dtype="float64", student=student)
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms), members=3)
    text = text.replace("schnet deviation 0", f"schnet deviation {trigger}")
    result = run_lammps(tmp_path, text, ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms, members=3)
    ensemble = SchNetEnsembleCalculator(members, dtype="float64")
    deviation = ensemble.get_property("forces_deviation", atoms)
    np.testing.assert_allclose(found.deviation, deviation, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.member_energies, ensemble.results["energy_ensemble"], rtol=0, atol=1e-9)
    atoms.calc = SchNetCalculator(student, dtype="float64")
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-8)


def test_single_precision_in_units_real(tmp_path, plugin, members):
    atoms = crowd((True, True, True))
    write_model_file(tmp_path / "model", members[:1], name="one", dtype="float32")
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms), units="real")
    result = run_lammps(tmp_path, text, ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms)
    atoms.calc = SchNetEnsembleCalculator(members[:1] * 2, dtype="float64")
    assert found.energy * kcal / mol == pytest.approx(atoms.get_potential_energy(), rel=CONSTANTS)
    forces = atoms.get_forces()
    np.testing.assert_allclose(found.forces * kcal / mol, forces, rtol=0, atol=1e-5 * abs(forces).max())


@pytest.mark.parametrize(
    "commands",
    [
        ["comm_style tiled", "balance 1.0 rcb"],
        ["balance 1.0 shift xyz 5 1.1"],
        ["atom_modify sort 1 2.0"],
        ["comm_modify cutoff 9.0"],
    ],
    ids=lambda commands: commands[0],
)
def test_however_the_box_is_cut(tmp_path, plugin, members, commands):
    """Twenty steps of dynamics on two ranks end as those on one."""
    atoms = crowd((True, True, True)).repeat((2, 1, 1))  # tiles may not be smaller than what ghosts reach
    write_model_file(tmp_path / "model", members[:1], name="one", dtype="float64")
    ends = []
    for ranks in (1, 2):
        after = [
            *(commands if ranks > 1 else []),
            "velocity all create 300 7 loop all",
            "fix move all nve",
            "timestep 0.0002",
            "neigh_modify every 2 delay 0 check no",
            "thermo 20",
            "run 20",
        ]
        pair = pair_lines(plugin, tmp_path / "model", atoms)
        folder = tmp_path / str(ranks)
        folder.mkdir()
        result = run_lammps(folder, lammps_input(folder, atoms, pair, after=after), ranks=ranks)
        assert result.returncode == 0, result.stdout + result.stderr
        ends.append(printed(folder, atoms))
    assert ends[0].energy == pytest.approx(ends[1].energy, abs=1e-8)
    np.testing.assert_allclose(ends[0].forces, ends[1].forces, rtol=0, atol=1e-7)


def test_energy_is_conserved(tmp_path, plugin, members):
    """The error of velocity Verlet is of second order in the step: a quarter at half of it."""
    atoms = crowd((True, True, True))
    write_model_file(tmp_path / "model", members[:1], name="one", dtype="float64")
    swings = []
    for steps in (100, 200):
        after = [
            "velocity all create 300 7 loop all",
            "fix move all nve",
            f"timestep {0.02 / steps}",
            "thermo_style custom step pe c_p[*] c_sums[*] v_e1 etotal",
            f"thermo {steps // 100}",
            f"run {steps}",
        ]
        folder = tmp_path / str(steps)
        folder.mkdir()
        pair = pair_lines(plugin, tmp_path / "model", atoms)
        result = run_lammps(folder, lammps_input(folder, atoms, pair, after=after))
        assert result.returncode == 0, result.stdout + result.stderr
        lines = (folder / "log").read_text().splitlines()
        rows = [line.split() for line in lines if len(line.split()) == 16 and line.split()[0].isdigit()]
        total = np.array([float(row[-1]) for row in rows])
        swings.append(np.ptp(total))
    assert swings[0] / swings[1] == pytest.approx(4.0, rel=0.15)


def test_atoms_that_the_model_does_not_act_on(tmp_path, plugin, members):
    """In hybrid/overlay with NULL for an element, the others are what they are without it."""
    atoms = crowd((True, True, True))
    without = atoms[atoms.numbers != 8]
    write_model_file(tmp_path / "model", members[:1], name="one", dtype="float64")
    pair = [
        f"plugin load {plugin}",
        "pair_style hybrid/overlay schnet zero 5.0",
        f"pair_coeff * * schnet {tmp_path / 'model'} C H NULL",
        "pair_coeff * * zero",
    ]
    result = run_lammps(tmp_path, lammps_input(tmp_path, atoms, pair), ranks=2)
    assert result.returncode == 0, result.stdout + result.stderr
    found = printed(tmp_path, atoms)
    without.calc = SchNetEnsembleCalculator(members[:1] * 2, dtype="float64")
    np.testing.assert_allclose(found.forces[atoms.numbers != 8], without.get_forces(), rtol=0, atol=1e-8)
    assert found.energy == pytest.approx(without.get_potential_energy(), abs=1e-9)
    assert not found.forces[atoms.numbers == 8].any()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("newton on", "newton off"), "needs newton pair on"),
        (("units metal", "units lj"), "needs units metal or real"),
        ((" C H O", " C H"), "expected * * FILE and an element"),
        ((" C H O", " C H N"), "N of atom type 3 is none of the elements"),
        (("/model", "/other"), "cannot read"),
        (("/model", "/."), "cannot read"),
    ],
    ids=lambda change: change[1] if isinstance(change, tuple) else "",
)
def test_refusals_are_one_line(tmp_path, plugin, members, change, line):
    atoms = crowd((True, True, True))
    write_model_file(tmp_path / "model", members, name="test")
    text = lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms))
    result = run_lammps(tmp_path, text.replace(*change))
    assert result.returncode
    assert any("ERROR" in said and line in said for said in (result.stdout + result.stderr).splitlines())


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda b: b[:-100], "truncated"),
        (lambda b: b + b"more", "truncated or with more"),
        (lambda b: b[:-10] + bytes([b[-10] ^ 1]) + b[-9:], "damaged"),
        (lambda b: b"\n" + b, "not a model"),
        (lambda b: b.replace(b"lammps 1", b"lammps 9", 1), "format 9 is newer"),
        (lambda b: b.replace(b" rows ", b" lines ", 1), "lacks rows"),
        (lambda b: b[: b.index(b"\n\n")], "its header does not end"),
    ],
    ids=["short", "long", "flipped", "foreign", "newer", "key", "header"],
)
def test_files_that_are_not_whole_are_refused(tmp_path, plugin, members, damage, line):
    atoms = crowd((True, True, True))
    write_model_file(tmp_path / "model", members, name="test")
    (tmp_path / "model").write_bytes(damage((tmp_path / "model").read_bytes()))
    result = run_lammps(tmp_path, lammps_input(tmp_path, atoms, pair_lines(plugin, tmp_path / "model", atoms)))
    assert result.returncode
    assert any("ERROR" in said and line in said for said in (result.stdout + result.stderr).splitlines())
