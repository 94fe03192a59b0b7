"""Every example runs, and writes its picture; the README's Python runs as printed."""

import re
import subprocess
import sys

import pytest

from schnet_ase.training import load_config
from tests.support.frames import write_ethanol
from tests.support.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = {
    "01-molecular-dynamics": ["--steps", "40"],
    "02-optimization": [],
    "03-flag-during-md": ["--steps", "200"],
    "04-train-your-own": ["--steps", "20"],
    "05-learn-on-the-fly": ["--labels", "52", "--steps", "20", "--test", "5"],
    "06-vibrations": [],
    "07-reaction-path": ["--images", "5"],
    "08-lammps": ["--copies", "1", "--steps", "200", "--training", "20"],
    "09-pimd-in-ipi": ["--steps", "40"],
    "10-ml-mm-in-openmm": ["--steps", "10"],
    "11-fine-tuning": ["--steps", "10", "--training", "30"],
    "12-any-organic-molecule": ["--steps", "20"],
}
NEEDS = {"09-pimd-in-ipi": "ipi", "10-ml-mm-in-openmm": "openmmml", "12-any-organic-molecule": "rdkit"}
"""Packages that not every installation has."""
MOLECULES = ("caffeine", "ibuprofen", "alanine-dipeptide", "benzenesulfonamide", "chlorobenzene")
PICTURES = {"12-any-organic-molecule": [f"12-{molecule}" for molecule in MOLECULES]}
"""Pictures of examples that write others than one with their own name."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_example(example, tmp_path):
    if example.stem in NEEDS:
        pytest.importorskip(NEEDS[example.stem])
    command = [sys.executable, example, *SHORT[example.stem]]
    out = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
    pictures = PICTURES.get(example.stem, [example.stem])
    assert all((tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG") for picture in pictures)
    if example.stem == "02-optimization":
        check_vibrations(out)
    if example.stem == "07-reaction-path":
        assert abs(float(re.search(r"barrier: (\S+)", out).group(1)) - 12.0) < 2.0  # meV


def check_vibrations(out):
    """21 wavenumbers, the stretching of O-H the highest: at another minimum than ethanol's they are none of those."""
    wavenumbers = [float(value) for value in out.split("(1/cm):")[1].split()]
    assert len(wavenumbers) == 21
    assert wavenumbers[0] > 100.0
    assert 3500.0 < wavenumbers[-1] < 4000.0


def test_configurations(tmp_path):
    for file in (ROOT / "examples").glob("*.toml"):
        for name in re.findall(r'^(?:file|test|extra) = "(.*)"', file.read_text(), re.M):
            name = name.replace("{fold}", "1")
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write_ethanol(tmp_path / name, 2)
        assert load_config(file, tmp_path).folds == 5


def test_python_of_the_readme(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300
    )
    assert "BFGS" in result.stdout
