"""The whole manifest of a backup in memory: verified once, and then written unchanged."""

from __future__ import annotations

from functools import partial

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, KeyUnavailable, NotFound, ObjectNotFound, TooLarge, WrongKey
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import Sealer
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import pack_sealer
from cinderblock.reasons import Reason
from cinderblock.repository.verify.manifests import check_sections, check_sizes, without_traceback
from cinderblock.repository.verify.recorded_chunks import RecordedChunks
from cinderblock.repository.verify.volume_packs import PackId, PackMarks, VolumePacks
from cinderblock.store.base import BODY_LIMIT, ObjectStore, slice_body

_RANGE_BYTES = 32 << 20
"""Bytes of one read of a manifest. Most manifests need one."""


class ManifestBody:
    """A manifest with its list of packs.

    Args:
        body: its bytes.
        prefix: of the store that it was read from.
        keys: the key ring of that store.
        expected: the backup that it must belong to.
        label: its key, for messages.

    Attributes:
        body: its bytes.
        packs: the packs that it lists.

    Raises IntegrityError, UnsupportedFormat, KeyUnavailable and TooLarge.
    """

    def __init__(self, body: bytes, prefix: str, keys: Keys | None, expected: ExpectedBackup, label: str) -> None:
        self.body = body
        self.packs = VolumePacks(prefix, expected.volume_id)
        self._volume_id = expected.volume_id
        self._label = label
        reader = ManifestReader(partial(slice_body, body), keys, expected, label)
        check_sizes(reader.packs, label)
        self.packs.add(reader.pack_list())
        # Anybody who may write to a container can replace an unsealed pack. Only the manifest shows that.
        unsealed = PackMarks()
        for pack in self.packs.packs():
            if self.packs.data_key(pack) is None:
                unsealed.add(pack)
        self._recorded = RecordedChunks(reader.packs, self.packs, unsealed)
        check_sections(reader, self._recorded.add)

    @property
    def content(self) -> memoryview:
        """Return the bytes after the header, which re-wrapping of the key does not change."""
        return memoryview(self.body)[HEADER_BYTES:]

    def opens_with(self, keys: Keys | None) -> bool:
        """Return whether other keys than those of its store open it, too."""
        try:
            parse_header(self.body[:HEADER_BYTES], self._label).data_key(keys)
        except (KeyUnavailable, WrongKey):
            return False
        return True

    def ancestors(self, own_id: str) -> frozenset[str]:
        """Return the ids of the other backups whose packs it lists."""
        return frozenset(self.packs.origin(pack).backup_id for pack in self.packs.packs()) - {own_id}

    def sealer(self, pack: PackId) -> Sealer:
        """Return the sealer that opens the frames of a pack. Its label is the key of the pack."""
        packs = self.packs
        backup_id, name = packs.origin(pack).backup_id, packs.name(pack)
        return pack_sealer(packs.data_key(pack), self._volume_id, backup_id, name, packs.key(pack))

    def recorded_in(self, pack: PackId) -> frozenset[int]:
        """Return the fingerprints of the chunks that an unsealed pack must contain."""
        return self._recorded.of(pack)


def read_manifest_body(store: ObjectStore, prefix: str, keys: Keys | None, expected: ExpectedBackup) -> ManifestBody:
    """Read and verify a whole manifest.

    A damaged one is read twice: its object may have been replaced between two requests for parts of it.

    Raises NotFound (ManifestMissing), what `ManifestBody` raises, and what the store raises.
    """
    key = manifest_key(prefix, expected.volume_id, expected.backup_id)
    for is_last in (False, True):
        try:
            body = read_object(store, key)
            return ManifestBody(body, prefix, keys, expected, key)
        except ObjectNotFound as error:
            raise NotFound(
                f"Cannot copy backup {expected.backup_id}: the store has no manifest of it. It was deleted or lost.",
                reason=Reason.MANIFEST_MISSING,
            ) from error
        except IntegrityError as error:
            if is_last:
                raise without_traceback(error) from None
    raise AssertionError("the loop returns or raises")


def read_object(store: ObjectStore, key: str) -> bytes:
    """Read a whole object in ranges. Raises TooLarge if no store could have got it in one request."""
    parts: list[bytes] = []
    size = 0
    while True:
        part = store.get(key, size, _RANGE_BYTES)
        parts.append(part)
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge(f"Cannot copy {key}: it has more than {BODY_LIMIT} bytes.")
        if len(part) < _RANGE_BYTES:
            return b"".join(parts) if len(parts) > 1 else part
