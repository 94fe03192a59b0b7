"""The command line: training, learning, and one line and status 2 for every mistake."""

import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

import schnet_ase
from schnet_ase import SchNet, SchNetConfig, save_model
from tests.support.frames import write_ethanol, write_run


def test_an_encoding_without_angstroms():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "schnet_ase", "models", "show", "rmd17-ethanol"]
    shown = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"meV/?" in shown.stdout


def test_train_and_its_model(here, run):
    config = write_run(here)
    status, out, _ = run("train", config)
    assert status == 0
    assert "test (8 frames)" in out
    assert "runs/ethanol-emt/best.safetensors" in out
    # With a thermostat, since a network of few steps would not survive a picosecond of equilibration.
    assert run("md", "runs/ethanol-emt/best.safetensors", "ethanol.extxyz", "--steps", 2, "--thermostat")[0] == 0


def test_crossval(here, run):
    config = write_run(here)
    status, out, _ = run("crossval", config, "--models", "entries", "--workers", 1)
    assert status == 0
    assert "ensemble on test frames (8 frames)" in out
    assert (here / "entries" / "ethanol-emt" / "card.json").exists()


def test_unknown_model(here, mistake):
    assert "did you mean ethanol-emt" in mistake("md", "ethanol-etm")


def test_unknown_member(here, mistake):
    assert "expected one of ethanol-emt/fold-1" in mistake("md", "ethanol-emt/fold-9")


def test_unknown_command(mistake):
    assert "No such command" in mistake("mdd")


def test_bad_option_value(here, mistake):
    assert "--steps" in mistake("md", "ethanol-emt", "--steps", "many")


def test_seed_below_zero(here, mistake):
    assert "--seed" in mistake("md", "ethanol-emt", "--seed", -1)


def test_structure_missing(here, mistake):
    assert "none.xyz" in mistake("md", "ethanol-emt", "none.xyz")


def test_structure_of_unknown_element(here, run, mistake):
    write("nh3.xyz", molecule("NH3"))
    for command in ("md", "relax"):
        arguments = command, "ethanol-emt", "nh3.xyz", "--output", "new"
        assert "not trained on N; it knows H, C, O" in mistake(*arguments)
        assert not run(*arguments)[1], "it is refused before anything is printed"
    assert [file.name for file in here.iterdir()] == ["nh3.xyz"]


@pytest.mark.parametrize("command", ["md", "relax"])
def test_structure_with_a_position_that_is_no_number(here, mistake, command):
    atoms = molecule("CH3CH2OH")
    atoms.positions[2, 0] = np.nan
    write("nan.xyz", atoms)
    assert "position of atom 2 is [ nan" in mistake(command, "ethanol-emt", "nan.xyz")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_device_that_is_not_there(here, mistake, device):
    assert f"device '{device}' cannot be used here" in mistake("md", "ethanol-emt", "--device", device)


def test_file_without_molecule(here, mistake):
    save_model(SchNet(SchNetConfig.small()), "model.safetensors")
    assert "give a structure" in mistake("md", "model.safetensors")


def test_damaged_checkpoint(here, mistake):
    (here / "model.safetensors").write_bytes(b"not a checkpoint")
    assert "model.safetensors" in mistake("relax", "model.safetensors", "x.xyz")


def test_data_without_labels(here, mistake):
    write("plain.xyz", molecule("CH3CH2OH"))
    assert "no energies, forces or stresses" in mistake("evaluate", "ethanol-emt", "plain.xyz")


def test_config_mistake(here, mistake):
    config = write_run(here)
    config.write_text(config.read_text().replace("steps", "stepz"))
    assert "training.stepz is unknown" in mistake("train", config)


def test_help_and_version(run):
    assert run("--help")[0] == 0
    assert run("--version")[0] == 0


LEARN = """
name = "ethanol-learned"
start = "start.extxyz"
max_labels = 47
folds = 4
[reference]
calculator = "ase.calculators.emt.EMT"
[flags]
threshold = [0.01, 1000.0]
[model]
n_features = 8
n_interactions = 1
n_rbf = 8
[training]
steps = 10
batch_size = 5
validate_every = 10
"""


def test_learn(here, run):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN)
    status, out, err = run("learn", "learn.toml", "--workers", "1")
    assert status == 0
    assert "first frames: 45 with their labels, 0 labelled by the reference" in err
    assert "(first frames" not in out
    for text in (
        "label 45 (flag 0, reference)",
        "generation 0: 45 labels",
        "flag 0 at ",
        "generation 1: 47 labels",
        "finished after 47 labels: 47 labels, 2 generations",
        f"SchNetEnsembleCalculator('{here}/runs/ethanol-learned/generation-001/ethanol-learned')",
    ):
        assert text in out
    assert run("learn", "learn.toml", "--workers", "1")[1].count("label ") == 0


def test_a_reference_beside_the_file_is_found(here, run):
    (here / "elsewhere").mkdir()
    write_ethanol(here / "elsewhere" / "start.extxyz", 45)
    (here / "elsewhere" / "own_code.py").write_text("from ase.calculators.emt import EMT as Own")
    toml = LEARN.replace("ase.calculators.emt.EMT", "own_code.Own").replace("max_labels = 47", "max_labels = 45")
    (here / "elsewhere" / "learn.toml").write_text(toml)
    assert run("learn", "elsewhere/learn.toml", "--workers", "1")[0] == 0


def test_learn_into_a_file(here, mistake):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN)
    assert "start.extxyz cannot be created as a folder" in mistake("learn", "learn.toml", "--output", "start.extxyz")


def test_learn_without_its_reference(here, mistake):
    write_ethanol(here / "start.extxyz", 45)
    (here / "learn.toml").write_text(LEARN.replace("ase.calculators.emt.EMT", "no_such_code.DFT"))
    assert "reference.calculator is 'no_such_code.DFT', which cannot be imported" in mistake("learn", "learn.toml")


def test_data(run, mistake, tmp_path):
    status, out, _ = run("data")
    assert status == 0
    assert "iso17" in out
    assert "md18 is not a data set" in mistake("data", "get", "md18", "--folder", tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["models"]])
def test_help_and_lists_do_not_wait_for_torch(arguments):
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch', 'torch' in sys.modules)); "
        f"sys.argv[1:] = {arguments}; from schnet_ase.cli import main; main()"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.endswith("torch False\n")


def test_names_of_the_package():
    assert schnet_ase.__version__ == metadata.version("schnet_ase")
    assert all(getattr(schnet_ase, name).__name__ == name for name in schnet_ase.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SchNett'"):
        schnet_ase.SchNett  # noqa: B018
