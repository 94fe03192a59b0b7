"""Units by their names in files and options, and their sizes in eV and Å."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from ase import units

from schnet_ase.errors import DataError


class _Dimension(NamedTuple):
    energy: int = 0
    length: int = 0
    amount: int = 0
    """Power of the amount of substance: 1 for units that are energies only per mole."""

    def times(self, other: _Dimension, power: int) -> _Dimension:
        return _Dimension(*(a + power * b for a, b in zip(self, other, strict=True)))


class _Base(NamedTuple):
    word: str
    """Spelling of the package."""
    factor: float
    dimension: _Dimension


_ENERGY, _LENGTH = _Dimension(energy=1), _Dimension(length=1)
_MOLAR, _PRESSURE = _Dimension(energy=1, amount=1), _Dimension(energy=1, length=-3)
_BASES: Mapping[str, _Base] = {
    name: _Base(word, factor, dimension)
    for names, word, factor, dimension in (
        ("ev electronvolt electronvolts electron_volt electron_volts", "eV", 1.0, _ENERGY),
        ("mev", "meV", 1e-3, _ENERGY),
        ("hartree hartrees ha eh e_h", "Hartree", units.Hartree, _ENERGY),
        ("mhartree millihartree mha meh", "mHartree", 1e-3 * units.Hartree, _ENERGY),
        ("rydberg rydbergs ry", "Rydberg", units.Rydberg, _ENERGY),
        ("kcal kilocalorie kilocalories", "kcal", units.kcal, _MOLAR),
        ("cal", "cal", 1e-3 * units.kcal, _MOLAR),
        ("kj kilojoule kilojoules", "kJ", units.kJ, _MOLAR),
        ("j", "J", 1e-3 * units.kJ, _MOLAR),
        ("mol mole moles", "mol", units.mol, _Dimension(amount=1)),
        ("å angstrom angstroms angstroem ångström ångstrom angström ångströms ang angs a", "Å", 1.0, _LENGTH),
        ("bohr bohrs a0 a_0", "Bohr", units.Bohr, _LENGTH),
        ("nm nanometer nanometers nanometre nanometres", "nm", units.nm, _LENGTH),
        ("pm picometer picometers picometre picometres", "pm", 1e-3 * units.nm, _LENGTH),
        ("gpa", "GPa", units.GPa, _PRESSURE),
        ("mpa", "MPa", 1e-3 * units.GPa, _PRESSURE),
        ("kpa", "kPa", 1e-6 * units.GPa, _PRESSURE),
        ("pa pascal", "Pa", 1e-9 * units.GPa, _PRESSURE),
        ("kbar kb kilobar", "kbar", 0.1 * units.GPa, _PRESSURE),
        ("bar bars", "bar", 1e-4 * units.GPa, _PRESSURE),
    )
    for name in names.split()
}
_ATOMIC = ("au", "a.u", "a.u.", "atomic", "atomic units", "atomic_units", "atomic unit", "atomic_unit")
_PLAIN_SIGNS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
_POWERS = {2: "²", 3: "³"}


class Kind(NamedTuple):
    """A kind of quantity."""

    name: str
    dimension: _Dimension
    atomic: str
    """Its unit in atomic units."""
    known: str
    """Some of its units, for messages."""


ENERGY = Kind("energy", _ENERGY, "Hartree", "eV, meV, Hartree, Rydberg, kcal/mol, kJ/mol")
LENGTH = Kind("length", _LENGTH, "Bohr", "Å, Bohr, nm, pm")
FORCE = Kind("force", _Dimension(1, -1), "Hartree/Bohr", "eV/Å, Hartree/Bohr, kcal/mol/Å, an energy/length")
STRESS = Kind("stress", _PRESSURE, "Hartree/Bohr³", "eV/Å³, GPa, kbar, bar, Hartree/Bohr³")


class Unit(NamedTuple):
    """A parsed unit."""

    word: str
    """Spelling of the package, the same for all spellings of the unit."""
    factor: float
    """Size in eV, Å and units derived from them."""

    def per(self, length: Unit, power: int = 1) -> Unit:
        """Return this unit divided by a length, or by a power of it."""
        word = f"{self.word}/{length.word}{_POWERS.get(power, '')}"
        return Unit(word, self.factor / length.factor**power)


def parse_unit(text: str, kind: Kind, where: str) -> Unit:
    """Parse a unit of a kind from products, quotients and powers of known units.

    Parameters
    ----------
    text
        Text such as ``"kcal/mol/Ang"``, ``"eV/Å³"``, ``"kJ mol^-1 nm^-1"`` or ``"a.u."``; case does not matter.
    kind
        Kind of quantity that it must be a unit of.
    where
        The file and the option or key that names it, for the message.

    Raises
    ------
    DataError
        The text is no such unit.
    """
    unit = _understood(text, kind)
    if unit is None:
        raise DataError(f"{where} is {text!r}; expected a unit of {kind.name}, such as {kind.known}")
    return unit


def is_atomic(text: str) -> bool:
    """Return whether a text means atomic units in general: ``"a.u."``."""
    return text.strip().strip("'\"").lower() in _ATOMIC


def is_unit(text: str, kind: Kind) -> bool:
    """Return whether a text names a unit of a kind."""
    return _understood(text, kind) is not None


def _understood(text: str, kind: Kind) -> Unit | None:
    plain = text.strip().strip("'\"")
    if is_atomic(plain):
        plain = kind.atomic
    factors = _factors(plain)
    if not factors:
        return None
    word, factor, dimension = "", 1.0, _Dimension()
    for base, power in factors:
        # Divide rather than multiply by the inverse, which would round once more.
        factor = factor * base.factor**power if power > 0 else factor / base.factor**-power
        dimension = dimension.times(base.dimension, power)
        sign = "/" if power < 0 else "·" if word else ""
        word += f"{sign}{base.word}{_POWERS.get(abs(power), '')}"
    return Unit(word, factor) if dimension == kind.dimension else None


def _factors(text: str) -> list[tuple[_Base, int]]:
    """Return the units in a text with their powers; empty if the text cannot be understood."""
    # One character per letter: Å and ö may be two, and the ångström sign is a character of its own.
    plain = unicodedata.normalize("NFC", text).translate(_PLAIN_SIGNS).replace("**", "^")
    # Division by a product is division by each of its factors.
    plain = re.sub(r"/\s*\(([^()]*)\)", lambda found: "/" + re.sub(r"[\s*·⋅.]+", "/", found[1].strip()), plain)
    plain = re.sub(r"[ _]per[ _]", "/", plain)
    found: list[tuple[_Base, int]] = []
    end = 0
    for match in re.finditer(r"\s*([/*·⋅.]?)\s*([A-Za-zÅåö](?:_?0|[A-Za-zÅåö_]*))\s*(?:\^?\s*(-?\d))?", plain):
        base = _BASES.get(match[2].lower())
        if base is None or match.start() != end or match[2] == "MeV":
            return []
        power = int(match[3] or 1)
        found.append((base, -power if match[1] == "/" else power))
        end = match.end()
    return found if not plain[end:].strip() else []
