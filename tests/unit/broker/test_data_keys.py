"""Data keys of backups: only for the volume of the operation, and only by keys that may seal."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.api.broker import DataKeyAnswer, UnwrapRequest
from cinderblock.broker import data_keys
from cinderblock.errors import AccessDenied, InvalidInput, KeyUnavailable, SealedTooLate, WrongKey
from cinderblock.format.crypto.keyring import DataKey, KeyRing, WrappedKey
from cinderblock.lifecycle.grant import Grant

WRITER, READER = Grant("b", "p/n/u", "volume-1", "backup-1"), Grant("b", "p/n/u", "volume-1")
OTHER = Grant("b", "p/n/u", "volume-2", "backup-2")
MARK = datetime(2026, 1, 1, tzinfo=UTC)
SECRETS = {"2025": os.urandom(32), "2026": os.urandom(32)}
RING = KeyRing(SECRETS, "2026")


def asked(answer: DataKeyAnswer, volume: str = "volume-1", backup: str = "backup-1", **more: object) -> UnwrapRequest:
    return UnwrapRequest.model_validate(
        {"volume_id": volume, "backup_id": backup, "wrapped": answer.wrapped.model_dump(), **more}
    )


def test_new_key_opens_again_for_readers_of_the_volume() -> None:
    made = data_keys.new_data_key(WRITER, RING)
    assert made.wrapped.key_id == "2026"
    assert data_keys.unwrap(asked(made), READER, RING) == made
    wrapped = WrappedKey("2026", base64.b64decode(made.wrapped.salt), base64.b64decode(made.wrapped.sealed))
    assert RING.unwrap(wrapped, ("volume-1", "backup-1")).reveal() == base64.b64decode(made.data_key)


def test_restore_gets_no_new_key() -> None:
    with pytest.raises(AccessDenied, match="makes no backup"):
        data_keys.new_data_key(READER, RING)


def test_store_without_keys_gives_none() -> None:
    with pytest.raises(AccessDenied, match="no encryption keys"):
        data_keys.new_data_key(WRITER, None)


def test_key_of_another_volume_stays_closed_whatever_is_claimed() -> None:
    foreign = data_keys.new_data_key(OTHER, RING)
    with pytest.raises(AccessDenied, match="another volume"):
        data_keys.unwrap(asked(foreign, "volume-2", "backup-2"), READER, RING)
    with pytest.raises(WrongKey):
        data_keys.unwrap(asked(foreign, "volume-1", "backup-2"), READER, RING)


def test_key_of_another_namespace_stays_closed_although_its_ids_fit() -> None:
    """Somebody who can write to the bucket copies a manifest into the place of a tenant, who imports it."""
    made, copied = data_keys.new_data_key(WRITER, RING), Grant("b", "p/other/x", "volume-1")
    with pytest.raises(AccessDenied, match="another namespace"):
        data_keys.unwrap(asked(made), copied, RING)


def test_another_salt_does_not_move_a_key_to_another_namespace() -> None:
    made, other = data_keys.new_data_key(WRITER, RING), Grant("b", "p/other/x", "volume-1")
    theirs = data_keys.new_data_key(Grant("b", "p/other/x", "volume-1", "backup-1"), RING)
    salt = base64.b64decode(theirs.wrapped.salt)[:20] + base64.b64decode(made.wrapped.salt)[20:]
    forged = made.wrapped.model_copy(update={"salt": base64.b64encode(salt).decode()})
    with pytest.raises(WrongKey):
        data_keys.unwrap(asked(made.model_copy(update={"wrapped": forged})), other, RING)


def test_key_that_no_broker_has_wrapped_opens_in_any_namespace() -> None:
    data_key = DataKey.random()
    old = RING.wrap(data_key, ("volume-1", "backup-1"))
    parts = {"salt": base64.b64encode(old.salt).decode(), "sealed": base64.b64encode(old.sealed).decode()}
    made = DataKeyAnswer.model_validate({"data_key": "", "wrapped": parts | {"key_id": old.key_id}})
    assert base64.b64decode(data_keys.unwrap(asked(made), READER, RING).data_key) == data_key.reveal()


def test_read_only_key_seals_nothing_and_opens_only_what_is_older() -> None:
    made = data_keys.new_data_key(WRITER, KeyRing(SECRETS, "2025"))
    marked = KeyRing(SECRETS, None, read_only={"2025": MARK, "2026": MARK})
    with pytest.raises(KeyUnavailable):
        data_keys.new_data_key(WRITER, marked)
    assert data_keys.unwrap(asked(made, created_at=MARK), READER, marked) == made
    with pytest.raises(SealedTooLate):
        data_keys.unwrap(asked(made, created_at=MARK + timedelta(seconds=1)), READER, marked)
    with pytest.raises(InvalidInput, match="time zone"):
        data_keys.unwrap(asked(made, created_at=datetime(2026, 1, 1)), READER, marked)  # noqa: DTZ001


def test_key_that_is_gone_has_a_name_in_the_message() -> None:
    made = data_keys.new_data_key(WRITER, RING)
    with pytest.raises(KeyUnavailable, match="'2026'"):
        data_keys.unwrap(asked(made), READER, KeyRing({"2025": SECRETS["2025"]}, "2025"))
