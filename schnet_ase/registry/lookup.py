"""Named models: where entries are looked for, and how a name, a file or a folder becomes a network."""

from __future__ import annotations

import difflib
import math
import os
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_data_path

from schnet_ase.errors import RegistryError
from schnet_ase.networks import SchNet
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, Card, read_card
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance
from schnet_ase.registry.index import Listing, entries_in, read_index

BEST, STATE = "best.safetensors", "state.safetensors"
"""In the folder of a training: its best model, and what it goes on from."""
SEARCH_VARIABLE = "SCHNET_ASE_MODELS"
PACKAGE = Path(__file__).parent.parent
# In a wheel the entries lie inside the package, in a source tree beside it.
SHIPPED = PACKAGE / "models" if (PACKAGE / "models").is_dir() else PACKAGE.parent / "models"


class Loaded(NamedTuple):
    """A model and where it came from."""

    model: SchNet
    path: Path


def user_models() -> Path:
    """The folder for a user's own entries."""
    return Path(user_data_path("schnet_ase")) / "models"


def search_path() -> list[Path]:
    """Folders of entries, first match wins: those of ``SCHNET_ASE_MODELS``, the user's own, the shipped ones."""
    named = [Path(p) for p in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if p]
    return [*named, user_models(), SHIPPED]


def list_models() -> list[Card]:
    """Cards of all entries that can be found, sorted by name.

    Raises
    ------
    RegistryError
        A card is not valid.
    """
    return [read_card(folder) for _, folder in sorted(entry_folders().items())]


def entry_folders() -> dict[str, Path]:
    """Every entry's folder by its name, the first of a name."""
    folders: dict[str, Path] = {}
    for place in search_path():
        for folder in entries_in(place):
            folders.setdefault(folder.name, folder)
    return folders


def listings() -> dict[str, Listing]:
    """Every entry that an index on the search path names, the first of a name; it need not be installed.

    Raises
    ------
    RegistryError
        An index is not valid.
    """
    named: dict[str, Listing] = {}
    for place in search_path():
        for listing in read_index(place):
            named.setdefault(listing.name, listing)
    return named


def get_card(name: str) -> Card:
    """The card of the entry `name`.

    Raises
    ------
    RegistryError
        There is no such entry; the message lists near names, or how to get it.
    """
    folders = entry_folders()
    if name not in folders:
        raise _unknown(name)
    return read_card(folders[name])


def find_card(name: str | os.PathLike[str]) -> Card | None:
    """The card that goes with all members of `name`: an entry's, by name or folder; None for anything else.

    Raises
    ------
    RegistryError
        The card is not valid.
    """
    folder = _folder(name)
    return read_card(folder) if folder is not None and (folder / CARD_FILE).is_file() else None


def owning_card(name: str | os.PathLike[str]) -> Card | None:
    """The card of the entry that `name` is, or is a member of, by name or by file; None where there is none.

    Raises
    ------
    RegistryError
        The card is not valid.
    """
    if named := _named_member(name):
        return named[0]
    return find_card(name) or (find_card(Path(name).parent) if _is_file(name) else None)


def load_model(name: str | os.PathLike[str]) -> SchNet:
    """One model, by registry name or file.

    Parameters
    ----------
    name
        ``"rmd17-ethanol"`` (its best member by validation error), ``"rmd17-ethanol/fold-2"``, the path of an entry's
        folder (the same), of a ``.safetensors`` file, or of the folder of a run: of ``train``, of ``crossval`` (its
        best fold) or of ``learn`` (its last ensemble's best member). A registry name comes before a folder of that
        name.

    Raises
    ------
    RegistryError
        No such entry or member, or a file that is not the one of the card.
    CheckpointError
        The file cannot be read.
    """
    return locate(name).model


def locate(name: str | os.PathLike[str]) -> Loaded:
    """`load_model`, with the file it came from."""
    if named := _named_member(name):
        return _load_member(*named)
    folder = _folder(name)
    if folder is not None and (folder / CARD_FILE).is_file():
        card = read_card(folder)
        return _load_member(card, card.best.file)
    if folder is not None:
        return min(_loaded(_trained(folder)), key=_validation_error)
    if _is_file(name):
        return Loaded(load_checkpoint(name), Path(name))
    entry, _, member = str(name).partition("/")
    if not member or "/" in member or entry not in entry_folders():
        raise _unknown(str(name))
    return _load_member(get_card(entry), f"{member}.safetensors")


