"""The units of a file's labels: given by the user, stated in the file, or assumed from its format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schnet_ase.data.labels.keys import QUANTITY_OF, Held, meaning
from schnet_ase.data.labels.options import LabelOptions
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, STRESS, Kind, Unit, is_atomic, is_unit, parse_unit
from schnet_ase.errors import DataError

GIVEN, STATED = "as given", "as the file says"


class Statement(NamedTuple):
    """A unit that a file states."""

    key: str
    """The key of the statement."""
    text: str


class Stated(NamedTuple):
    """The units that a file states."""

    energy: Statement | None = None
    force: Statement | None = None
    length: Statement | None = None
    stress: Statement | None = None


class FileUnits(NamedTuple):
    """Units of one file, and how each is known."""

    energy: Unit
    length: Unit
    force: Unit
    stress: Unit
    """Unit of a stress."""
    virial: Unit
    energy_how: str
    length_how: str
    force_how: str
    stress_how: str
    stress_is_virial: bool | None = None
    """Whether the given or stated unit of stress is that of a virial; None: no unit was given or stated."""

    def in_words(self, assumed: str) -> str:
        """Return all units in words; `assumed` is the reason for units that nobody has given or stated."""
        units = f"{self.length.word}, {self.energy.word}, {self.force.word}"
        how = self.energy_how or assumed
        others = [
            f"{name} {said}"
            for name, said in (("length", self.length_how), ("forces", self.force_how), ("stress", self.stress_how))
            if said and said != how
        ]
        if self.stress_how:
            units += f", {self.stress.word}"
        return f"{units} ({'; '.join([how, *others])})"


def resolve_units(
    options: LabelOptions, stated: Stated, where: str, *, assumed_energy: str, assumed_length: str
) -> FileUnits:
    """Determine the units of a file.

    Parameters
    ----------
    options
        Units given by the user.
    stated
        Units stated in the file.
    where
        The file's name, for messages.
    assumed_energy, assumed_length
        The units of the file's format.

    Raises
    ------
    DataError
        A unit is unknown, or a given unit contradicts the file.
    """
    energy, energy_how = _resolved(options.energy_unit, "energy_unit", stated.energy, ENERGY, where)
    length, length_how = _resolved(options.length_unit, "length_unit", stated.length, LENGTH, where)
    force, force_how = _resolved(options.force_unit, "force_unit", stated.force, FORCE, where)
    energy = energy or parse_unit(assumed_energy, ENERGY, where)
    length = length or parse_unit(assumed_length, LENGTH, where)
    named = [text for text in (options.stress_unit, stated.stress and stated.stress.text) if text is not None]
    atomic, is_virial = any(map(is_atomic, named)), any(is_unit(text, ENERGY) for text in named)
    stress, of_virial, stress_how = None, None, ""
    if is_virial or atomic:
        of_virial, stress_how = _resolved(options.stress_unit, "stress_unit", stated.stress, ENERGY, where)
    if atomic or not is_virial:
        stress, stress_how = _resolved(options.stress_unit, "stress_unit", stated.stress, STRESS, where)
    return FileUnits(
        energy,
        length,
        force or energy.per(length),
        stress or energy.per(length, 3),
        of_virial or energy,
        energy_how,
        length_how,
        force_how,
        stress_how,
        None if atomic or not stress_how else is_virial,
    )


def _resolved(
    given: str | None, option: str, stated: Statement | None, kind: Kind, where: str
) -> tuple[Unit | None, str]:
    if given is None:
        if stated is None:
            return None, ""
        if not is_unit(stated.text, kind):
            raise DataError(
                f"{where}: {stated.key} is {stated.text!r}; expected a unit of {kind.name}, such as {kind.known}; "
                f"correct it, or give {option}"
            )
        return parse_unit(stated.text, kind, where), STATED
    unit = parse_unit(given, kind, f"{where}: {option}")
    if stated is not None and is_unit(stated.text, kind):
        other = parse_unit(stated.text, kind, where)
        if abs(other.factor / unit.factor - 1.0) > 1e-6:
            raise DataError(
                f"{where}: {option} is {given!r}, but the file says {stated.key} = {stated.text!r}; "
                f"leave {option} out, or correct the file"
            )
    return unit, GIVEN


_QUANTITIES: Mapping[str, str] = {
    **dict.fromkeys(("energy", "energies", "e", "potential_energy", "total_energy"), "energy"),
    **dict.fromkeys(("force", "forces", "f", "gradient", "gradients", "atomic_forces"), "force"),
    **dict.fromkeys(("length", "distance", "position", "positions", "coord", "coords", "r", "pos", "cell"), "length"),
    **dict.fromkeys(("coordinate", "coordinates", "distances", "lengths"), "length"),
    **dict.fromkeys(("stress", "virial", "virials", "pressure"), "stress"),
}
_KINDS: Mapping[str, Kind] = {"energy": ENERGY, "force": FORCE, "length": LENGTH, "stress": STRESS}


def stated_units(held: Iterable[Held], options: LabelOptions, where: str, *, free_text: bool = False) -> Stated:
    """Find the units that a frame's header or an archive states: ``energy-unit``, ``e_unit``, ``units = "eV, Å"``.

    A text that is no unit is ignored if the user has given a unit of energy, or if the text may be anything.

    Raises
    ------
    DataError
        Two statements about one unit differ, or `units` cannot be understood.
    """
    found: dict[str, Statement] = {}
    for one in held:
        match = re.fullmatch(r"(?:(.+?)[_ -]?)?units?(?:[_ -]?(.+))?", one.name.strip().lower())
        if match is None or not isinstance(text := _text(one.value), str):
            continue
        subject = (match[1] or match[2] or "").replace("-", "_").replace(" ", "_")
        if not subject:
            statements = _each(one, text)
            if not statements and options.energy_unit is None and not free_text:
                raise DataError(
                    f"{where}: {one.words} = {text!r}; expected units such as 'eV, Å', give energy_unit and length_unit"
                )
        elif quantity := _quantity(subject):
            statements = {quantity: Statement(one.words, text)}
        else:
            continue
        for quantity, statement in statements.items():
            other = found.setdefault(quantity, statement)
            if other.text.lower() != statement.text.lower():
                raise DataError(
                    f"{where}: {other.key} = {other.text!r} and {statement.key} = {statement.text!r}; "
                    "expected one unit, correct the file"
                )
    return Stated(**found)


def _quantity(subject: str) -> str | None:
    """Return the quantity of a unit by its key, such as ``energy``, or the name of a label, ``dft_energy``."""
    means = meaning(subject)
    label = None if means is None else QUANTITY_OF.get(means.form)
    return _QUANTITIES.get(subject, "force" if label == "forces" else label)


def _text(value: object) -> object:
    """Return text as a str, also from an array without dimensions."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    item = getattr(value, "item", None)
    if isinstance(value, str) or item is None or getattr(value, "shape", None) != ():
        return value
    return _text(item())


def _each(one: Held, text: str) -> dict[str, Statement]:
    """Assign each word of ``units`` to the quantity that it is a unit of; nothing if one word is unknown."""
    sets = {"metal": ("eV", "Å"), "real": ("kcal/mol", "Å")}
    words = sets.get(text.strip().lower(), tuple(w for w in re.split(r"[,;]\s*", text) if w.strip()))
    if is_atomic(text):
        return {quantity: Statement(one.words, text) for quantity in _KINDS}
    statements: dict[str, Statement] = {}
    for word in words:
        subject, _, rest = word.strip().replace("=", " ").replace(":", " ").partition(" ")
        named = _QUANTITIES.get(subject.lower())
        unit = word.strip() if named is None else rest.strip()
        kinds = [quantity for quantity, kind in _KINDS.items() if is_unit(unit, kind) and named in (None, quantity)]
        if len(kinds) != 1:
            return {}
        statements[kinds[0]] = Statement(one.words, unit)
    return statements
