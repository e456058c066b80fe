"""Synthetic volumes, day by day: databases, mail, logs, build caches, photos and shared files.

The generators know nothing of the rules that they test. Sizes and rates of each volume are drawn once, and each day
varies around them. All bytes are floats.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from cinderblock.api.quantity import GIB, MIB

INCOMPRESSIBLE: Final = 1.0003
"""Ratio of data that cannot be compressed: a pack also has tags and an index."""


@dataclass(frozen=True)
class Day:
    """The changes of a volume in the day before a backup.

    Attributes:
        added: bytes by which the volume grew, before ``removed``.
        removed: bytes that were deleted.
        replaced: bytes that were overwritten in place.
        ratio: compression ratio of the new bytes.
        entries: files and directories after the day.
        logical: bytes of data after the day.
        usual_ratio: compression ratio of the whole volume.
    """

    added: float
    removed: float
    replaced: float
    ratio: float
    entries: int
    logical: float
    usual_ratio: float


Generator = Callable[[random.Random], Iterator[Day]]


def database(rng: random.Random) -> Iterator[Day]:
    """Yield the days of a database: it replaces pages in place, more on workdays, and sometimes loads a batch."""
    logical, ratio = _log_uniform(rng, 200 * MIB, 200 * GIB), rng.uniform(0.2, 0.6)
    churn, growth, entries = _log_uniform(rng, 0.002, 0.15), rng.uniform(0.0, 0.01), rng.randint(300, 5000)
    for day in _days():
        is_batch, is_weekend = rng.random() < 0.03, day % 7 >= 5
        share = churn * rng.lognormvariate(0, 0.4) * (0.4 if is_weekend else 1) * (rng.uniform(2, 4) if is_batch else 1)
        added = logical * growth * rng.uniform(0, 2)
        logical += added
        new_ratio = _near(rng, ratio, 0.03)
        yield Day(added, 0, logical * min(share, 0.9), new_ratio, entries + rng.randint(0, 20), logical, ratio)


def mail(rng: random.Random) -> Iterator[Day]:
    """Yield the days of a mail server: small files are added and some deleted, with attachments of all kinds."""
    logical, ratio, each = _log_uniform(rng, GIB, 500 * GIB), rng.uniform(0.5, 0.85), rng.uniform(20e3, 200e3)
    rate = _log_uniform(rng, 0.001, 0.01)
    for day in _days():
        added = logical * rate * rng.lognormvariate(0, 0.5) * (0.2 if day % 7 >= 5 else 1)
        removed = added * rng.uniform(0, 0.8) if rng.random() > 0.02 else logical * rng.uniform(0, 0.1)
        indexes = logical * rng.uniform(0.001, 0.01)
        logical += added - removed
        yield Day(added, removed, indexes, _near(rng, ratio, 0.08), int(logical / each), logical, ratio)


def logs(rng: random.Random) -> Iterator[Day]:
    """Yield the days of logs that are rotated and compressed each week, with bursts of errors."""
    daily, weeks, ratio = _log_uniform(rng, 10 * MIB, 5 * GIB), rng.randint(4, 26), rng.uniform(0.08, 0.2)
    plain: list[float] = []
    archived: list[float] = []
    for day in _days():
        written = daily * rng.lognormvariate(0, 0.3) * (rng.uniform(3, 10) if rng.random() < 0.02 else 1)
        removed = archive = 0.0
        if day % 7 == 6 and plain:
            removed, archive = sum(plain), sum(plain) * ratio
            archived.append(archive)
            plain = []
            removed += archived.pop(0) if len(archived) > weeks else 0
        plain.append(written)
        added = written + archive
        new_ratio = (written * ratio + archive) / added
        logical = sum(plain) + sum(archived)
        yield Day(added, removed, 0, new_ratio, 20 + len(archived) * 10, logical, ratio)


def build_cache(rng: random.Random) -> Iterator[Day]:
    """Yield the days of a cache with a limit, which removes the oldest results, and rests on weekends and holidays."""
    limit, ratio, each = _log_uniform(rng, 2 * GIB, 200 * GIB), rng.uniform(0.4, 0.7), rng.uniform(1e4, 1e6)
    rate, keeps, logical, rests = rng.uniform(0.05, 0.4), rng.uniform(0.75, 0.9), 0.0, 0
    for day in _days():
        rests = max(0, rests - 1) if rests or rng.random() > 0.01 else rng.randint(1, 3)
        added = 0.0 if day % 7 >= 5 or rests else limit * rate * rng.uniform(0.3, 1.5)
        removed = logical + added - limit * keeps if logical + added > limit else 0.0
        logical += added - removed
        yield Day(added, removed, 0, _near(rng, ratio, 0.04), int(logical / each), logical, ratio)


def photos(rng: random.Random) -> Iterator[Day]:
    """Yield the days of a photo library: nothing on most days, then many photos, and a small index that changes."""
    logical, index = _log_uniform(rng, 5 * GIB, 500 * GIB), _log_uniform(rng, 20 * MIB, 2 * GIB)
    entries, rate = int(logical / 4e6) + 200, rng.uniform(0.1, 0.6)
    for _ in _days():
        added = rng.uniform(0.1, 8) * GIB if rng.random() < rate else 0.0
        replaced = index * rng.uniform(0.05, 0.6)
        logical += added
        entries += int(added / 4e6)
        new_ratio = (added * rng.uniform(0.98, 1) + replaced * _near(rng, 0.4, 0.05)) / (added + replaced)
        yield Day(added, 0, replaced, new_ratio, entries, logical, 0.98)


def shared_files(rng: random.Random) -> Iterator[Day]:
    """Yield the days of a share: documents are edited, and sometimes somebody uploads or deletes films."""
    logical, ratio, films = _log_uniform(rng, 5 * GIB, 500 * GIB), rng.uniform(0.4, 0.6), 0.0
    rate, documents = _log_uniform(rng, 0.001, 0.02), logical
    for day in _days():
        edited = documents * rate * rng.lognormvariate(0, 0.5) * (0.1 if day % 7 >= 5 else 1)
        added = documents * rate * rng.uniform(0, 0.3)
        uploaded = logical * rng.uniform(0.01, 0.1) if rng.random() < 0.02 else 0.0
        removed = films * rng.uniform(0.2, 1) if rng.random() < 0.01 else 0.0
        documents, films = documents + added, films + uploaded - removed
        logical = documents + films
        new = added + uploaded + edited
        new_ratio = ((added + edited) * _near(rng, ratio, 0.05) + uploaded) / new
        usual_ratio = (documents * ratio + films) / logical
        yield Day(added + uploaded, removed, edited, new_ratio, int(documents / 3e5), logical, usual_ratio)


KINDS: Final[dict[str, Generator]] = {
    "database": database,
    "mail": mail,
    "logs": logs,
    "build cache": build_cache,
    "photos": photos,
    "shared files": shared_files,
}


def encrypt(day: Day, share: float) -> Day:
    """Let somebody replace a share of the volume by encrypted data of the same size."""
    encrypted = share * day.logical
    new = day.added + day.replaced
    ratio = (new * day.ratio + encrypted * INCOMPRESSIBLE) / (new + encrypted)
    usual_ratio = (1 - share) * day.usual_ratio + share * INCOMPRESSIBLE
    return replace(day, replaced=day.replaced + encrypted, ratio=ratio, usual_ratio=usual_ratio)


def delete(day: Day, share: float) -> Day:
    """Let somebody delete a share of all files."""
    removed, entries = share * day.logical, int(day.entries * (1 - share))
    return replace(day, removed=day.removed + removed, logical=day.logical - removed, entries=entries)


def truncate(day: Day) -> Day:
    """Let somebody empty all files, but leave them there."""
    return replace(day, added=0.0, replaced=0.0, removed=day.removed + day.logical, logical=0.0)


def rename(day: Day) -> Day:
    """Let somebody rename all files. Their content is known, so nothing is transferred that would not be anyway."""
    return day


def _days() -> Iterator[int]:
    day = 0
    while True:
        yield day
        day += 1


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _near(rng: random.Random, ratio: float, spread: float) -> float:
    return min(1.0, max(0.02, rng.gauss(ratio, spread)))
