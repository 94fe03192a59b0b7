"""What is made in which order: streams of frames, each with a share of every round, so that any prefix is balanced."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .pool import Entry, family
from .sampling import Sampler, approach, cluster, collision, deformed, dynamics, field, relaxation


class Part(NamedTuple):
    """Frames of one kind for molecules of one family."""

    family: str
    first: int
    """Position of its first molecule among those that a round takes."""
    molecules: int
    """A round."""
    sampler: Sampler


class Stream(NamedTuple):
    """What a shard holds."""

    name: str
    parts: tuple[Part, ...]
    for_training: bool = False
    """Whether molecules of the calibration and test sets are passed over, since an ensemble chooses the frames."""


# A round takes so many molecules of a family, whether parts use them all or not. Streams are added, never changed: what
# is on disk was made with them.
ROUND = {
    "qm9": 100,
    "like-qm9": 20,
    "fragments": 10,
    "drugs": 15,
    "like-drugs": 13,
    "small": 8,
    "amino-acids": 2,
    "dipeptides": 4,
    "tripeptides": 3,
    "biomolecules": 4,
    "clusters": 13,
    "pairs": 4,
}
STREAMS = (
    Stream("qm9-dynamics", (Part("qm9", 0, 20, dynamics),)),
    Stream("qm9-field", (Part("qm9", 20, 25, field),)),
    Stream("qm9-deformed", (Part("qm9", 45, 15, deformed), Part("qm9", 60, 3, relaxation))),
    Stream(
        "like-qm9",
        (
            Part("like-qm9", 0, 6, dynamics),
            Part("like-qm9", 6, 8, field),
            Part("like-qm9", 14, 5, deformed),
            Part("like-qm9", 19, 1, relaxation),
        ),
    ),
    Stream(
        "fragments",
        (Part("fragments", 0, 4, dynamics), Part("fragments", 4, 3, field), Part("fragments", 7, 3, deformed)),
    ),
    Stream(
        "drugs",
        (
            Part("drugs", 0, 5, dynamics),
            Part("drugs", 5, 5, field),
            Part("drugs", 10, 3, deformed),
            Part("drugs", 13, 2, relaxation),
        ),
    ),
    Stream(
        "like-drugs",
        (Part("like-drugs", 0, 4, dynamics), Part("like-drugs", 4, 6, field), Part("like-drugs", 10, 3, deformed)),
    ),
    Stream("small", (Part("small", 0, 3, dynamics), Part("small", 3, 3, deformed), Part("small", 6, 2, relaxation))),
    Stream(
        "peptides",
        (
            Part("amino-acids", 0, 1, dynamics),
            Part("amino-acids", 1, 1, deformed),
            Part("dipeptides", 0, 1, dynamics),
            Part("dipeptides", 1, 2, field),
            Part("dipeptides", 3, 1, relaxation),
            Part("tripeptides", 0, 1, dynamics),
            Part("tripeptides", 1, 2, field),
        ),
    ),
    Stream(
        "biomolecules",
        (
            Part("biomolecules", 0, 2, dynamics),
            Part("biomolecules", 2, 1, deformed),
            Part("biomolecules", 3, 1, relaxation),
        ),
    ),
    Stream(
        "clusters",
        (Part("clusters", 0, 5, cluster), Part("clusters", 5, 6, approach), Part("clusters", 11, 2, deformed)),
    ),
    Stream("collisions", (Part("pairs", 0, 4, collision),)),
)


class Drawn(NamedTuple):
    """One molecule of a shard."""

    entry: Entry
    sampler: Sampler
    for_training: bool
    rng: np.random.Generator
    """For the frames of this molecule and no other."""


class Task(NamedTuple):
    """A shard: one stream in one round."""

    stream: Stream
    round: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.stream.name}-{self.round:05d}"

    def drawn(self, output: Path) -> Iterator[Drawn]:
        """Its molecules; small families begin again at their end, with other random numbers."""
        position = 0
        for part in self.stream.parts:
            entries = family(output, part.family)
            first = self.round * ROUND[part.family] + part.first
            for k in range(first, first + part.molecules):
                seed = [zlib.crc32(self.stream.name.encode()), self.round, position]
                yield Drawn(
                    entries[k % len(entries)], part.sampler, self.stream.for_training, np.random.default_rng(seed)
                )
                position += 1


def tasks(rounds: int) -> Iterator[Task]:
    """All shards, round by round."""
    for number in range(rounds):
        for stream in STREAMS:
            yield Task(stream, number)
