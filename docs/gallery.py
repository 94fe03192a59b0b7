"""How the site's build runs the tutorials, which are the scripts in `examples/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHORT = {
    "05-learn-on-the-fly": ["--labels", "55", "--steps", "100", "--test", "20"],
    "08-lammps": ["--steps", "200", "--training", "100"],
    "09-pimd-in-ipi": ["--steps", "400"],
    "10-ml-mm-in-openmm": ["--steps", "400"],
    "11-fine-tuning": ["--steps", "200"],
}
"""Arguments of scripts that would take too long with their defaults."""


def example_arguments(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the command-line arguments with which the build runs a script."""
    return SHORT.get(Path(script_vars["src_file"]).stem, [])
