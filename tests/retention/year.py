"""A year of daily backups of one volume, of which a policy keeps some, with the real engine and real packs in memory.

Chunks, packs and the volume are smaller than real ones by the same factor, so that a day takes a fraction of a second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from unittest.mock import patch

from blake3 import blake3

from cinderblock.api.mover import VolumeMode
from cinderblock.archiver import archiver, pipeline, renewal
from cinderblock.format import pack
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.expiry import expire
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.format_reader import FormatReader

CHUNK: Final = 16 << 10
"""Bytes of a chunk: one 64th of a real one."""
PACK: Final = 24 * CHUNK
"""A pack has 24 chunks, as a real one of 24 MiB."""
FILE: Final = 1 << 10
"""Bytes of a file of a tree. A chunk has 16 of them."""
CHANGED: Final = 0.01
"""Share of the volume that changes in a day."""
HOT: Final = 0.1
"""Share of the volume that is hot, and gets HOT_CHANGES of all changes."""
HOT_CHANGES: Final = 0.9
SETTLED: Final = 90
"""Last days whose average counts. In the first months, the packs of the first backup become little used together."""

Keeps = Callable[[int, int], bool]
"""Whether a policy keeps the backup of a day, given today."""


@dataclass(frozen=True)
class Scenario:
    """One measurement.

    Attributes:
        policy: its name.
        keeps: the policy.
        changes: ``uniform`` or ``hot-cold``.
        kind: ``image`` or ``tree``.
        below: percentage of a pack in use below which it is renewed.
        aim: the most stored bytes for each byte of the volume; None: there is no aim.
    """

    policy: str
    keeps: Keeps
    changes: str
    kind: str = "image"
    below: int = 50
    aim: float | None = None


@dataclass
class Result:
    """The result of a year.

    Attributes:
        stored: bytes of all packs after each day, for each byte of the volume.
        bound: bytes that the remaining backups refer to, each counted once, for each byte of the volume.
        sent: bytes of data that an average day has sent, for each byte of the volume.
        renewed: those of them that were renewed.
    """

    stored: list[float] = field(default_factory=list)
    bound: float = 0
    sent: float = 0
    renewed: float = 0

    @property
    def settled(self) -> float:
        """The average of the last SETTLED days."""
        return sum(self.stored[-SETTLED:]) / len(self.stored[-SETTLED:])


class Volume:
    """A volume of units that change: chunks of an image, or files of a tree."""

    def __init__(self, kind: str, size: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self._is_tree = kind == "tree"
        self._unit = FILE if self._is_tree else CHUNK
        self._units = size // self._unit
        self._content = bytearray(self._dice.randbytes(size))
        self.source = MemorySource()
        for number in range(self._units):
            self._write(number, 1)

    def change(self, day: int, changes: str) -> None:
        """Change a share of the units."""
        for _ in range(max(1, round(self._units * CHANGED))):
            number = self._dice.randrange(self._units)
            if changes == "hot-cold":
                is_hot, border = self._dice.random() < HOT_CHANGES, round(self._units * HOT)
                number = self._dice.randrange(border) if is_hot else self._dice.randrange(border, self._units)
            start = number * self._unit
            self._content[start : start + self._unit] = self._dice.randbytes(self._unit)
            self._write(number, day + 1)

    def finish_changes(self) -> None:
        """Put the changes of an image into the volume."""
        if not self._is_tree:
            self.source.make_device(len(self._content), (0, bytes(self._content)))

    def digests(self) -> list[bytes]:
        """Return the digest of every file."""
        files = [self.source.files[path] for path in sorted(self.source.files)]
        return [blake3(b"".join(data for _, data in file.segments)).digest() for file in files]

    def _write(self, number: int, stamp: int) -> None:
        if self._is_tree:
            start = number * FILE
            self.source.add(b"file-%06d" % number, (0, bytes(self._content[start : start + FILE])), stamp=stamp)


def live_through(scenario: Scenario, size: int, days: int, seed: int = 1) -> Result:
    """Make a backup on each day, let the policy remove backups, and check at the end what is left.

    Raises AssertionError if a backup that is left does not have what the volume had.
    """
    mode = VolumeMode.FILESYSTEM if scenario.kind == "tree" else VolumeMode.BLOCK
    backups, volume, result = Backups(MemoryStore(), key_ring()), Volume(scenario.kind, size, seed), Result()
    held: dict[int, list[bytes]] = {}
    known = VolumeReferences()
    with _scaled():
        for day in range(days):
            if day:
                volume.change(day, scenario.changes)
            volume.finish_changes()
            parent = f"day-{day - 1}" if day else None
            report = backups.back_up(volume.source, f"day-{day}", parent, mode, renew_below=scenario.below)
            result.sent += report.transferred_bytes / size / (days - 1) if day else 0
            result.renewed += report.renewed_bytes / size / (days - 1)
            held[day] = volume.digests()
            gone = [old for old in held if old != day and not scenario.keeps(old, day)]
            expire(backups.store, PREFIX, VOLUME, [f"day-{old}" for old in gone], backups.keys, known=known)
            for old in gone:
                del held[old]
            result.stored.append(sum(info.size for info in backups.store.list(f"{PREFIX}/packs/")) / size)
    result.bound = sum(dict(_content_of(backups, held)).values()) / size
    for day in (min(held), max(held)):
        entries = FormatReader(backups.store.get, f"{PREFIX}/", KEYS).entries(backups.manifest_key(f"day-{day}"))
        assert [blake3(entry.content).digest() for entry in entries] == held[day], f"day {day} is damaged"
    return result


def _content_of(backups: Backups, days: dict[int, list[bytes]]) -> Iterator[tuple[bytes, int]]:
    """Yield digest and length of all content that the backups of these days refer to."""
    for day in days:
        for entry in backups.open(f"day-{day}").entries():
            for extent in entry.extents:
                yield extent.digest, extent.length


@contextmanager
def _scaled() -> Iterator[None]:
    """Make chunks and packs as small as the volume. The choice of packs to renew knows the size of a pack, too."""
    with (
        patch.object(archiver, "chunk_bytes_for", lambda _: CHUNK),
        patch.object(pipeline, "LOOKAHEAD_BYTES", 32 * CHUNK),
        patch.object(pack, "PACK_BYTES", PACK),
        patch.object(renewal, "PACK_BYTES", PACK),
    ):
        yield
