"""Card of a registry entry: the training data of an ensemble, how it was trained, and its errors."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

from ase import Atoms
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schnet_ase.errors import RegistryError
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.dynamics import Dynamics
from schnet_ase.registry.references import ENVIRONMENTS_FILE, ReferenceEnvironments
from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.metrics import Errors

CARD_FILE = "card.json"
STUDENT_FILE: Final = "student.safetensors"
NOT_STATED = "not stated"
"""Value on a card for an origin of the data that was not given."""


@dataclass(frozen=True)
class Member:
    """One model of an ensemble."""

    # A card may come from an untrusted source, so no file name on it may lead out of its folder.
    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.safetensors$")]
    """File name within the entry's folder."""
    sha256: str
    validation: Errors
    """Errors on the fold that the model was validated on."""
    test: Errors | None
    """Errors on frames that no member saw; None if there are none."""
    seconds: float
    """Duration of the training."""


@dataclass(frozen=True)
class Student:
    """One network distilled from the members: it learned the mean of their predictions, without other labels."""

    sha256: str
    """SHA-256 of the file `STUDENT_FILE`."""
    validation: Errors
    """Errors against the mean of the members, on runs that it was not trained on."""
    test: Errors | None
    """Errors against the reference, on the test frames of the members; None if these were not available."""
    frames: str
    """Description of the frames that it learned from."""
    seconds: float
    """Duration of the training."""
    command: str
    """Command that made it."""
    file: Literal["student.safetensors"] = STUDENT_FILE
    calibration: Calibration | None = None
    """Calibration of the members' spread for the student's errors; None if no calibration frames were available."""
    coverage: float | None = None
    """Share of its force errors on the test frames within the half-widths of `calibration`; None if not measured."""

    def ratio(self, mean: Errors | None) -> float | None:
        """Return the ratio of its force MAE to that of the members' mean, both on the test frames; None if unknown."""
        if self.test is None or mean is None or self.test.force_mae is None or not mean.force_mae:
            return None
        return self.test.force_mae / mean.force_mae

    def lines(self, mean: Errors | None) -> list[str]:
        """Return a description for the terminal; `mean` are the test errors of the members' mean."""
        ratio = self.ratio(mean)
        beside = "" if ratio is None else f"; force MAE on test frames {ratio:.3f} times that of the mean"
        lines = [f"student of {self.frames}{beside}", f"student made by {self.command}, SHA-256 {self.sha256}"]
        return lines if self.held() is None else [*lines, f"student: {self.held()}"]

    def held(self) -> str | None:
        """Return in words how many of its errors the half-widths hold; None if this was not measured."""
        if self.coverage is None or self.calibration is None:
            return None
        asked = f"{100.0 * self.calibration.coverage:g} % half-widths"
        return f"{asked} hold {100.0 * self.coverage:.1f} % of its force errors on the test frames"


@dataclass(frozen=True)
class LaterPrior:
    """Prior that an entry was given after its networks were trained without it; their weights are those of before."""

    name: str
    """Name of the prior, see `SchNetConfig`."""
    energy_change: float
    """Largest change of the energy of a frame that the entry was tested on, eV."""
    force_change: float
    """Largest change of the force on an atom of these frames, eV/Å."""
    command: str
    """Command that added it."""

    def lines(self) -> list[str]:
        """Return a description for the terminal."""
        effect = "no test frame"
        if self.energy_change or self.force_change:
            changes = (
                f"{1000.0 * self.energy_change:.3g} meV and a force by up to {1000.0 * self.force_change:.3g} meV/Å"
            )
            effect = f"a test frame's energy by up to {changes}"
        return [
            f"prior {self.name} was added after the training; it changes {effect}",
            f"prior added by {self.command}",
        ]


@dataclass(frozen=True)
class Metrics:
    """Errors of the ensemble mean."""

    calibration: Errors | None
    """Errors on the calibration frames, which no fold used."""
    test: Errors | None
    """Errors on the test frames."""


