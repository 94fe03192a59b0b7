"""The card of a registry entry: what an ensemble was trained on, how, and how well it does."""

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
from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.metrics import Errors

CARD_FILE = "card.json"
STUDENT_FILE: Final = "student.safetensors"
NOT_STATED = "not stated"
"""What a card says of the origin of data where whoever made it said nothing."""


@dataclass(frozen=True)
class Member:
    """One model of an ensemble."""

    # A card may come from elsewhere: no name on it leads out of its folder.
    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.safetensors$")]
    """Name within the entry's folder."""
    sha256: str
    validation: Errors
    """On the fold it was selected on."""
    test: Errors | None
    """On frames that no member saw; None where there are none."""
    seconds: float
    """Of training."""


@dataclass(frozen=True)
class Student:
    """One network distilled from the members: it learned their mean, from no labels but theirs."""

    sha256: str
    """Of the file `STUDENT_FILE`."""
    validation: Errors
    """Against the mean of the members, on runs that it was not trained on."""
    test: Errors | None
    """Against the reference, on the frames that the members were tested on; None where they were not at hand."""
    frames: str
    """The frames that it learned from, in words."""
    seconds: float
    """Of training."""
    command: str
    """That made it."""
    file: Literal["student.safetensors"] = STUDENT_FILE

    def ratio(self, mean: Errors | None) -> float | None:
        """Its force MAE over that of the members' mean on the same test frames; None where either is not known."""
        if self.test is None or mean is None or self.test.force_mae is None or not mean.force_mae:
            return None
        return self.test.force_mae / mean.force_mae

    def lines(self, mean: Errors | None) -> list[str]:
        """For people to read."""
        ratio = self.ratio(mean)
        beside = "" if ratio is None else f"; force MAE on test frames {ratio:.3f} times that of the mean"
        return [f"student of {self.frames}{beside}", f"student made by {self.command}, SHA-256 {self.sha256}"]


@dataclass(frozen=True)
class Metrics:
    """Errors of the ensemble mean."""

    calibration: Errors | None
    """On the frames of the training file that no fold touched."""
    test: Errors | None


@dataclass(frozen=True)
class TrainingData:
    """The frames behind an entry; energies in eV."""

    description: str
    file: str
    sha256: str
    test_file: str | None
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
    """The frames behind the weights that training started from, and what could not be checked of them; None where they
    were random."""
    extra: str | None = None
    """More frames that were trained on, not counted in the others; None where there were none."""
    force_max: float | None = None
    """eV/Å, the largest force on one atom; None: not known, or no frame has forces."""
    formulas: tuple[str, ...] | None = None
    """Chemical formulas, in Hill's order, of all frames behind the weights; None: not known, or very many."""


@dataclass(frozen=True)
class Structure:
    """Atoms as JSON; Å."""

    numbers: tuple[int, ...]
    positions: tuple[tuple[float, float, float], ...]
    cell: tuple[tuple[float, float, float], ...]
    pbc: tuple[bool, bool, bool]

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Structure:
        return cls(
            tuple(atoms.numbers.tolist()),
            tuple(tuple(p) for p in atoms.positions.tolist()),
            tuple(tuple(v) for v in atoms.cell.array.tolist()),
            tuple(atoms.pbc.tolist()),
        )

    def atoms(self) -> Atoms:
        return Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)


@dataclass(frozen=True)
class OtherRun:
    """A run from another seed, or from the structure of another entry, of a molecule that this one knows too."""

    structure: str | None
    """Name of the other entry; None: its own structure."""
    stable: float
    flagged: float | None
    """ps, both, as of `Dynamics`."""
    seed: int = 0

    def which(self) -> str:
        """What it differs in."""
        seed = f"seed {self.seed}"
        if self.structure is None:
            return seed
        return f"{self.structure}, {seed}" if self.seed else self.structure


@dataclass(frozen=True)
class Dynamics:
    """A run of dynamics at a temperature with the ensemble and a monitor's threshold, and the speed of its members."""

    temperature: float
    """K."""
    picoseconds: float
    """Asked for."""
    stable: float
    """ps until a bond was more than 0.5 Å off its relaxed length, protons of hydrogen bonds aside; else all of them."""
    threshold: float | None
    """eV/Å, of the monitor; None where there is no calibration."""
    flagged: float | None
    """ps until the monitor's first flag; None if there was none."""
    milliseconds: tuple[float, ...]
    """A step of Velocity Verlet, of each member on one thread."""
    processor: str
    command: str
    """That made the run; times may be newer."""
    yardstick: float | None = None
    """ms a step of an untrained network of three interactions of 128 features to 5 Å, in turns with the members."""
    others: tuple[OtherRun, ...] = ()
    """As long, as hot and with the same threshold."""

    def lines(self) -> list[str]:
        """For people to read."""
        run = f"{self.picoseconds:g} ps at {self.temperature:g} K"
        at = "" if self.threshold is None else f", at {self.threshold:.4f} eV/Å"
        times = ", ".join(f"{t:.2f}" for t in self.milliseconds)
        beside = "" if self.yardstick is None else f", {self.yardstick:.2f} of a network of 3 × 128"
        return [
            f"{run}: {self.outcome(self.stable, self.flagged)}{at}",
            *(f"the same of {other.which()}: {self.outcome(other.stable, other.flagged)}" for other in self.others),
            f"{times} ms a step of each member{beside} ({self.processor})",
        ]

    def outcome(self, stable: float, flagged: float | None) -> str:
        """What came of a run like this one."""
        end = "stable" if stable >= self.picoseconds else f"a bond broke after {stable:.3f} ps"
        if self.threshold is None:
            return f"{end}; not watched, without a calibration"
        return f"{end}; {'none flagged' if flagged is None else f'first flag after {flagged:.3f} ps'}"

    def broken(self) -> str | None:
        """In which runs a bond broke, in words; None: in none."""
        runs = [("", self.stable), *((f" ({other.which()})", other.stable) for other in self.others)]
        broken = [f"{stable:.3f} ps{which}" for which, stable in runs if stable < self.picoseconds]
        return f"at {self.temperature:g} K a bond broke after {' and '.join(broken)}" if broken else None


@dataclass(frozen=True)
class Card:
    """What `list_models` returns for each entry."""

    name: str
    elements: tuple[str, ...]
    """Chemical symbols the members were trained on."""
    data: TrainingData
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    metrics: Metrics
    structure: Structure
    """A geometry relaxed with the ensemble, to start from."""
    command: str
    """That made the entry."""
    versions: dict[str, str]
    calibration: Calibration | None = None
    """Of these members; None where there is none."""
    dynamics: Dynamics | None = None
    """None where it was not measured."""
    student: Student | None = None
    """None where there is none."""
    experimental: str | None = None
    """Why it is not to be trusted in long dynamics; None where nothing is known against it."""
    path: Annotated[Path, Field(exclude=True)] = Path()
    """The entry's folder."""

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.members != tuple(m.sha256 for m in self.members):
            raise ValueError(
                "calibration is that of other members: set it to null in the card, then run schnet-ase calibrate"
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of the entry, the card first."""
        return (CARD_FILE, *self.networks)

    @property
    def networks(self) -> dict[str, str]:
        """SHA-256 of each member and of the student, by the names of their files."""
        student = () if self.student is None else (self.student,)
        return {network.file: network.sha256 for network in (*self.members, *student)}

    @property
    def best(self) -> Member:
        """The member with the smallest validation force error (energy error, if it has no forces)."""

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
