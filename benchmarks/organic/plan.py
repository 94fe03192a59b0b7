"""What is made in which order: streams of frames, each with a share of every round, so that any prefix is balanced."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .pool import Entry, family
from .sampling import Sampler, dynamics, field


class Stream(NamedTuple):
    """Frames of one kind for molecules of one family."""

    name: str
    family: str
    sampler: Sampler
    first: int
    """Position of its first molecule among those of a round."""
    molecules: int
    """A round."""


# A round takes so many molecules of a family, whether streams use them all or not. Streams are added, never changed:
# what is on disk was made with them.
ROUND = {"qm9": 100}
STREAMS = (
    Stream("qm9-dynamics", "qm9", dynamics, 0, 20),
    Stream("qm9-field", "qm9", field, 20, 25),
)


class Task(NamedTuple):
    """A shard: one stream in one round."""

    stream: Stream
    round: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.stream.name}-{self.round:05d}"

    def molecules(self) -> list[Entry]:
        """In order; small families begin again at their end, with other random numbers."""
        entries = family(self.stream.family)
        first = self.round * ROUND[self.stream.family] + self.stream.first
        return [entries[(first + k) % len(entries)] for k in range(self.stream.molecules)]

    def rng(self, molecule: int) -> np.random.Generator:
        """For the frames of the shard's molecule of this position, and of no other."""
        return np.random.default_rng([zlib.crc32(self.stream.name.encode()), self.round, molecule])


def tasks(rounds: int) -> Iterator[Task]:
    """All shards, round by round."""
    for number in range(rounds):
        for stream in STREAMS:
            yield Task(stream, number)
