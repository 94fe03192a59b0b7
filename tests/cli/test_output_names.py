"""Where commands write, and that they replace nothing unasked."""

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from schnet_ase import save_model


@pytest.fixture
def here(tmp_path, monkeypatch, make_model):
    monkeypatch.chdir(tmp_path)
    model = make_model(0)
    model.elements = (1, 6, 8)
    save_model(model, "small.safetensors")
    write("start.xyz", molecule("CH3OH"))
    return tmp_path


MD = ("md", "small.safetensors", "start.xyz", "--steps", 1, "--thermostat", "--temperature", 0)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_gets_the_files(here, run, exists):
    if exists:
        (here / "my runs").mkdir()
    status, out, _ = run(*MD, "--output", "my runs" if exists else "my runs/")
    assert status == 0
    assert {f.name for f in (here / "my runs").iterdir()} == {"small-md.traj", "small-md.csv", "small-md.png"}


def test_a_prefix_is_one(here, run, mistake):
    assert run(*MD, "--output", "a/b.c")[0] == 0
    assert {f.name for f in (here / "a").iterdir()} == {"b.c.traj", "b.c.csv", "b.c.png"}
    assert "a/b.c.traj exists" in mistake(*MD, "--output", "a/b.c")
    assert "--output is empty" in mistake(*MD, "--output", "")


def test_the_suffix_of_one_of_the_files_is_no_part_of_their_prefix(here, run, mistake):
    assert run(*MD, "--output", "run.traj")[0] == 0
    assert {f.name for f in here.glob("run*")} == {"run.traj", "run.csv", "run.png"}
    assert "run.traj exists" in mistake(*MD, "--output", "run.csv")


def test_a_forgotten_model(here, run, mistake):
    run(*MD, "--output", "run")
    assert "run.traj is no model; give MODEL" in mistake("md", "run.traj")
    assert "run.traj is no model; give MODEL" in mistake("relax", "run.traj", "--output", "new")
    (here / "broken.safetensors").write_bytes(b"no model")
    assert "broken.safetensors" in mistake("md", "broken.safetensors", "start.xyz")


def test_a_thermostat_has_no_drift(here, run):
    out = run(*MD, "--output", "one")[1]
    assert "drift" not in out
    assert "mean T (K)" in out
    nve = [word for word in MD if word != "--thermostat"]
    assert "drift (meV/atom)" in run(*nve, "--output", "two")[1]


@pytest.fixture
def frames(here):
    atoms = molecule("CH3OH")
    atoms.info["energy"] = -1.0
    atoms.set_array("forces", np.full((6, 3), 0.1))
    write("data.extxyz", [atoms, atoms], format="extxyz")
    return "data.extxyz"


EVALUATE = ("evaluate", "small.safetensors")


@pytest.mark.parametrize(
    ("name", "begins"), [("x.pdf", b"%PDF"), ("x.PDF", b"%PDF"), ("x.svg", b"<?xml"), ("x.png", b"\x89PNG")]
)
def test_a_picture_is_what_its_suffix_says(here, run, frames, name, begins):
    status, out, _ = run(*EVALUATE, frames, "--output", name)
    assert status == 0
    assert f"wrote {name}" in out
    assert (here / name).read_bytes().startswith(begins)


def test_a_picture_is_replaced_when_asked(here, run, mistake, frames):
    assert run(*EVALUATE, frames)[0] == 0
    (here / "small-data.png").write_text("mine")
    assert "small-data.png exists; give another --output, or --overwrite" in mistake(*EVALUATE, frames)
    assert (here / "small-data.png").read_text() == "mine"
    assert run(*EVALUATE, frames, "--overwrite")[0] == 0
    assert (here / "small-data.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_in_a_folder_and_one_without_suffix(here, run, mistake, frames):
    assert run(*EVALUATE, frames, "--output", "pictures/")[0] == 0
    assert (here / "pictures" / "small-data.png").exists()
    assert run(*EVALUATE, frames, "--output", "plain")[0] == 0
    assert (here / "plain.png").exists()
    assert "no picture is written as .tif; give .png, .pdf, .svg" in mistake(*EVALUATE, frames, "--output", "x.tif")


@pytest.mark.parametrize("command", [("relax",), ("md",), ("md", "--each"), ("vibrations",)])
def test_a_structure_that_cannot_be_read_is_refused_before_the_model_is_made_ready(here, mistake, monkeypatch, command):
    monkeypatch.setattr("schnet_ase.calculators.single.SchNetCalculator", None)
    (here / "wrong.mol").write_text("\n\n\n  0  0  0  0  0  0  0  0  0  0999 V3000\n")
    assert "a molfile V3000; expected V2000" in mistake(command[0], "small.safetensors", "wrong.mol", *command[1:])
