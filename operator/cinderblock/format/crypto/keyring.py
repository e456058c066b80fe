"""Keys: the key ring of a store's encryption Secret, data keys, and how the first wrap the second."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, SealedTooLate
from cinderblock.format.crypto.sealer import KEY_BYTES, TAG_BYTES, FrameKind, Sealer, derive_key, identity
from cinderblock.reasons import Reason

WRAP_SALT_BYTES = 32
WRAPPED_BYTES = KEY_BYTES + TAG_BYTES
NO_MARKS: Final[Mapping[str, datetime]] = MappingProxyType({})
"""No key is read-only."""


class WrappedKey(NamedTuple):
    """A data key as it is stored in a plain header. Nothing in it is secret.

    Attributes:
        key_id: which key of the ring wraps it.
        salt: 32 random bytes, drawn for this wrapping.
        sealed: the data key, sealed; 48 bytes.
    """

    key_id: str
    salt: bytes
    sealed: bytes


class DataKey:
    """The random key of one backup. Neither its repr nor a message shows it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise IntegrityError(f"a data key has {KEY_BYTES} bytes, this one has {len(secret)}")
        self._secret = secret

    @classmethod
    def random(cls) -> DataKey:
        """A new key from the kernel's random source."""
        return cls(os.urandom(KEY_BYTES))

    def sealer(self, object_identity: bytes, label: str) -> Sealer:
        """What seals the frames of the object with this identity."""
        return Sealer(derive_key(self._secret, object_identity), object_identity, label)

    def reveal(self) -> bytes:
        """The secret itself, to be wrapped or to be kept inside a sealed frame, and for nothing else."""
        return self._secret


def object_sealer(data_key: DataKey | None, object_identity: bytes, label: str) -> Sealer:
    """What seals an object's frames; without a data key it leaves them plain."""
    if data_key is None:
        return Sealer(None, object_identity, label)
    return data_key.sealer(object_identity, label)


