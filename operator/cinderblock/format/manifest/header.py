"""The plain header of a manifest: the ids of the backup, and its wrapped data key.

Reading it needs no key. So the operator can identify the owner of a backup, delete it, and list the backups of a lost
cluster. The checksum distinguishes damage from a wrong key. The header is authenticated by the sealed frames after it,
whose keys are derived from these ids.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, UnsupportedFormat
from cinderblock.format.crypto.keyring import (
    WRAP_SALT_BYTES,
    WRAPPED_BYTES,
    DataKey,
    KeyRing,
    WrappedKey,
    object_sealer,
    scope_in,
)
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.sealer import FORMAT_VERSION, Sealer, Suite, identity, text_field
from cinderblock.format.hashing import digest_of

MAGIC = b"CBLKMANI"
HEADER_BYTES = 4096
"""Length of every header. One small request reads it. Wrapping the data key under a longer key id moves nothing after
the header, which others may be reading."""
MAX_ID_BYTES = 512
"""Most bytes of an id; a Kubernetes UID has 36, a key of a Secret at most 253."""
SALT_BYTES = 16

_ENVELOPE = struct.Struct("<8sI32s")
_VERSION = struct.Struct("<HB")


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    """The plain part of a manifest.

    Attributes:
        format_version: version of the format.
        backup_id, volume_id: UIDs that the backup was made with.
        parent_id: the parent of an incremental backup; None: a full backup.
        key_id: key of the encryption Secret that wraps the data key; None: the backup is not sealed.
        salt: 16 random bytes, drawn for this manifest.
        wrapped: the wrapped data key; None: the backup is not sealed.
    """

    format_version: int
    backup_id: str
    volume_id: str
    parent_id: str | None
    salt: bytes = field(repr=False)
    wrapped: WrappedKey | None = field(default=None, repr=False)

    @property
    def key_id(self) -> str | None:
        """Key of the encryption Secret that wraps the data key; None: the backup is not sealed."""
        return self.wrapped.key_id if self.wrapped else None

    @property
    def owner(self) -> tuple[str, str]:
        """Volume id and backup id, to which a wrapped key is bound."""
        return self.volume_id, self.backup_id

    @property
    def suite(self) -> Suite:
        """Cipher suite of the frames."""
        return Suite.NONE if self.wrapped is None else Suite.AES_256_GCM

    @property
    def is_sealed(self) -> bool:
        """Whether the backup is encrypted."""
        return self.wrapped is not None

    def data_key(self, keys: Keys | None) -> DataKey | None:
        """Unwrap the data key; None if the backup is not sealed. Raises KeyUnavailable, IntegrityError."""
        if self.wrapped is None:
            return None
        if keys is None:
            raise KeyUnavailable(
                f"backup {self.backup_id} is sealed with key id {self.key_id!r}, but there is no encryption Secret"
            )
        return keys.unwrap(self.wrapped, self.owner)

    def sealer(self, data_key: DataKey | None, label: str) -> Sealer:
        """Return the sealer of this manifest."""
        names = (self.volume_id, self.backup_id, self.parent_id or "", self.salt.hex())
        return object_sealer(data_key, identity("manifest", *names), label)

    def rewrapped(self, keys: KeyRing, key_id: str | None) -> ManifestHeader:
        """Return the same header with its data key wrapped by another key, by default the active one.

        Raises InvalidInput if the backup is not sealed; KeyUnavailable; IntegrityError.
        """
        data_key = self.data_key(keys)
        if data_key is None:
            raise InvalidInput(f"backup {self.backup_id} is not sealed: there is no key to wrap")
        scope = scope_in(self.wrapped) if self.wrapped is not None else b""
        return replace(self, wrapped=keys.wrap(data_key, self.owner, key_id, scope=scope))

    def encode(self) -> bytes:
        """Encode the header. Raises InvalidInput if an id is too long."""
        texts = [self.volume_id, self.backup_id, self.parent_id or ""]
        secrets = b""
        if self.wrapped is not None:
            texts.append(self.wrapped.key_id)
            secrets = self.wrapped.salt + self.wrapped.sealed
        for text in texts:
            if len(text.encode()) > MAX_ID_BYTES:
                raise InvalidInput(f"{text[:40]}... is too long for an id: at most {MAX_ID_BYTES} bytes")
        body = _VERSION.pack(self.format_version, self.suite) + self.salt + b"".join(map(text_field, texts)) + secrets
        body = body.ljust(HEADER_BYTES - _ENVELOPE.size, b"\0")
        return _ENVELOPE.pack(MAGIC, HEADER_BYTES, digest_of(body)) + body


def new_header(
    volume_id: str, backup_id: str, parent_id: str | None, data_key: DataKey | None, keys: Keys | None
) -> ManifestHeader:
    """Return the header of a new manifest, with a fresh salt and the data key wrapped by the active key."""
    wrapped = keys.wrap(data_key, (volume_id, backup_id)) if data_key is not None and keys is not None else None
    return ManifestHeader(FORMAT_VERSION, backup_id, volume_id, parent_id, os.urandom(SALT_BYTES), wrapped)


def parse_header(data: bytes, label: str) -> ManifestHeader:
    """Parse the header from the first HEADER_BYTES of an object.

    Raises IntegrityError naming ``label`` if it is damaged; UnsupportedFormat for another version.
    """
    if len(data) < _ENVELOPE.size:
        raise IntegrityError(f"{label}: cut short, it has no header")
    magic, length, checksum = _ENVELOPE.unpack_from(data)
    if magic != MAGIC:
        raise IntegrityError(f"{label}: it does not begin like a manifest: overwritten, or not a manifest")
    if length != HEADER_BYTES or length > len(data):
        raise IntegrityError(f"{label}: its header is damaged or cut short")
    body = data[_ENVELOPE.size : length]
    if digest_of(body) != checksum:
        raise IntegrityError(f"{label}: its header was changed")
    version, suite = _VERSION.unpack_from(body)
    if version != FORMAT_VERSION or suite not in tuple(Suite):
        raise UnsupportedFormat(
            f"{label}: format version {version}, suite {suite}: this program reads {FORMAT_VERSION}"
        )
    return _parse_body(body, Suite(suite), label)


def _parse_body(body: bytes, suite: Suite, label: str) -> ManifestHeader:
    """Parse everything after version and suite."""
    fields = _FieldReader(body, _VERSION.size, label)
    salt = fields.take(SALT_BYTES)
    volume_id, backup_id, parent_id = fields.text(), fields.text(), fields.text()
    wrapped = None
    if suite is Suite.AES_256_GCM:
        wrapped = WrappedKey(fields.text(), fields.take(WRAP_SALT_BYTES), fields.take(WRAPPED_BYTES))
    return ManifestHeader(FORMAT_VERSION, backup_id, volume_id, parent_id or None, salt, wrapped)


class _FieldReader:
    """Reads the fields of a header in order."""

    def __init__(self, data: bytes, position: int, label: str) -> None:
        self._data = data
        self._position = position
        self._label = label

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        start, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise IntegrityError(f"{self._label}: its header is damaged")
        return self._data[start : self._position]

    def text(self) -> str:
        """Return the next string."""
        length = int.from_bytes(self.take(2), "little")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise IntegrityError(f"{self._label}: its header is damaged") from None
