"""Re-wrapping: a backup's data key under another key of the encryption Secret, the packs untouched."""

from __future__ import annotations

from cinderblock.api.pins import ExpectedBackup
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader, parse_header
from cinderblock.format.manifest.reader import read_summary
from cinderblock.store.base import ObjectStore


def run_rewrap(
    store: ObjectStore, manifest: str, expected: ExpectedBackup, keys: KeyRing, key_id: str | None = None
) -> ManifestHeader:
    """Wrap the data key of a backup with another key id, and store the manifest anew.

    One object is replaced, whole or not at all, and only its header differs, so that whoever reads the backup at that
    moment does not notice. Children of the backup hold its data key inside their own sealed part,
    so they are not concerned. Salt and content digest stay as they are, so recorded pins still match.

    Args:
        store: where the backup is.
        manifest: key of its manifest.
        expected: which backup it must be.
        keys: the store's key ring; it must hold the key id that wraps the data key now.
        key_id: the one to wrap with; None: the ring's active one.

    Returns the new header. Does nothing if the key id is that already. Raises NotFound, IntegrityError,
    UnsupportedFormat; KeyUnavailable if one of the two keys is not there, or the new one is read-only; InvalidInput if
    the backup is not sealed; and what the store raises.
    """
    whole = store.get(manifest)

    def read(start: int, length: int | None) -> bytes:
        first = start if start >= 0 else max(len(whole) + start, 0)
        return whole[first:] if length is None else whole[first : first + length]

    header = read_summary(read, keys, expected, manifest).header
    if header.key_id == (key_id or keys.active):
        return header
    encoded = header.rewrapped(keys, key_id).encode()
    store.put(manifest, encoded + whole[HEADER_BYTES:])
    return parse_header(encoded, manifest)
