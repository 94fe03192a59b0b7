"""What a checkpoint's header says of where its model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def extra_hashes(provenance: Mapping[str, Any]) -> set[str]:
    """SHA-256 of the files that a model was trained on besides its data."""
    one, parts = provenance.get("extra_sha256"), provenance.get("extra_parts")
    return {*(() if one is None else (one,)), *(parts or ())}


def all_hashes(provenance: Mapping[str, Any]) -> set[str]:
    """SHA-256 of every file of frames behind a model, those behind the weights that it started from too."""
    one = provenance.get("data_sha256")
    own = {*(() if one is None else (one,)), *(provenance.get("data_parts") or ())}
    return own | extra_hashes(provenance) | {*(provenance.get("initial_data") or ())}


def library_versions() -> dict[str, str]:
    """Versions of what made a model, for its provenance."""
    return {name: version(name) for name in ("schnet_ase", "torch", "ase", "numpy")}
