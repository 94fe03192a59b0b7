"""The unit in the name of a label: ``energy_hartree``, ``forces_kcal_mol_A``, ``Energy (eV)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from schnet_ase.data.labels.keys import Form
from schnet_ase.data.labels.units import ENERGY, FORCE, STRESS, Kind, is_unit

KIND_OF: Mapping[Form, Kind] = {
    "energy": ENERGY,
    "free energy": ENERGY,
    "forces": FORCE,
    "gradient": FORCE,
    "stress": STRESS,
    "virial": ENERGY,
}
_SUBJECT = re.compile(r"energ(?:y|ies)|toten|forces?|grad(?:ients?)?|stress|virials?", re.IGNORECASE)
_MOLAR = ("kcal", "kj", "cal", "j")


@lru_cache(maxsize=10_000)
def unit_in_name(name: str, form: Form) -> str:
    """Return the unit in a label's name, or an empty text; for forces it may be a unit of energy, which does not
    count."""
    tail = _SUBJECT.split(name)[-1]
    words = [
        word for word in re.findall(r"[A-Za-zÅå]+(?:\^?[023])?", tail.replace("a.u.", "au")) if word.lower() != "per"
    ]
    if words and words[0].lower() in _MOLAR and "mol" not in (word.lower() for word in words):
        words.insert(1, "mol")
    text = "/".join(words)
    kind = KIND_OF[form]
    return text if is_unit(text, kind) or (kind is FORCE and is_unit(text, ENERGY)) else ""
