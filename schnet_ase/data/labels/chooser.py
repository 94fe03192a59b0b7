"""Choose the labels among what a file holds, and convert them to eV and Å."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from schnet_ase.data.frames import Frame
from schnet_ase.data.labels.file_units import FileUnits
from schnet_ase.data.labels.keys import QUANTITY_OF, Form, Found, Held, Meaning, Quantity, meaning, meaning_of_key
from schnet_ase.data.labels.named_units import KIND_OF, unit_in_name
from schnet_ase.data.labels.options import LabelOptions
from schnet_ase.data.labels.units import Unit, is_unit, parse_unit
from schnet_ase.data.labels.values import numbers_of, scalar, voigt, weight_of, weights_of_labels
from schnet_ase.errors import DataError
from schnet_ase.geometry.system import Geometry

_FORM_IN_WORDS: Mapping[Form, str] = {"gradient": ", a gradient", "virial": ", a virial"}


class Label(NamedTuple):
    """One label of a frame, and its origin."""

    value: Any
    """Value in eV and Å."""
    held: Held
    form: Form


class Chooser:
    """Makes frames from what a file holds, and remembers the origin of their labels.

    Parameters
    ----------
    options
        Units and keys given by the user.
    units
        Units of the file.
    """

    def __init__(self, options: LabelOptions, units: FileUnits) -> None:
        self.options, self.units = options, units
        self.keys: dict[str, None] = {}
        """Names of what the file holds, in its order."""
        self.used: dict[Quantity, dict[str, Label]] = {"energy": {}, "forces": {}, "stress": {}}
        """First label under each key that was used, by the words of the key."""
        self.smeared, self.n_smeared = 0.0, 0
        """Largest difference between free energy and energy, in eV, and the number of frames that have one."""
        self.uneven: dict[str, None] = {}
        """Weights of single labels that are neither zero nor one."""
        self.undecided = ""
        """Reason why a stress was not read."""

    def frame(self, found: Found, where: str) -> Frame:
        """Make a frame with its labels in eV and Å; `where` names it in messages.

        Raises
        ------
        DataError
            Labels contradict each other, or are not numbers of the right kind.
        """
        self.keys.update(dict.fromkeys(one.words for one in found.held))
        geometry, length = found.geometry, self.units.length.factor
        if geometry.pbc.any() and np.linalg.matrix_rank(geometry.cell[geometry.pbc]) < geometry.pbc.sum():
            raise DataError(
                f"{where} is periodic, but its cell has no volume: {geometry.cell.tolist()}; give it one, or no pbc"
            )
        if length != 1.0:
            geometry = geometry._replace(positions=geometry.positions * length, cell=geometry.cell * length)
        left_out = self._left_out(found.held, where)
        energy = None if "energy" in left_out else self._choose("energy", found, geometry, where)
        forces = None if "forces" in left_out else self._choose("forces", found, geometry, where)
        if energy is not None and forces is not None and forces.held.own is not None:
            energy = self._of_the_forces(energy, found, geometry, where)
        stress = None if "stress" in left_out else self._choose("stress", found, geometry, where)
        return Frame(
            geometry,
            None if energy is None else energy.value,
            None if forces is None else forces.value,
            None if stress is None else stress.value,
            weight_of(found.held, where),
            _word("config_type", found),
            _word("split", found),
        )

    def _left_out(self, held: Sequence[Held], where: str) -> set[Quantity]:
        """Return the labels whose own weight is zero."""
        weights = weights_of_labels(held, where)
        self.uneven.update(dict.fromkeys(name for name, _, weight in weights if weight not in (0.0, 1.0)))
        return {quantity for _, quantity, weight in weights if weight == 0.0}

    def _choose(self, quantity: Quantity, found: Found, geometry: Geometry, where: str) -> Label | None:
        if quantity == "stress" and not (geometry.pbc.any() and abs(np.linalg.det(geometry.cell)) > 0.0):
            return None
        labels = [
            Label(value, one, form)
            for one, form in candidates(quantity, found, self.options)
            if (value := self._in_ev(one, form, geometry, where)) is not None
        ]
        if not labels:
            return None
        for other in labels[1:]:
            if not _agree(labels[0].value, other.value):
                said = (
                    f"{quantity} {labels[0].held.words} and {other.held.words} differ"
                    f"{_difference(labels[0].value, other.value)}"
                )
                if quantity == "stress":  # which few need: a file is read without it
                    self.undecided = f"{where}: {said}; no stress is read, name one by stress_key"
                    return None
                raise DataError(f"{where}: {said}; name one by {_option(quantity)}")
        self._remember(quantity, labels[0], where)
        return labels[0]

    def _in_ev(self, one: Held, form: Form, geometry: Geometry, where: str) -> Any:
        self._check_name(one, form, where)
        if form == "energy":
            energy = scalar(one.value, where)
            return None if energy is None else energy * self.units.energy.factor
        if one.value is None:
            return None
        value = numbers_of(one, where)
        if form in ("stress", "virial"):
            form = self._stress_or_virial(one, form, where)
        if form in ("forces", "gradient"):
            return value * (self.units.force.factor if form == "forces" else -self.units.force.factor)
        if form == "virial":
            volume = abs(float(np.linalg.det(geometry.cell)))
            return voigt(value, one, where) * (-self.units.virial.factor / volume)
        return voigt(value, one, where) * self.units.stress.factor

    def _check_name(self, one: Held, form: Form, where: str) -> None:
        """Refuse a label whose name states another unit than the one in which labels of its kind are read."""
        text, kind = unit_in_name(one.name, form), KIND_OF[form]
        if not is_unit(text, kind):
            return
        said, (unit, how) = parse_unit(text, kind, where), self._unit(form)
        if abs(said.factor / unit.factor - 1.0) > 1e-6:
            raise DataError(
                f"{where}: {one.words} is in {said.word} by its name, but read in {unit.word} ({how}); "
                f"correct {kind.name}_unit, or the name"
            )

    def _stress_or_virial(self, one: Held, form: Form, where: str) -> Form:
        """Decide by the given unit whether a label is a stress or a virial, if its name does not say so."""
        is_virial = self.units.stress_is_virial
        if is_virial is None or is_virial == (form == "virial"):
            return form
        if meaning(one.name) is None and one.own is None:
            return "virial"
        unit = self.units.virial if is_virial else self.units.stress
        expected = "a unit of energy" if form == "virial" else "energy per volume or a pressure"
        raise DataError(
            f"{where} has {one.words}, a {form}, but the unit of stress is {unit.word}; expected {expected}, "
            "correct stress_unit"
        )

    def _of_the_forces(self, energy: Label, found: Found, geometry: Geometry, where: str) -> Label:
        """Replace the energy by the free energy, whose derivative the forces are, if electrons are smeared."""
        if self.options.energy_key is not None or energy.held.own is None:
            return energy
        for one in found.held:
            if one.own == "free energy":
                free = self._in_ev(one, "energy", geometry, where)
                if free is not None and not _agree(energy.value, free):
                    self.n_smeared += 1
                    self.smeared = max(self.smeared, abs(free - energy.value))
                    return energy._replace(value=free)
        return energy

    def _remember(self, quantity: Quantity, label: Label, where: str) -> None:
        used = self.used[quantity]
        if used and label.held.words not in used:
            raise DataError(
                f"{where}: {quantity} from {label.held.words}, in frames before from {next(iter(used))}; "
                f"name one by {_option(quantity)}"
            )
        used.setdefault(label.held.words, label)

    def check_named(self, file: str) -> None:
        """Refuse a key of the user that no frame has.

        Raises
        ------
        DataError
            No frame has the key; the message lists the keys that the file holds.
        """
        for quantity, used in self.used.items():
            key = _key(quantity, self.options)
            if key is not None and not used and not (quantity == "stress" and self._holds(key)):
                raise DataError(
                    f"{file}: no frame has {_article(quantity)} {key!r}; the file holds "
                    f"{', '.join(self.keys) or 'no label'}; correct {_option(quantity)}, or leave it out"
                )

    def _holds(self, key: str) -> bool:
        return any(key == words or words.endswith(f"[{key!r}]") for words in self.keys)

    def in_words(self) -> str:
        """State which labels were found under which keys and in which units."""
        found = [
            f"{quantity} from {words}{_FORM_IN_WORDS.get(label.form, '')} ({', '.join((unit.word, how))})"
            for quantity, used in self.used.items()
            for words, label in used.items()
            for unit, how in (self._unit(label.form),)
        ]
        return f"labels: {', '.join(found)}" if found else "labels: none"

    def _unit(self, form: Form) -> tuple[Unit, str]:
        """Return the unit in which labels of a form are read, and how it is known."""
        u = self.units
        unit, how = {
            "energy": (u.energy, u.energy_how),
            "free energy": (u.energy, u.energy_how),
            "forces": (u.force, u.force_how or u.energy_how),
            "gradient": (u.force, u.force_how or u.energy_how),
            "stress": (u.stress, u.stress_how or u.energy_how),
            "virial": (u.virial, u.stress_how or u.energy_how),
        }[form]
        return unit, how or "assumed"

    def notes(self) -> tuple[str, ...]:
        """Return sentences that a user should know."""
        free = (
            "energies are free_energy, whose derivative the forces are; it differs from energy in "
            f"{self.n_smeared} frame{'' if self.n_smeared == 1 else 's'}, by up to {self.smeared:.4g} eV"
        )
        uneven = f"{', '.join(self.uneven)} counts as one where it is not zero, unlike weight and config_weight"
        said = (free if self.n_smeared else "", self.undecided, uneven if self.uneven else "")
        return tuple(note for note in said if note)


def _word(name: str, found: Found) -> str:
    """Return what a file states for a frame under a name; empty if it states nothing."""
    return next((str(one.value) for one in found.held if one.name == name), "")


def candidates(quantity: Quantity, found: Found, options: LabelOptions) -> list[tuple[Held, Form]]:
    """Return what may be a label: by the user's key, by the format's own name, or else by a name that says so."""
    key = _key(quantity, options)
    if key is not None:
        named = [(one, meaning_of_key(key, quantity)) for one in found.held if key in (one.name, one.words)]
        return sorted(named, key=lambda pair: pair[0].own is None)[:1]
    known, others = list[tuple[Held, Form]](), list[tuple[Held, Form]]()
    for one in found.held:
        # Other results of a calculator, such as energies of atoms, are no labels, whatever their names say.
        means = Meaning(one.own, True) if one.own else None if one.place == "results" else meaning(one.name)
        if means is None or QUANTITY_OF.get(means.form) != quantity or isinstance(one.value, bool | np.bool_):
            continue  # ASE reads a word in a comment, "energy: -76.3", as a key with the value True
        if one.own or one.per_atom is not (quantity != "forces"):
            (known if means.known else others).append((one, means.form))
    return sorted(known, key=lambda pair: pair[0].own is None) or others


def _key(quantity: Quantity, options: LabelOptions) -> str | None:
    """Return the key that the user has given for a label."""
    return {"energy": options.energy_key, "forces": options.forces_key, "stress": options.stress_key}[quantity]


def _agree(a: Any, b: Any) -> bool:
    """Return whether two labels agree up to the digits of a text; arrays are often in single precision."""
    if np.shape(a) != np.shape(b):
        return False
    return bool(np.allclose(a, b, rtol=1e-5 if np.ndim(a) else 1e-10, atol=1e-6, equal_nan=True))


def _difference(a: Any, b: Any) -> str:
    return f" ({a:.8g} and {b:.8g} eV)" if np.shape(a) == np.shape(b) == () else ""


def _option(quantity: Quantity) -> str:
    return f"{quantity}_key"


def _article(quantity: Quantity) -> str:
    return {"energy": "an energy", "forces": "forces", "stress": "a stress"}[quantity]
