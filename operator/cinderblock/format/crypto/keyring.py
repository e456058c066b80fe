"""The key ring of a store's encryption Secret, and the data keys that it wraps."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, SealedTooLate, WrongKey
from cinderblock.format.crypto.sealer import KEY_BYTES, TAG_BYTES, FrameKind, Sealer, derive_key, identity
from cinderblock.reasons import Reason

WRAP_SALT_BYTES = 32
WRAPPED_BYTES = KEY_BYTES + TAG_BYTES
_BOUND: Final = b"cbscope1"
"""Beginning of a salt that binds a wrapped key to a scope. A random one begins like that once in 2 ** 64 wrappings."""
_SCOPE_BYTES: Final = 12
NO_MARKS: Final[Mapping[str, datetime]] = MappingProxyType({})
"""Marks of a key ring without read-only keys."""


class WrappedKey(NamedTuple):
    """A data key as stored in a plain header. Nothing in it is secret.

    Attributes:
        key_id: the key of the ring that wraps it.
        salt: 32 bytes, drawn for this wrapping; see `scope_of`.
        sealed: the data key, sealed; 48 bytes.
    """

    key_id: str
    salt: bytes
    sealed: bytes


class DataKey:
    """The random key of one backup. Neither its repr nor any message shows it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise IntegrityError(f"a data key must have {KEY_BYTES} bytes, this one has {len(secret)}")
        self._secret = secret

    @classmethod
    def random(cls) -> DataKey:
        """Create a key from the kernel's random source."""
        return cls(os.urandom(KEY_BYTES))

    def sealer(self, object_identity: bytes, label: str) -> Sealer:
        """Return the sealer of the object with this identity."""
        return Sealer(derive_key(self._secret, object_identity), object_identity, label)

    def reveal(self) -> bytes:
        """Return the secret itself. Use it only to wrap it or to store it inside a sealed frame."""
        return self._secret


def object_sealer(data_key: DataKey | None, object_identity: bytes, label: str) -> Sealer:
    """Return the sealer of an object; without a data key it leaves frames plain."""
    if data_key is None:
        return Sealer(None, object_identity, label)
    return data_key.sealer(object_identity, label)


def check_lengths(wrapped: WrappedKey, owner: tuple[str, str]) -> None:
    """Raise IntegrityError if a wrapped key of the backup ``owner`` has a wrong length."""
    if len(wrapped.sealed) != WRAPPED_BYTES or len(wrapped.salt) != WRAP_SALT_BYTES:
        raise IntegrityError(f"the wrapped key of backup {owner[1]} has a wrong length")


def scope_of(name: str) -> bytes:
    """Return what binds a wrapped key to a scope, such as the UID of a namespace: the first bytes of its salt.

    The wrapping key is derived from the whole salt, so nobody can change these bytes without the key of the Secret.
    Readers who have that key need not know any scope. A broker opens for others only what its own scope has.
    """
    return _BOUND + sha256(name.encode()).digest()[:_SCOPE_BYTES]


def scope_in(wrapped: WrappedKey) -> bytes:
    """Return what binds a wrapped key to a scope; empty if it is bound to none."""
    return wrapped.salt[: len(_BOUND) + _SCOPE_BYTES] if wrapped.salt.startswith(_BOUND) else b""


