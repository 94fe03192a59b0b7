"""The members of an ensemble, from whatever a user names them by."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from schnet_ase.errors import RegistryError, StructureError
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.networks import SchNet
from schnet_ase.registry.card import NOT_STATED
from schnet_ase.registry.checkpoint import load_checkpoint
from schnet_ase.registry.loading import Found, find_members
from schnet_ase.registry.lookup import find_card, lasting_name, owning_card
from schnet_ase.uncertainty.calibration import Calibration

ModelLike = str | os.PathLike[str] | SchNet
IN_MEMORY = "in memory"


_IN_USE: WeakValueDictionary[tuple[str, ...], FixedNetworks] = WeakValueDictionary()
"""Networks that calculators of this process hold, by the SHA-256 of their files. It must be global, because calculators
do not know one another; it keeps nothing alive, and what a key stands for never changes."""


class Members(NamedTuple):
    """The models of a calculator."""

    networks: FixedNetworks
    name: str
    """What was given: a name or a path, valid in any working directory, or a JSON list of several."""
    hashes: tuple[str, ...]
    """SHA-256 of each model's file; empty if a model was given as a `SchNet`."""
    calibration: Calibration | None
    """Calibration of the entry that was given; None for any other set of models."""


def gather(models: str | os.PathLike[str] | SchNet | Sequence[ModelLike], at_least: int = 1) -> Members:
    """Load all members that `models` stands for; see `SchNetEnsembleCalculator`.

    Raises
    ------
    RegistryError, CheckpointError
        A model cannot be found or read, or there are fewer than `at_least`.
    StructureError
        The members have different configs, or come from entries with different levels of theory.
    ValueError
        Something is neither a name, a path nor a `SchNet`.
    """
    given = _given(models)
    if len(given) > 1:
        _check_levels(given)
    members = [member for model in given for member in ([model] if isinstance(model, SchNet) else find_members(model))]
    name = name_of(given[0]) if len(given) == 1 else json.dumps([name_of(model) for model in given])
    files = [member for member in members if isinstance(member, Found)]
    if len(members) < at_least and all(found.sha256 for found in files):  # loading says which file is missing
        raise RegistryError(
            f"{name} gives {len(members)} model(s); an ensemble needs at least two, for one take SchNetCalculator"
        )
    if len(files) == len(members):
        networks = shared(files)
    else:
        files = []
        networks = FixedNetworks(
            [copy.deepcopy(m) if isinstance(m, SchNet) else load_checkpoint(m.path) for m in members]
        )
    return Members(networks, name, tuple(found.sha256 for found in files), _calibration(given))


def shared(files: Sequence[Found]) -> FixedNetworks:
    """Return the networks of these files, those of an earlier calculator if one still has them.

    Raises
    ------
    CheckpointError
        A file cannot be read.
    """
    key = tuple(found.sha256 for found in files)
    networks = _IN_USE.get(key)
    if networks is None:
        networks = _IN_USE[key] = FixedNetworks([load_checkpoint(found.path) for found in files])
    return networks


def name_of(model: ModelLike) -> str:
    """Return the name under which a calculator keeps a model."""
    return IN_MEMORY if isinstance(model, SchNet) else lasting_name(model)


def _given(models: str | os.PathLike[str] | SchNet | Sequence[ModelLike]) -> list[ModelLike]:
    """Return the models as a list; `models` may be one model, a sequence, or the JSON list that `todict` gives."""
    if isinstance(models, str) and models.startswith("["):
        with contextlib.suppress(json.JSONDecodeError):  # not JSON, hence the name of a folder
            models = json.loads(models)
    given: list[ModelLike] = [models] if isinstance(models, str) or not isinstance(models, Iterable) else list(models)
    for model in given:
        if not isinstance(model, (str, os.PathLike, SchNet)):
            raise ValueError(
                f"model is {model!r}; expected the name or folder of an entry, a folder of checkpoints, or a sequence "
                "of names, .safetensors files or SchNets"
            )
    return given


def _check_levels(given: Sequence[ModelLike]) -> None:
    """Refuse members of different levels of theory, whose mean has no meaning; accept cards that state none."""
    levels: dict[str, str] = {}
    for model in given:
        card = None if isinstance(model, SchNet) else owning_card(model)
        if card is not None and card.data.level_of_theory != NOT_STATED:
            levels.setdefault(card.data.level_of_theory, card.name)
    if len(levels) > 1:
        each = ", ".join(f"{name} {level}" for level, name in levels.items())
        raise StructureError(
            f"members of different levels of theory ({each}); give those of one, or mend level_of_theory on the cards"
        )


def _calibration(given: Sequence[ModelLike]) -> Calibration | None:
    if len(given) != 1 or isinstance(given[0], SchNet):
        return None
    card = find_card(given[0])
    return None if card is None else card.calibration
