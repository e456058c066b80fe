"""Data keys of backups: the broker wraps and unwraps them, so that the keys of a store never leave it."""

from __future__ import annotations

import base64
import binascii

from cinderblock.api.broker import DataKeyAnswer, UnwrapRequest, WrappedKeyModel
from cinderblock.broker.faults import not_granted
from cinderblock.errors import InvalidInput
from cinderblock.format.crypto.keyring import DataKey, KeyRing, WrappedKey, scope_in, scope_of
from cinderblock.lifecycle.grant import Grant


def new_data_key(grant: Grant, keys: KeyRing | None) -> DataKeyAnswer:
    """Return a new data key for the backup that the mover makes, wrapped by the active key.

    Raises AccessDenied (NotGranted) for a mover that makes none, KeyUnavailable if all keys are read-only.
    """
    if grant.backup_id is None:
        raise not_granted("The operation makes no backup, so it needs no new data key.")
    data_key = DataKey.random()
    wrapped = _ring(keys).wrap(data_key, (grant.volume_id, grant.backup_id), scope=scope_of(grant.scope))
    return _answer(data_key, wrapped)


def unwrap(request: UnwrapRequest, grant: Grant, keys: KeyRing | None) -> DataKeyAnswer:
    """Return the data key of a backup of the operation's volume.

    The ids of volume and backup are a part of what the wrapping seals. So a mover that names its own volume, but shows
    the wrapped key of another one, gets WrongKey. The key is also bound to the place of its namespace: somebody who can
    write to the bucket could copy a manifest of another namespace, and let a tenant import it. Keys that no broker has
    wrapped are bound to no namespace, and are opened.

    Raises AccessDenied (NotGranted) for another volume or namespace, or another backup than a BackupGrant permits;
    SealedTooLate, KeyUnavailable, WrongKey and IntegrityError.
    """
    if not grant.permits_key_of(request.volume_id, request.backup_id):
        raise not_granted("The operation does not permit the data keys of another volume or backup.")
    ring = _ring(keys)
    wrapped = WrappedKey(request.wrapped.key_id, _decode(request.wrapped.salt), _decode(request.wrapped.sealed))
    owner = request.volume_id, request.backup_id
    if scope_in(wrapped) not in (b"", scope_of(grant.scope)):
        raise not_granted(f"The data key of backup {request.backup_id} is that of another namespace.")
    if request.created_at is not None:
        if request.created_at.tzinfo is None:
            raise InvalidInput("createdAt has no time zone.")
        ring.check_age(wrapped, owner, request.created_at, f"backup {request.backup_id}")
    return _answer(ring.unwrap(wrapped, owner), wrapped)


def _ring(keys: KeyRing | None) -> KeyRing:
    if keys is None:
        raise not_granted("The store has no encryption keys.")
    return keys


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("The wrapped key is not base64.") from None


def _answer(data_key: DataKey, wrapped: WrappedKey) -> DataKeyAnswer:
    return DataKeyAnswer(
        data_key=_encode(data_key.reveal()),
        wrapped=WrappedKeyModel(key_id=wrapped.key_id, salt=_encode(wrapped.salt), sealed=_encode(wrapped.sealed)),
    )


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
