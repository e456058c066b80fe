"""The column of a footer with the ends of the locks of packs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.api.mover import BackupMetadata, VolumeMode
from cinderblock.format.crypto.sealer import Sealer
from cinderblock.format.hashing import DIGEST_BYTES
from cinderblock.format.manifest.footer import (
    TRAILER_BYTES,
    Counts,
    Footer,
    FooterSummary,
    OriginRecord,
    content_digest,
    decode_footer,
    encode_footer,
    parse_trailer,
)
from cinderblock.format.pack import MAX_LOCK_HOURS, NOT_LOCKED, Origin, PackTable, lock_end, lock_hours, pack_sealer

ORIGIN = Origin("backup", "a" * 32)
TIME = datetime(2026, 5, 1, 12, 59, 59, tzinfo=UTC)


def sealer() -> Sealer:
    return pack_sealer(None, "volume", "backup", "name", "label")


def table(*hours: int) -> PackTable:
    packs = PackTable()
    for number, end in enumerate(hours):
        packs.add(ORIGIN, number, 1000, end)
    return packs


def encoded(packs: PackTable) -> bytes:
    description = BackupMetadata(
        backup_id="backup", volume_id="volume", volume_mode=VolumeMode.BLOCK, created_at=TIME, data_timestamp=TIME
    )
    summary = FooterSummary(
        description=description,
        chunk_bytes=1,
        counts=Counts(),
        content_digest=content_digest([]),
        origins=[OriginRecord(backup_id=ORIGIN.backup_id, attempt=ORIGIN.attempt)],
    )
    return encode_footer(Footer(summary, packs, [], [10] * len(packs)), sealer())


def decoded(tail: bytes) -> tuple[list[int], list[int]]:
    """Return the ends of locks, and the bytes in use."""
    footer = decode_footer(tail, parse_trailer(tail, "label"), sealer(), "label")
    return [footer.packs.locked_until(pack) for pack in range(len(footer.packs))], list(footer.used)


def test_ends_of_locks_are_read_as_written() -> None:
    hours = [lock_hours(TIME), NOT_LOCKED, MAX_LOCK_HOURS]
    assert decoded(encoded(table(*hours))) == (hours, [10, 10, 10])
    assert table(*hours).copy().locked_until(2) == MAX_LOCK_HOURS


def test_footer_without_locks_has_no_further_column() -> None:
    without = encoded(table(NOT_LOCKED, NOT_LOCKED))
    assert decoded(without) == ([NOT_LOCKED] * 2, [10, 10])
    assert len(encoded(table(1, 1))) > len(without)
    assert len(without) > TRAILER_BYTES + DIGEST_BYTES


@pytest.mark.parametrize("hours", [MAX_LOCK_HOURS + 1, 0xFFFFFFFF])
def test_impossible_end_counts_as_no_lock(hours: int) -> None:
    assert decoded(encoded(table(hours)))[0] == [NOT_LOCKED]


def test_hours_are_rounded_down() -> None:
    assert lock_end(lock_hours(TIME)) == TIME.replace(minute=0, second=0)
    assert lock_end(MAX_LOCK_HOURS) - TIME > timedelta(days=300_000)
