"""The documentation site: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

# Sums in another order are other numbers, and the build shares the machine with whatever else runs there.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "schnet_ase"
author = "The schnet_ase developers"
copyright = "The schnet_ase developers"
release = metadata.version("schnet_ase")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "mathml",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "py:obj"
html_theme = "furo"
html_title = f"schnet_ase {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say the types in words, with shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# Links into other projects are made where the network allows it; without it they stay plain text.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
if os.environ.get("SCHNET_ASE_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

html_math_renderer = "mathml"
sys.path.insert(0, str(Path(__file__).parent))  # for gallery.py and mathml.py

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\d\d-.*\.py",
    "within_subsection_order": "FileNameSortKey",
    "reset_argv": "gallery.example_arguments",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,
}