class KeyRing:
    """The keys of a store's encryption Secret, by key id. Neither its repr nor any message shows them.

    A key of the ring wraps a data key under a derived key with 256 random bits, or 96 with a scope, for one backup. So
    the number of wrappings is unlimited, and each derived key seals exactly one message.

    A read-only key opens what it has sealed, but wraps nothing more. Somebody else may know it, so it must not open
    anything newer than its mark.
    """

    __slots__ = ("_active", "_keys", "_label", "_read_only")

    def __init__(
        self,
        keys: Mapping[str, bytes],
        active: str | None,
        label: str = "the encryption Secret",
        read_only: Mapping[str, datetime] = NO_MARKS,
    ) -> None:
        self._keys = dict(keys)
        self._active = active
        self._label = label
        self._read_only = dict(read_only)

    @classmethod
    def from_secret(
        cls,
        data: Mapping[str, bytes],
        active: str | None,
        label: str = "the encryption Secret",
        read_only: Mapping[str, datetime] = NO_MARKS,
    ) -> KeyRing:
        """Read the data of an encryption Secret: each name is a key id, each value 32 bytes in base64.

        Args:
            data: the Secret's data as bytes, as the kubelet writes them into the files of a mounted Secret.
            active: key id that wraps new data keys; None selects the greatest in order of bytes that is not read-only.
            label: name of the place of the keys in messages.
            read_only: ids of the read-only keys, with the times of their marks.

        Raises InvalidInput if there is no key, or naming a key id that is malformed, or marked but missing;
        KeyUnavailable if ``active`` is missing or read-only. No message contains a value.
        """
        keys = {key_id: _decode_key(key_id, value, label) for key_id, value in data.items()}
        if not keys:
            raise InvalidInput(f"{label} is empty: add at least one key of 32 bytes in base64")
        unknown = sorted(read_only.keys() - keys.keys())
        if unknown:
            raise InvalidInput(
                f"Cannot use {label}: key id {unknown[0]!r} is marked as read-only, but is missing. Correct the entry,"
                " or remove it."
            )
        writing = keys.keys() - read_only.keys()
        chosen = active if active is not None else max(writing, key=str.encode, default=None)
        if chosen is not None and chosen not in keys:
            raise KeyUnavailable(f"key id {chosen!r} should seal new backups, but {label} does not hold it")
        if chosen in read_only:
            raise _read_only_key(
                f"key id {chosen!r} should seal new backups, but {label} marks it as read-only. Name another one."
            )
        return cls(keys, chosen, label, read_only)

    @property
    def active(self) -> str:
        """Key id that wraps new data keys. Raises KeyUnavailable if all are read-only."""
        if self._active is None:
            raise _read_only_key(f"all keys of {self._label} are marked as read-only. Add a new one.")
        return self._active

    @property
    def has_read_only_keys(self) -> bool:
        """Whether the ring has read-only keys."""
        return bool(self._read_only)

    @property
    def key_ids(self) -> Iterable[str]:
        """All key ids."""
        return self._keys.keys()

    def new_data_key(self) -> DataKey:
        """Return a new data key from the kernel's random source."""
        return DataKey.random()

    def wrap(
        self, data_key: DataKey, owner: tuple[str, str], key_id: str | None = None, *, scope: bytes = b""
    ) -> WrappedKey:
        """Wrap a data key for the backup ``owner`` (volume id, backup id), by default with the active key.

        Args:
            data_key: the data key.
            owner: the backup.
            key_id: the key that wraps it; None: the active one.
            scope: what `scope_of` returns, or the same of an earlier wrapping of this key (`scope_in`); empty: it is
                bound to no scope.

        Raises KeyUnavailable if the key is missing or read-only.
        """
        chosen = key_id if key_id is not None else self.active
        if chosen in self._read_only:
            raise _read_only_key(f"{self._label} marks key id {chosen!r} as read-only. Name another one.")
        salt = scope + os.urandom(WRAP_SALT_BYTES - len(scope))
        sealed = self._sealer(chosen, salt, owner).seal(FrameKind.KEY, 0, data_key.reveal())
        return WrappedKey(chosen, salt, sealed)

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str]) -> DataKey:
        """Open a wrapped data key. Raises KeyUnavailable, WrongKey; IntegrityError for an impossible length."""
        check_lengths(wrapped, owner)
        sealer = self._sealer(wrapped.key_id, wrapped.salt, owner)
        try:
            return DataKey(bytes(sealer.open(FrameKind.KEY, 0, wrapped.sealed)))
        except IntegrityError:
            error = WrongKey(
                f"the key with id {wrapped.key_id!r} does not open backup {owner[1]}: another key sealed the backup, or"
                " the header of its manifest was changed"
            )
            error.key_id = wrapped.key_id
            raise error from None

    def check_age(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime, label: str) -> None:
        """Check that a read-only key has not sealed a backup after its mark; see `Keys`. Raises SealedTooLate."""
        del owner
        key_id = wrapped.key_id
        mark = self._read_only.get(key_id)
        if mark is not None and created_at > mark:
            raise SealedTooLate(
                f"{label} is the manifest of a backup of {_format_instant(created_at)} and is sealed with key id"
                f" {key_id!r}, which {self._label} marks as read-only since {_format_instant(mark)}. Do not trust it:"
                " somebody else may have that key."
            )

    def _sealer(self, key_id: str, salt: bytes, owner: tuple[str, str]) -> Sealer:
        if key_id not in self._keys:
            raise KeyUnavailable(
                f"backup {owner[1]} is sealed with key id {key_id!r}, but {self._label} does not hold it"
            )
        context = identity("key", *owner, key_id)
        return Sealer(derive_key(self._keys[key_id], context + salt), context, f"the wrapped key of backup {owner[1]}")


def _format_instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read_only_key(cause: str) -> KeyUnavailable:
    return KeyUnavailable(f"Cannot seal a backup: {cause}", reason=Reason.READ_ONLY_KEY)


def _decode_key(key_id: str, value: bytes, label: str) -> bytes:
    """Decode a value of the Secret into the 32 bytes of a key."""
    try:
        key = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"key id {key_id!r} of {label} is not base64: give 32 bytes in base64") from None
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"key id {key_id!r} of {label} has {len(key)} bytes: give {KEY_BYTES} in base64")
    return key
