"""Which backups of a store a copy of the keys opens."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.errors import IntegrityError, KeyUnavailable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, new_header
from cinderblock.repository import key_check
from cinderblock.repository.key_check import FURTHER_IDS, check_keys, newest_of_volumes
from cinderblock.repository.objects import BackupRef, list_manifests
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore

OLD, YOUNG = os.urandom(32), os.urandom(32)
START = datetime(2026, 5, 4, tzinfo=UTC)


def ring(**keys: bytes) -> KeyRing:
    return KeyRing(keys, max(keys))


def store_header(store: MemoryStore, volume: str, backup: str, keys: KeyRing | None) -> str:
    """Store the header of a manifest: nothing else of it is read."""
    data_key = keys.new_data_key() if keys is not None else None
    key = f"backups/{volume}/{backup}.manifest"
    store.put(key, new_header(volume, backup, None, data_key, keys).encode())
    return key


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    store_header(made, "v1", "b1", ring(old=OLD))
    store_header(made, "v1", "b2", ring(old=OLD, young=YOUNG))
    store_header(made, "v2", "b3", ring(young=YOUNG))
    store_header(made, "v3", "b4", None)
    return made


def test_right_keys_open_everything(store: MemoryStore) -> None:
    result = check_keys(store, ring(old=OLD, young=YOUNG), list_manifests(store, ""))
    assert {key_id: use.opened for key_id, use in result.keys.items()} == {"old": 1, "young": 2}
    assert (result.checked, result.encrypted, result.unencrypted, result.unreadable) == (4, 3, 1, 0)
    assert not result.failures
    assert not result.worst


def test_missing_key_is_told_from_a_wrong_one(store: MemoryStore) -> None:
    result = check_keys(store, ring(young=OLD), list_manifests(store, ""))
    assert result.keys["old"].failed == {"KeyUnavailable": 1}
    assert result.keys["young"].failed == {"IntegrityError": 2}
    assert result.encrypted == 3
    assert {failure.backup.backup_id: failure.key_id for failure in result.failures} == {
        "b1": "old",
        "b2": "young",
        "b3": "young",
    }
    assert any(issubclass(kind, IntegrityError) for kind in result.worst)
    assert KeyUnavailable in result.worst


def test_damaged_header_does_not_hide_the_others(store: MemoryStore) -> None:
    content = bytearray(store.get("backups/v1/b1.manifest"))
    content[100] ^= 1
    store.put("backups/v1/b1.manifest", content)
    result = check_keys(store, ring(old=OLD, young=YOUNG), list_manifests(store, ""))
    assert (result.unreadable, result.keys["young"].opened) == (1, 2)
    assert result.failures[0].key_id is None


def test_manifest_of_another_backup_is_not_opened(store: MemoryStore) -> None:
    store.put("backups/v2/b9.manifest", store.get("backups/v2/b3.manifest"))
    result = check_keys(store, ring(old=OLD, young=YOUNG), list_manifests(store, ""))
    assert [failure.error.reason for failure in result.failures] == ["ForeignManifest"]


def test_given_key_that_opens_nothing_is_listed(store: MemoryStore) -> None:
    result = check_keys(store, ring(old=OLD, young=YOUNG, spare=os.urandom(32)), list_manifests(store, ""))
    assert result.keys["spare"].opened == 0


def test_one_request_reads_one_header(store: MemoryStore) -> None:
    counted = CountedStore(store)
    check_keys(counted, ring(old=OLD, young=YOUNG), list(list_manifests(store, "")))
    assert (counted.counts.gets, counted.counts.bytes_got) == (4, 4 * HEADER_BYTES)


def test_vanished_backup_is_left_out(store: MemoryStore) -> None:
    gone = BackupRef("backups/v9/b9.manifest", "v9", "b9")
    result = check_keys(store, ring(old=OLD, young=YOUNG), [gone])
    assert result.checked == 0


def test_many_forged_key_ids_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_check, "MAX_KEY_IDS", 3)
    store = MemoryStore()
    for number in range(40):
        store_header(store, "v", f"b{number}", ring(**{f"forged-{number}": OLD}))
    result = check_keys(store, ring(mine=YOUNG), list_manifests(store, ""))
    assert len(result.keys) == 4
    assert result.keys[FURTHER_IDS].failed.total() == 38
    assert len(result.failures) == key_check.NAMED_FAILURES


def test_no_message_and_no_repr_shows_a_key(store: MemoryStore) -> None:
    keys = ring(young=OLD)
    shown = repr(check_keys(store, keys, list_manifests(store, ""))) + repr(keys)
    assert OLD.hex() not in shown
    assert repr(OLD)[2:-1] not in shown


def test_newest_backup_of_a_volume_is_the_one_written_last() -> None:
    backups = [
        BackupRef("k1", "v1", "b1", 1, START + timedelta(days=2)),
        BackupRef("k2", "v1", "b2", 1, START),
        BackupRef("k3", "v2", "b3", 1, START),
        BackupRef("k4", "v3", "b4"),
        BackupRef("k5", "v3", "b5"),
    ]
    assert [backup.backup_id for backup in newest_of_volumes(backups)] == ["b1", "b3", "b5"]
    assert list(newest_of_volumes([])) == []
