"""The driver for i-PI: units, virials and committees by hand, and the inputs of the page in i-PI itself."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, save_model, structure
from schnet_ase.errors import StructureError
from tests.support.factories import ModelFactory
from tests.support.paths import ROOT

pytest.importorskip("ipi", reason="pip install i-PI")

from ipi.utils.units import unit_to_user

from schnet_ase.bridges.ipi_driver import LENGTH, SchNetDriver

M = 3


@pytest.fixture
def folder(make_model: ModelFactory, tmp_path: Path) -> Path:
    for seed in range(M):
        save_model(make_model(seed), tmp_path / "models" / f"fold-{seed}.safetensors")
    return tmp_path / "models"


def driver(atoms: Atoms, folder: Path, **options: object) -> SchNetDriver:
    file = folder.parent / "template.extxyz"
    ase.io.write(file, atoms)
    model = folder if options.get("ensemble") else folder / "fold-0.safetensors"
    return SchNetDriver(str(file), str(model), dtype="float64", **options)


def ask(drive: SchNetDriver, atoms: Atoms):
    return drive(LENGTH * atoms.cell.array.T, LENGTH * atoms.positions)


@pytest.mark.parametrize("name", ["ethanol", "crystal"])
def test_energies_and_forces_are_those_of_ase(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    atoms = request.getfixturevalue(name)
    drive = driver(atoms, folder)
    atoms.rattle(0.05, seed=3)  # other positions and another cell than the template's
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    answer = ask(drive, atoms)
    atoms.calc = SchNetCalculator(folder / "fold-0.safetensors", dtype="float64")
    energy = unit_to_user("energy", "electronvolt", answer.energy)
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-13)
    forces = unit_to_user("force", "ev/ang", answer.forces)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0.0, atol=1e-9)
    assert answer.extras == ""


def test_virial_is_minus_the_strain_derivative(crystal: Atoms, folder: Path) -> None:
    drive = driver(crystal, folder)
    virial, step = ask(drive, crystal).virial, 1e-4
    for i, j in ((0, 0), (0, 1), (1, 2)):
        energies = []
        for sign in (1.0, -1.0):
            strain = np.eye(3)
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            strained = crystal.copy()
            strained.set_cell(crystal.cell.array @ strain, scale_atoms=True)
            energies.append(ask(drive, strained).energy)
        assert virial[i, j] == pytest.approx(-(energies[0] - energies[1]) / (2.0 * step), abs=1e-6)
    np.testing.assert_array_equal(virial, virial.T)


def test_molecule_in_a_box_has_no_virial(ethanol: Atoms, folder: Path) -> None:
    ethanol.center(vacuum=5.0)
    ethanol.pbc = False
    assert not ask(driver(ethanol, folder), ethanol).virial.any()
    answer = ask(driver(ethanol, folder, ensemble=True), ethanol)
    assert np.array(json.loads(answer.extras)["committee_virial"]).shape == (M, 3, 3)
    assert not answer.virial.any()


@pytest.mark.parametrize("name", ["ethanol", "crystal"])
def test_committee_averages_to_the_answer(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    atoms = request.getfixturevalue(name)
    answer = ask(driver(atoms, folder, ensemble=True), atoms)
    committee = {key: np.array(values) for key, values in json.loads(answer.extras).items()}
    for key, mean in (("pot", answer.energy), ("force", answer.forces), ("virial", answer.virial)):
        np.testing.assert_allclose(committee[f"committee_{key}"].mean(axis=0), mean, rtol=1e-12, atol=1e-14)
    first = ask(driver(atoms, folder), atoms)
    np.testing.assert_allclose(committee["committee_force"][0], first.forces, rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(committee["committee_virial"][0], first.virial, rtol=0.0, atol=1e-11)


def test_batches_are_singles(ethanol: Atoms, folder: Path) -> None:
    drive = driver(ethanol, folder)
    moved = ethanol.copy()
    moved.rattle(0.1, seed=5)
    batch = drive([np.zeros((3, 3))] * 2, [LENGTH * atoms.positions for atoms in (ethanol, moved)])
    for answer, atoms in zip(batch, (ethanol, moved), strict=True):
        np.testing.assert_allclose(answer.forces, ask(drive, atoms).forces, rtol=0.0, atol=1e-12)


def test_template_that_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(StructureError, match=r"template=.*missing\.xyz"):
        SchNetDriver(str(tmp_path / "missing.xyz"), str(folder))


def test_path_of_the_command(run) -> None:
    status, out, _ = run("ipi", "path")
    file = Path(out.strip())
    assert (status, file.name) == (0, "ipi_driver.py")
    # i-PI registers a driver under the stem of its file, which would replace a package of that name.
    assert find_spec(file.stem) is None


def inputs() -> dict[str, str]:
    """The input files on the page, by the prefix of their output."""
    text = (ROOT / "docs" / "ipi.md").read_text()
    blocks = re.findall(r"```xml\n(<simulation.*?)```", text, re.S)
    return {re.search(r"prefix='(\w+)'", block).group(1): block for block in blocks}


@pytest.mark.parametrize("name", ["nvt", "pimd", "committee"])
def test_inputs_of_the_page(name: str, tmp_path: Path, run) -> None:
    atoms = structure("rmd17-ethanol")
    atoms.write(tmp_path / "ethanol.xyz")
    socket = f"test-{tmp_path.parent.name}-{name}"
    text = inputs()[name].replace("<address>schnet<", f"<address>{socket}<").replace(">2000<", ">4<")
    (tmp_path / "input.xml").write_text(text.replace("stride='10'", "stride='1'"))
    programs = Path(sys.executable).parent
    server = subprocess.Popen([programs / "i-pi", "input.xml"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        while not Path(f"/tmp/ipi_{socket}").exists():
            assert server.poll() is None, "i-PI ended before a driver could connect"
        options = f"template=ethanol.xyz,model=rmd17-ethanol,ensemble={str(name == 'committee').lower()}"
        driver = ["-m", "custom", "-P", run("ipi", "path")[1].strip(), "-o", options]
        command = [sys.executable, programs / "i-pi-py_driver", "-u", "-a", socket, *driver]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
    kind = SchNetEnsembleCalculator if name == "committee" else SchNetCalculator
    atoms.calc = kind("rmd17-ethanol")
    rows = np.loadtxt(tmp_path / f"{name}.out")
    assert len(rows) == 5
    assert rows[0, 4] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)  # i-PI prints nine digits
    if name == "committee":
        members = np.loadtxt(tmp_path / "committee.pot_0", comments="#")
        ours = atoms.calc.results["energy_ensemble"]
        np.testing.assert_allclose(unit_to_user("energy", "electronvolt", members[0]), ours, rtol=0.0, atol=1e-4)
