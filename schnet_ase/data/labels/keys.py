"""The meaning of names in a file: ``REF_energy`` is an energy, ``kinetic_energy`` is no label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from schnet_ase.geometry.system import Geometry

Quantity = Literal["energy", "forces", "stress"]
Form = Literal["energy", "free energy", "forces", "gradient", "stress", "virial"]
QUANTITY_OF: Mapping[Form, Quantity] = {
    "energy": "energy",
    "forces": "forces",
    "gradient": "forces",
    "stress": "stress",
    "virial": "stress",
}
"""A gradient is minus the forces, a virial minus the stress times the volume. A free energy is no label by itself."""


class Held(NamedTuple):
    """An item that a file holds for a frame besides its atoms."""

    name: str
    value: Any
    place: str = ""
    """Place of the item, such as ``"info"``; empty if the format has only one place."""
    own: Form | None = None
    """Its meaning by the rules of its format, or of ASE's calculators; None: these do not know its name."""
    per_atom: bool | None = None
    """Whether there is one item per atom instead of per frame; None: the place holds both kinds."""

    @property
    def words(self) -> str:
        """Return the name as a user of the file would write it."""
        return f"{self.place}[{self.name!r}]" if self.place else self.name


class Found(NamedTuple):
    """A frame as its file holds it, in the file's units."""

    geometry: Geometry
    held: tuple[Held, ...]


OF_CALCULATORS: Mapping[str, Form] = {
    "energy": "energy",
    "free_energy": "free energy",
    "forces": "forces",
    "stress": "stress",
}


def held_in(
    place: str, mapping: Mapping[str, Any], *, per_atom: bool | None, own: Mapping[str, Form] = MappingProxyType({})
) -> list[Held]:
    """List what a mapping holds; `own` gives the meanings of names by the rules of the format."""
    return [Held(name, value, place, own.get(name), per_atom) for name, value in mapping.items()]


class Meaning(NamedTuple):
    """The meaning of a name."""

    form: Form
    known: bool
    """Whether every other word of the name confirms that this is the label, as in ``dft_total_energy``."""


_FORMS: Mapping[str, Form] = {
    "energy": "energy",
    "energies": "energy",
    "toten": "energy",
    "force": "forces",
    "forces": "forces",
    "gradient": "gradient",
    "gradients": "gradient",
    "grad": "gradient",
    "stress": "stress",
    "virial": "virial",
    "virials": "virial",
}
_OF_LABELS = frozenset(
    re.findall(r"\w+", "ref reference dft qm target true label labels total tot potential pot scf atomic")
)
_OF_OTHERS = frozenset(
    re.findall(
        r"\w+",
        """std stdev deviation uncertainty uncertainties error err errors var variance rmse mae weight weights unit
        units key keys atom ion kinetic ke free formation atomization atomisation cohesive binding interaction zero zpe
        zpve correlation corr correction dispersion disp d3 d4 vdw solvation gap homo lumo fermi nuclear repulsion
        orbital exchange xc coulomb electrostatic old delta diff difference baseline isolated e0 bond external entropy
        enthalpy max min mean norm rms ensemble schnet pred predicted prediction mace nequip allegro ml nn model surface
        strain relative shifted scaled initial final constraint constrained fixed above hull""",
    )
)


@lru_cache(maxsize=10_000)
def meaning(name: str) -> Meaning | None:
    """Return the meaning of a name; None: it is no label, or none that its name reveals."""
    words = [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    forms = {_FORMS[w] for w in words if w in _FORMS}
    if len(forms) != 1:
        return None
    (form,) = forms
    others = {w for w in words if w not in _FORMS}
    if others & _OF_OTHERS or (form == "energy" and "atomic" in others):
        return None
    return Meaning(form, others <= _OF_LABELS)


def meaning_of_key(key: str, quantity: Quantity) -> Form:
    """Return the form of a label that a user has named: a gradient or a virial if its name says so."""
    forms = {form for word, form in _FORMS.items() if word in key.lower() and QUANTITY_OF[form] == quantity}
    if "gradient" in forms:
        return "gradient"
    return "virial" if "virial" in forms else quantity
