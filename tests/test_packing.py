"""What goes into the wheel: small enough, whole entries only, and none that is named to stay out."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from schnet_ase.registry.card import read_card
from schnet_ase.registry.index import read_index
from tests.support.entries import make_entry
from tests.support.paths import ROOT

LIMIT = 60e6
PACKED = "schnet_ase/models/"


def build(project: Path, into: Path) -> Path:
    (wheel,) = WheelBuilder(str(project)).build(directory=str(into), versions=["standard"])
    return Path(wheel)


def packed_entries(wheel: Path) -> dict[str, set[str]]:
    """File names by entry; those beside the entries under ``""``."""
    entries: dict[str, set[str]] = {}
    for file in zipfile.ZipFile(wheel).namelist():
        if file.startswith(PACKED):
            entry, _, name = file.removeprefix(PACKED).rpartition("/")
            entries.setdefault(entry, set()).add(name)
    return entries


def test_wheel(tmp_path: Path) -> None:
    wheel = build(ROOT, tmp_path)
    size = wheel.stat().st_size
    assert size < LIMIT, (
        f"{wheel.name} has {size / 1e6:.1f} MB, {LIMIT / 1e6:.0f} are allowed: name an entry of models/ under exclude "
        "in [tool.hatch.build.targets.wheel] of pyproject.toml"
    )
    entries = packed_entries(wheel)
    assert entries.pop("") == {"index.json"}
    assert "rmd17-ethanol" in entries
    for name, files in entries.items():
        assert files == set(read_card(ROOT / "models" / name).files)
    assert entries.keys() <= {listing.name for listing in read_index(ROOT / "models")}
    names = zipfile.ZipFile(wheel).namelist()
    assert "schnet_ase/calculators/single.py" in names
    assert all(name.startswith(("schnet_ase/", "schnet_ase-")) for name in names)


def test_entry_named_to_stay_out(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "schnet_ase").mkdir(parents=True)
    (project / "schnet_ase" / "__init__.py").write_text("")
    for file in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / file, project)
    for name in ("water", "water-2", "ethanol"):
        make_entry(project / "models", name)
    assert packed_entries(build(project, tmp_path / "before")).keys() == {"water", "water-2", "ethanol"}
    settings = (project / "pyproject.toml").read_text()
    assert settings.count("exclude = [\n") == 1
    (project / "pyproject.toml").write_text(settings.replace("exclude = [\n", 'exclude = [\n    "/models/water",\n'))
    assert packed_entries(build(project, tmp_path / "after")).keys() == {"water-2", "ethanol"}