class KeyRing:
    """The keys of a store's encryption Secret, by key id. Neither its repr nor a message shows them.

    A key of the ring wraps a data key under a key of its own, derived with 256 random bits, so that the number of
    wrappings has no bound and each derived key seals exactly one message.

    A read-only key opens what it has sealed, and wraps nothing more. Somebody else may know it, so what it opens must
    not be newer than its mark.
    """

    __slots__ = ("_active", "_holder", "_keys", "_read_only")

    def __init__(
        self,
        keys: Mapping[str, bytes],
        active: str | None,
        holder: str = "the encryption Secret",
        read_only: Mapping[str, datetime] = NO_MARKS,
    ) -> None:
        self._keys = dict(keys)
        self._active = active
        self._holder = holder
        self._read_only = dict(read_only)

    @classmethod
    def from_secret(
        cls,
        data: Mapping[str, bytes],
        active: str | None,
        holder: str = "the encryption Secret",
        read_only: Mapping[str, datetime] = NO_MARKS,
    ) -> KeyRing:
        """Read the data of an encryption Secret: each name is a key id, each value 32 bytes in base64.

        Args:
            data: the Secret's data as bytes (what the kubelet writes into the files of a mounted Secret).
            active: key id that wraps new data keys; None: the greatest in order of bytes that is not read-only.
            holder: what messages call the place of the keys.
            read_only: key ids that wrap nothing more, with the times of their marks.

        Raises InvalidInput, which names a key id that is malformed, or marked and missing, or if there is no key;
        KeyUnavailable if ``active`` is not among them or is read-only. No message holds a value.
        """
        keys = {key_id: _decode(key_id, value, holder) for key_id, value in data.items()}
        if not keys:
            raise InvalidInput(f"{holder} is empty: give it at least one key of 32 bytes in base64")
        unknown = sorted(read_only.keys() - keys.keys())
        if unknown:
            raise InvalidInput(
                f"Cannot use {holder}: key id {unknown[0]!r} is marked as read-only, but is not there. Correct the"
                " mark, or remove it."
            )
        writing = keys.keys() - read_only.keys()
        chosen = active if active is not None else max(writing, key=str.encode, default=None)
        if chosen is not None and chosen not in keys:
            raise KeyUnavailable(f"key id {chosen!r} is to seal new backups, and {holder} does not hold it")
        if chosen in read_only:
            raise _read_only_key(
                f"key id {chosen!r} is to seal new backups, but {holder} marks it as read-only. Name another one."
            )
        return cls(keys, chosen, holder, read_only)

    @property
    def active(self) -> str:
        """Key id that wraps new data keys. Raises KeyUnavailable if all are read-only."""
        if self._active is None:
            raise _read_only_key(f"all keys of {self._holder} are marked as read-only. Add a new one.")
        return self._active

    @property
    def has_marks(self) -> bool:
        """Whether any key is read-only."""
        return bool(self._read_only)

    @property
    def key_ids(self) -> Iterable[str]:
        """All key ids."""
        return self._keys.keys()

    def wrap(self, data_key: DataKey, owner: tuple[str, str], key_id: str | None = None) -> WrappedKey:
        """Wrap a data key for the backup ``owner`` (volume id, backup id) with a key id, by default the active one.

        Raises KeyUnavailable if the key is not there or is read-only.
        """
        chosen = key_id if key_id is not None else self.active
        if chosen in self._read_only:
            raise _read_only_key(f"{self._holder} marks key id {chosen!r} as read-only. Name another one.")
        salt = os.urandom(WRAP_SALT_BYTES)
        sealed = self._sealer(chosen, salt, owner).seal(FrameKind.KEY, 0, data_key.reveal())
        return WrappedKey(chosen, salt, sealed)

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str]) -> DataKey:
        """Open a wrapped data key. Raises KeyUnavailable; IntegrityError if it does not open."""
        if len(wrapped.sealed) != WRAPPED_BYTES or len(wrapped.salt) != WRAP_SALT_BYTES:
            raise IntegrityError(f"the wrapped key of backup {owner[1]} has a wrong length")
        sealer = self._sealer(wrapped.key_id, wrapped.salt, owner)
        try:
            return DataKey(bytes(sealer.open(FrameKind.KEY, 0, wrapped.sealed)))
        except IntegrityError:
            raise IntegrityError(
                f"the key with id {wrapped.key_id!r} does not open backup {owner[1]}: it is not the key that "
                "sealed it, or the header of its manifest was changed"
            ) from None

    def check_age(self, key_id: str, created_at: datetime, label: str) -> None:
        """Make sure that a key may have sealed a backup of this age.

        Args:
            key_id: the key that wraps the data key of the backup.
            created_at: when the backup was asked for, with time zone.
            label: what the manifest is called in messages.

        Raises SealedTooLate.
        """
        mark = self._read_only.get(key_id)
        if mark is not None and created_at > mark:
            raise SealedTooLate(
                f"{label} is the manifest of a backup of {_moment(created_at)} and is sealed with key id {key_id!r},"
                f" which {self._holder} marks as read-only since {_moment(mark)}. Do not trust it: somebody else may"
                " have that key."
            )

    def _sealer(self, key_id: str, salt: bytes, owner: tuple[str, str]) -> Sealer:
        if key_id not in self._keys:
            raise KeyUnavailable(
                f"backup {owner[1]} is sealed with key id {key_id!r}, and {self._holder} does not hold it"
            )
        context = identity("key", *owner, key_id)
        return Sealer(derive_key(self._keys[key_id], context + salt), context, f"the wrapped key of backup {owner[1]}")


def _moment(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read_only_key(cause: str) -> KeyUnavailable:
    return KeyUnavailable(f"Cannot seal a backup: {cause}", reason=Reason.READ_ONLY_KEY)


def _decode(key_id: str, value: bytes, holder: str) -> bytes:
    """A value of the Secret as the 32 bytes of a key."""
    try:
        key = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"key id {key_id!r} of {holder} is not base64: give 32 bytes in base64") from None
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"key id {key_id!r} of {holder} has {len(key)} bytes: give {KEY_BYTES} in base64")
    return key