def lasting_name(name: str | os.PathLike[str]) -> str:
    """A registry name as it is; a file or folder by its absolute path, so that it is found from elsewhere too."""
    if isinstance(name, str) and (name in entry_folders() or _named_member(name)):
        return name
    return str(Path(name).resolve())


def locate_members(name: str | os.PathLike[str]) -> list[Loaded]:
    """All members of an entry or of a folder of checkpoints; a file or ``"entry/fold-k"`` gives one.

    Raises
    ------
    RegistryError
        No such entry, or a folder without members.
    CheckpointError
        A file cannot be read.
    """
    folder = _folder(name)
    if folder is None or _named_member(name):
        return [locate(name)]
    if (folder / CARD_FILE).is_file():
        card = read_card(folder)
        return [_load_member(card, m.file) for m in card.members]
    # A run's own folder has, beside its model, the state that its training goes on from.
    models = sorted(file for file in folder.glob("*.safetensors") if file.name != STATE)
    return _loaded(models or _trained(folder))


def _trained(folder: Path) -> list[Path]:
    """The model that a training has in its folder, or those of the folds of a cross-validation."""
    files = [folder / BEST] if (folder / BEST).is_file() else sorted(folder.glob(f"*/{BEST}"))
    if files:
        return files
    if any(folder.glob(f"**/{STATE}")):
        raise RegistryError(
            f"{folder}: no model yet, its training was stopped before the first validation; the same command resumes it"
        )
    if any(folder.glob("*.safetensors")):
        raise RegistryError(f"{folder}: a folder, but no registry entry (no {CARD_FILE}); name a file in it")
    raise RegistryError(f"{folder}: no .safetensors files; expected a folder of checkpoints")


def _loaded(files: list[Path]) -> list[Loaded]:
    return [Loaded(load_checkpoint(file), file) for file in files]


def _validation_error(loaded: Loaded) -> tuple[float, float]:
    """Of forces, then of energies, by which the best member is chosen, as `Card.best` is."""
    errors = read_provenance(loaded.path).get("validation", {}).get("errors", {})
    force, energy = (errors.get(name) for name in ("force_mae", "energy_mae"))
    return math.inf if force is None else force, math.inf if energy is None else energy


def _named_member(name: str | os.PathLike[str]) -> tuple[Card, str] | None:
    """The card and the file that ``"entry/member"`` stands for; None for anything else."""
    entry, _, member = name.partition("/") if isinstance(name, str) else ("", "", "")
    if not member or entry not in entry_folders():
        return None
    card, file = get_card(entry), f"{member}.safetensors"
    return (card, file) if any(m.file == file for m in card.members) else None


def _folder(name: str | os.PathLike[str]) -> Path | None:
    """The folder that `name` stands for: an entry's by its registry name, else one that is there.

    That of on-the-fly learning stands for the ensemble of its last generation.
    """
    folders = entry_folders() if isinstance(name, str) else {}
    if name in folders:
        return folders[str(name)]
    if not name or not Path(name).is_dir():
        return None
    generations = sorted(Path(name).glob(f"generation-*/[!.]*/{CARD_FILE}"))
    return generations[-1].parent if generations else Path(name)


def _unknown(name: str) -> RegistryError:
    entry, installed, named = name.partition("/")[0], entry_folders(), listings()
    if entry in named and entry not in installed:
        return RegistryError(f"{entry} is not installed; get it with: schnet-ase models get {entry}")
    runs = {folder.name: str(folder) for folder in Path("runs").glob("*") if folder.is_dir()}
    known = {**runs, **{other: other for other in (*installed, *named)}}
    wanted = name.removeprefix("runs/").partition("/")[0]
    near = [wanted] if wanted in runs else difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.4)
    near = [known[other] for other in near or sorted(known)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"no entries were found; set {SEARCH_VARIABLE}"
    return RegistryError(f"no model {name!r}: neither a registry entry nor a file; {hint}")


def _is_file(name: str | os.PathLike[str]) -> bool:
    return not isinstance(name, str) or name.endswith(".safetensors") or Path(name).is_file()


def _load_member(card: Card, file: str) -> Loaded:
    member = next((m for m in card.members if m.file == file), None)
    if member is None:
        names = ", ".join(f"{card.name}/{Path(m.file).stem}" for m in card.members)
        raise RegistryError(f"no model {card.name}/{Path(file).stem}; expected one of {names}")
    path = card.path / file
    if path.is_file() and sha256(path) != member.sha256:
        raise RegistryError(f"{path}: SHA-256 is not the one in {card.path / CARD_FILE}; get the entry again")
    return Loaded(load_checkpoint(path), path)
