"""Search path of registry entries, and the folder or file that a name stands for. This module does not load torch."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from platformdirs import user_data_path

from schnet_ase.errors import RegistryError
from schnet_ase.registry.card import CARD_FILE, Card, read_card
from schnet_ase.registry.index import Listing, entries_in, read_index

BEST, STATE = "best.safetensors", "state.safetensors"
"""Files in the folder of a training: its best model, and the state that it resumes from."""
SEARCH_VARIABLE = "SCHNET_ASE_MODELS"
PACKAGE = Path(__file__).parent.parent
# A wheel has the entries inside the package, a source tree beside it.
SHIPPED = PACKAGE / "models" if (PACKAGE / "models").is_dir() else PACKAGE.parent / "models"


def user_models() -> Path:
    """Return the folder for the user's own entries."""
    return Path(user_data_path("schnet_ase")) / "models"


def search_path() -> list[Path]:
    """Return the folders that are searched for entries, in this order.

    First those named in ``SCHNET_ASE_MODELS``, then the user's own folder, then that of the shipped entries. The first
    folder that has an entry of the requested name is used.
    """
    named = [Path(p) for p in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if p]
    return [*named, user_models(), SHIPPED]


def list_models() -> list[Card]:
    """Return the cards of all entries on the search path, sorted by name.

    Returns
    -------
    list of Card
        One card per name; an entry hides those of the same name later on the search path.

    Raises
    ------
    RegistryError
        A card is not valid.
    """
    return [read_card(folder) for _, folder in sorted(entry_folders().items())]


def entry_folders() -> dict[str, Path]:
    """Return the folder of each entry by its name; the first on the search path counts."""
    folders: dict[str, Path] = {}
    for place in search_path():
        for folder in entries_in(place):
            folders.setdefault(folder.name, folder)
    return folders


def listings() -> dict[str, Listing]:
    """Return the entries listed by any index on the search path, by name; they need not be installed.

    If several indices list a name, the first on the search path counts.

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
    """Return the card of the entry `name`.

    Raises
    ------
    RegistryError
        There is no such entry; the message lists similar names, or says how to install it.
    """
    folders = entry_folders()
    if name not in folders:
        raise unknown_model(name)
    return read_card(folders[name])


def find_card(name: str | os.PathLike[str]) -> Card | None:
    """Return the card of an entry given by name or folder; None if `name` is not a whole entry.

    Raises
    ------
    RegistryError
        The card is not valid.
    """
    folder = folder_of(name)
    return read_card(folder) if folder is not None and (folder / CARD_FILE).is_file() else None


def owning_card(name: str | os.PathLike[str]) -> Card | None:
    """Return the card of the entry that `name` is or belongs to, given by name or by file; None if there is none.

    Raises
    ------
    RegistryError
        The card is not valid.
    """
    if named := named_member(name):
        return named[0]
    return find_card(name) or (find_card(Path(name).parent) if is_file(name) else None)


def lasting_name(name: str | os.PathLike[str]) -> str:
    """Return a registry name unchanged, and a file or folder as an absolute path, valid in any working directory."""
    if isinstance(name, str) and (name in entry_folders() or named_member(name)):
        return name
    return str(Path(name).resolve())


def named_member(name: str | os.PathLike[str]) -> tuple[Card, str] | None:
    """Return the card and file name that ``"entry/member"`` or ``"entry/student"`` stands for; else None."""
    entry, _, member = name.partition("/") if isinstance(name, str) else ("", "", "")
    if not member or entry not in entry_folders():
        return None
    card, file = get_card(entry), f"{member}.safetensors"
    return (card, file) if file in card.networks else None


def folder_of(name: str | os.PathLike[str]) -> Path | None:
    """Return the folder that `name` stands for: the entry of this name, or an existing folder; None for anything else.

    The folder of on-the-fly learning stands for the ensemble of its last generation.
    """
    folders = entry_folders() if isinstance(name, str) else {}
    if name in folders:
        return folders[str(name)]
    if not name or not Path(name).is_dir():
        return None
    generations = sorted(Path(name).glob(f"generation-*/[!.]*/{CARD_FILE}"))
    return generations[-1].parent if generations else Path(name)


def unknown_model(name: str) -> RegistryError:
    """Return an error for a name without a model; it suggests similar names."""
    entry, installed, named = name.partition("/")[0], entry_folders(), listings()
    if entry in named and entry not in installed:
        return RegistryError(f"{entry} is not installed; get it with: schnet-ase models get {entry}")
    runs = {folder.name: str(folder) for folder in Path("runs").glob("*") if any(folder.glob(f"**/{STATE}"))}
    known = {**runs, **{other: other for other in (*installed, *named)}}
    wanted = name.removeprefix("runs/").partition("/")[0]
    near = [wanted] if wanted in runs else difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(known[other] for other in near)}?"
    else:
        hint = (
            f"there are {', '.join(known[n] for n in sorted(known))}" if known else f"none found; set {SEARCH_VARIABLE}"
        )
    return RegistryError(f"no model {name!r}: neither a registry entry nor a file; {hint}")


def is_file(name: str | os.PathLike[str]) -> bool:
    """Return whether `name` can only be the path of a checkpoint file."""
    return not isinstance(name, str) or name.endswith(".safetensors") or Path(name).is_file()