@dataclass(frozen=True)
class TrainingData:
    """Frames that an entry was trained on; energies in eV."""

    description: str
    file: str
    sha256: str
    test_file: str | None
    """File of the test frames; None if there are none."""
    test_sha256: str | None
    units: str
    level_of_theory: str
    temperature: str
    licence: str
    n_frames: int
    energy_min: float | None
    energy_max: float | None
    split: str
    initial: str | None = None
    """Data of the initial weights, and what could not be checked about them; None if they were random."""
    extra: str | None = None
    """File of additional training frames, which the other fields do not count; None if there were none."""
    force_max: float | None = None
    """Largest force on one atom, eV/Å; None: unknown, or no frame has forces."""
    formulas: tuple[str, ...] | None = None
    """Chemical formulas, in Hill order, of all frames that the weights depend on; None: unknown, or too many."""


@dataclass(frozen=True)
class Structure:
    """Atoms in a form that can be written as JSON; lengths in Å."""

    numbers: tuple[int, ...]
    positions: tuple[tuple[float, float, float], ...]
    cell: tuple[tuple[float, float, float], ...]
    pbc: tuple[bool, bool, bool]

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Structure:
        """Return the structure of `atoms`."""
        return cls(
            tuple(atoms.numbers.tolist()),
            tuple(tuple(p) for p in atoms.positions.tolist()),
            tuple(tuple(v) for v in atoms.cell.array.tolist()),
            tuple(atoms.pbc.tolist()),
        )

    def atoms(self) -> Atoms:
        """Return the structure as ASE's `Atoms`."""
        return Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)


@dataclass(frozen=True)
class Card:
    """Card of an entry, as `list_models` returns it."""

    name: str
    elements: tuple[str, ...]
    """Chemical symbols of the elements that the members were trained on."""
    data: TrainingData
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    metrics: Metrics
    structure: Structure
    """Geometry relaxed with the ensemble, as a structure to start from."""
    command: str
    """Command that made the entry."""
    versions: dict[str, str]
    calibration: Calibration | None = None
    """Calibration of these members; None if there is none."""
    dynamics: Dynamics | None = None
    """Stability and speed; None if not measured."""
    student: Student | None = None
    """Student of the members; None if there is none."""
    environments: ReferenceEnvironments | None = None
    """Reference environments; None if there are none."""
    later_prior: LaterPrior | None = None
    """Prior added after the training; None: the networks were trained with all terms that they have."""
    experimental: str | None = None
    """Reason not to trust the entry in long dynamics; None if none is known."""
    path: Annotated[Path, Field(exclude=True)] = Path()
    """Folder of the entry."""

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.members != tuple(m.sha256 for m in self.members):
            raise ValueError(
                "calibration is that of other members: set it to null in the card, then run schnet-ase calibrate"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of the entry, the card first."""
        return (CARD_FILE, *self.hashes)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file besides the card, by name."""
        known = {} if self.environments is None else {ENVIRONMENTS_FILE: self.environments.sha256}
        return {**self.networks, **known}

    @property
    def networks(self) -> dict[str, str]:
        """SHA-256 of each member and of the student, by file name."""
        student = () if self.student is None else (self.student,)
        return {network.file: network.sha256 for network in (*self.members, *student)}

    @property
    def best(self) -> Member:
        """Member with the smallest force error in validation (energy error if there are no forces)."""

        def error(member: Member) -> tuple[float, float]:
            e = member.validation
            return math.inf if e.force_mae is None else e.force_mae, math.inf if e.energy_mae is None else e.energy_mae

        return min(self.members, key=error)


_ADAPTER = TypeAdapter(Card)


def write_card(card: Card, folder: Path) -> None:
    """Write ``card.json`` into an entry's folder, atomically."""
    atomic_write(folder / CARD_FILE, _ADAPTER.dump_json(card, indent=2) + b"\n")


def read_card(folder: Path) -> Card:
    """Read an entry's card.

    Raises
    ------
    RegistryError
        The card is missing or not valid.
    """
    file = folder / CARD_FILE
    try:
        card = _ADAPTER.validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise RegistryError(f"{file}: no such file; a registry entry has a card") from error
    except ValidationError as error:
        mistake = error.errors()[0]
        where = ".".join(str(part) for part in mistake["loc"]) or "card"
        raise RegistryError(
            f"{file}: not a valid card ({where}: {mistake['msg']}); get the entry again, or a newer schnet_ase"
        ) from error
    # An entry is found by its folder, so a copied folder is an entry of its own.
    return replace(card, name=Path(os.path.abspath(folder)).name, path=folder)
