"""Rewrap the data key of a backup with another key of the encryption Secret. The packs stay unchanged.

In a container with versions, the manifest with the old wrapping remains as a noncurrent version: until its lock
ends, and until a lifecycle rule removes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from cinderblock.api.pins import ExpectedBackup
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.reader import read_summary
from cinderblock.repository.locks.extend import running_lock
from cinderblock.store.base import ObjectStore


def run_rewrap(
    store: ObjectStore, manifest: str, expected: ExpectedBackup, keys: KeyRing, key_id: str | None = None
) -> ManifestHeader:
    """Wrap the data key of a backup with another key id, and replace the manifest.

    The object is replaced as a whole, and only its header differs, so concurrent readers are not affected. Children of
    the backup hold its data key in their own sealed part, so they are not affected either. Salt and content digest stay
    the same, so recorded pins still match.

    Args:
        store: where the backup is.
        manifest: key of its manifest.
        expected: which backup it must be.
        keys: the key ring of the store, with the key that wraps the data key now.
        key_id: the new key; None: the active key of the ring.

    Returns:
        The new header. If the key already wraps the data key, nothing is changed.

    Raises:
        NotFound, IntegrityError, UnsupportedFormat: the manifest cannot be read.
        KeyUnavailable: one of the two keys is missing, or the new one is read-only.
        InvalidInput: the backup is not sealed.
        CinderblockError: the store failed.

    The new manifest gets the lock that the old one has, as far as the credentials may see it.
    """
    size = read_summary(partial(store.get, manifest), keys, expected, manifest).manifest_bytes
    whole = store.get(manifest, 0, size)

    def read(start: int, length: int) -> bytes:
        first = start if start >= 0 else max(len(whole) + start, 0)
        return whole[first : first + length]

    # Another object may have taken its place between the two reads.
    header = read_summary(read, keys, expected, manifest).header
    if header.key_id == (key_id or keys.active):
        return header
    encoded = header.rewrapped(keys, key_id).encode()
    store.put(manifest, encoded + whole[HEADER_BYTES:], running_lock(store, manifest, datetime.now(UTC)))
    return parse_header(encoded, manifest)
