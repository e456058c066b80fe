"""Verify the backups of tests at the levels Structure and Data, without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from cinderblock.archiver import archiver, pipeline, renewal
from cinderblock.format import pack
from cinderblock.format.manifest import reader as manifest_reader
from cinderblock.format.manifest import writer as manifest_writer
from cinderblock.repository.verify.data import Share, verify_data
from cinderblock.repository.verify.findings import Findings
from cinderblock.repository.verify.structure import verify_structure
from cinderblock.store.base import ObjectStore
from tests.support.mover.backups import PREFIX, Backups

CHUNK = 16 << 10
PACK = 4 * CHUNK
EVERYTHING = Share()


@contextmanager
def small_units(pack_bytes: int = PACK) -> Iterator[None]:
    """Make chunks of 16 KiB, packs of four chunks, and sections of a few entries that are copied whole.

    Args:
        pack_bytes: another size of packs.
    """
    with (
        patch.object(archiver, "chunk_bytes_for", lambda _: CHUNK),
        patch.object(pipeline, "LOOKAHEAD_BYTES", 16 * CHUNK),
        patch.object(pack, "PACK_BYTES", pack_bytes),
        patch.object(renewal, "PACK_BYTES", pack_bytes),
        patch.object(manifest_writer, "SECTION_BYTES", 1500),
        patch.object(manifest_reader, "MIN_COPIED_SECTION_BYTES", 1),
    ):
        yield


def structure(backups: Backups, backup: str, store: ObjectStore | None = None) -> Findings:
    """Verify the structure of a backup, through ``store``."""
    return verify_structure(
        store or backups.store,
        PREFIX,
        backups.manifest_key(backup),
        backups.expected(backup),
        backups.keys,
        sleep=lambda _: None,
    )


def data(
    backups: Backups, backup: str, share: Share = EVERYTHING, store: ObjectStore | None = None, **more: Any
) -> Findings:
    """Verify the data of all backups of the volume, through ``store``."""
    options: dict[str, Any] = {"sleep": lambda _: None, **more}
    return verify_data(store or backups.store, PREFIX, backups.expected(backup), backups.keys, share, **options)


def short_key(key: str) -> str:
    """Return a key without the prefix of the store."""
    return key.removeprefix(f"{PREFIX}/")
