"""The plain header of a manifest: whose it is, and how its data key is wrapped.

It can be read without any key, so that the operator can tell whose a backup is, and delete it, and list a lost
cluster's backups. Its checksum tells damage from a wrong key; what authenticates it is the sealing of everything behind
it, whose keys are derived from these very ids.
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
)
from cinderblock.format.crypto.sealer import FORMAT_VERSION, Sealer, Suite, identity, text_field
from cinderblock.format.hashing import digest_of

MAGIC = b"CBLKMANI"
HEADER_BYTES = 4096
"""Every header has this length: one small request reads it, and a data key that is wrapped under a longer key id moves
nothing of what lies behind, which may be read at the same moment."""
ID_LIMIT = 512
"""Bytes of an id at most; a Kubernetes UID has 36, a key of a Secret at most 253."""
SALT_BYTES = 16

_ENVELOPE = struct.Struct("<8sI32s")
_VERSION = struct.Struct("<HB")


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    """The plain part of a manifest.

    Attributes:
        format_version: version of the format.
        backup_id, volume_id: UIDs that the backup was made with.
        parent_id: backup that it was made against; None: a full backup.
        key_id: key of the encryption Secret that wraps its data key; None: it is not sealed.
        salt: 16 random bytes, drawn for this manifest.
        wrapped: the wrapped data key, if it is sealed.
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
        """Volume id and backup id, which a wrapped key is bound to."""
        return self.volume_id, self.backup_id

    @property
    def suite(self) -> Suite:
        """How its frames are sealed."""
        return Suite.NONE if self.wrapped is None else Suite.AES_256_GCM

    @property
    def is_sealed(self) -> bool:
        """Whether the backup is encrypted."""
        return self.wrapped is not None

    def data_key(self, keys: KeyRing | None) -> DataKey | None:
        """The data key; None if the backup is not sealed. Raises KeyUnavailable, IntegrityError."""
        if self.wrapped is None:
            return None
        if keys is None:
            raise KeyUnavailable(
                f"backup {self.backup_id} is sealed with key id {self.key_id!r}, and there is no encryption Secret"
            )
        return keys.unwrap(self.wrapped, self.owner)

    def sealer(self, data_key: DataKey | None, label: str) -> Sealer:
        """What seals the frames of this manifest."""
        names = (self.volume_id, self.backup_id, self.parent_id or "", self.salt.hex())
        return object_sealer(data_key, identity("manifest", *names), label)

    def rewrapped(self, keys: KeyRing, key_id: str | None) -> ManifestHeader:
        """The same header with its data key wrapped by another key, by default the active one.

        Raises InvalidInput if the backup is not sealed; KeyUnavailable; IntegrityError.
        """
        data_key = self.data_key(keys)
        if data_key is None:
            raise InvalidInput(f"backup {self.backup_id} is not sealed: there is no key to wrap")
        return replace(self, wrapped=keys.wrap(data_key, self.owner, key_id))

    def encode(self) -> bytes:
        """The header as it is stored. Raises InvalidInput if an id is too long."""
        texts = [self.volume_id, self.backup_id, self.parent_id or ""]
        secrets = b""
        if self.wrapped is not None:
            texts.append(self.wrapped.key_id)
            secrets = self.wrapped.salt + self.wrapped.sealed
        for text in texts:
            if len(text.encode()) > ID_LIMIT:
                raise InvalidInput(f"{text[:40]}... is too long for an id: at most {ID_LIMIT} bytes")
        body = _VERSION.pack(self.format_version, self.suite) + self.salt + b"".join(map(text_field, texts)) + secrets
        body = body.ljust(HEADER_BYTES - _ENVELOPE.size, b"\0")
        return _ENVELOPE.pack(MAGIC, HEADER_BYTES, digest_of(body)) + body


def new_header(
    volume_id: str, backup_id: str, parent_id: str | None, data_key: DataKey | None, keys: KeyRing | None
) -> ManifestHeader:
    """The header of a new manifest, with a salt of its own and the data key wrapped by the ring's active key."""
    wrapped = keys.wrap(data_key, (volume_id, backup_id)) if data_key is not None and keys is not None else None
    return ManifestHeader(FORMAT_VERSION, backup_id, volume_id, parent_id, os.urandom(SALT_BYTES), wrapped)


def parse_header(data: bytes, label: str) -> ManifestHeader:
    """The header from the first bytes of an object, HEADER_BYTES of which are looked at.

    Raises IntegrityError naming ``label`` if it is damaged; UnsupportedFormat if it is of another version.
    """
    if len(data) < _ENVELOPE.size:
        raise IntegrityError(f"{label}: cut short, it has no header")
    magic, length, checksum = _ENVELOPE.unpack_from(data)
    if magic != MAGIC:
        raise IntegrityError(f"{label}: it does not begin as a manifest does: overwritten, or no manifest at all")
    if length != HEADER_BYTES or length > len(data):
        raise IntegrityError(f"{label}: its header is damaged or cut short")
    body = data[_ENVELOPE.size : length]
    if digest_of(body) != checksum:
        raise IntegrityError(f"{label}: its header was changed")
    version, suite = _VERSION.unpack_from(body)
    if version != FORMAT_VERSION or suite not in tuple(Suite):
        raise UnsupportedFormat(
            f"{label}: format version {version}, suite {suite}: this program knows {FORMAT_VERSION}"
        )
    return _parse_body(body, Suite(suite), label)


def _parse_body(body: bytes, suite: Suite, label: str) -> ManifestHeader:
    """Everything behind version and suite."""
    fields = _FieldReader(body, _VERSION.size, label)
    salt = fields.take(SALT_BYTES)
    volume_id, backup_id, parent_id = fields.text(), fields.text(), fields.text()
    wrapped = None
    if suite is Suite.AES_256_GCM:
        wrapped = WrappedKey(fields.text(), fields.take(WRAP_SALT_BYTES), fields.take(WRAPPED_BYTES))
    return ManifestHeader(FORMAT_VERSION, backup_id, volume_id, parent_id or None, salt, wrapped)


class _FieldReader:
    """Takes one field after the other from a header."""

    def __init__(self, data: bytes, position: int, label: str) -> None:
        self._data = data
        self._position = position
        self._label = label

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        start, self._position = self._position, self._position + length
        if self._position > len(self._data):
            raise IntegrityError(f"{self._label}: its header is damaged")
        return self._data[start : self._position]

    def text(self) -> str:
        """The next string."""
        length = int.from_bytes(self.take(2), "little")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise IntegrityError(f"{self._label}: its header is damaged") from None
