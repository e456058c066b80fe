"""Deletions of backups with locked objects: all or nothing, as far as the server shows its locks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    ObjectLocked,
    ObjectNotFound,
    PermanentError,
    StoreUnreachable,
    TransientError,
)
from cinderblock.repository import object_locks
from cinderblock.store.s3.store import S3Store
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.parent_chains import ParentChain
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.aws.server import BARE, CREDENTIALS, aws_stub
from tests.support.store.faults import Crash, FaultyStore, Operation

SOON = timedelta(days=3)


class Clock:
    """The clock of the server."""

    def __init__(self) -> None:
        self.passed = timedelta()
        self.began = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.began + self.passed


class Locked:
    """A backup in a bucket that has Object Lock without versions, so that it refuses to delete locked objects."""

    def __init__(self, **bucket: object) -> None:
        self.clock = Clock()
        self.bucket = Bucket(self.clock, has_lock=True)
        for name, value in bucket.items():
            setattr(self.bucket, name, value)
        self.store = BucketStore(self.bucket)
        self.line = ParentChain(Backups(self.store, key_ring()))
        self.line.add("full", None)
        self.manifest = self.line.key("full")
        self.packs = sorted(key for key in self.bucket.versions if "/packs/" in key)
        assert self.packs

    def lock(self, key: str, period: timedelta | None = SOON, mode: str = "COMPLIANCE") -> None:
        version = self.bucket.current(key)
        assert version is not None
        version.legal_hold = period is None
        version.mode, version.until = (mode, self.clock() + period) if period is not None else ("", None)

    def stored(self) -> list[str]:
        return [found.key for found in self.store.list("")]

    def delete(self) -> int:
        return self.line.remove("full", now=self.clock())

    def refused(self) -> ObjectLocked:
        with pytest.raises(ObjectLocked) as raised:
            self.delete()
        return raised.value


def is_whole(locked: Locked) -> bool:
    return locked.line.read_back("full") == locked.line.held["full"]


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
@pytest.mark.parametrize("what", ["manifest", "pack"])
def test_locked_object_keeps_the_whole_backup_until_its_date(what: str, mode: str) -> None:
    locked = Locked()
    key = locked.manifest if what == "manifest" else locked.packs[-1]
    locked.lock(key, mode=mode)
    before = locked.stored()
    error = locked.refused()
    assert error.until == locked.clock() + SOON
    assert (
        error.message
        == f"Object Lock keeps {key} in the store until {error.until:%Y-%m-%dT%H:%M:%SZ}. Nothing was deleted."
    )
    assert locked.stored() == before
    assert is_whole(locked)
    locked.clock.passed = SOON + timedelta(seconds=1)
    assert locked.delete() == len(before)
    assert locked.stored() == []


@pytest.mark.parametrize("what", ["manifest", "pack"])
def test_legal_hold_has_no_date_and_keeps_the_whole_backup(what: str) -> None:
    locked = Locked()
    key = locked.manifest if what == "manifest" else locked.packs[0]
    locked.lock(key, None)
    error = locked.refused()
    assert error.until is None
    assert error.message == (
        f"The store keeps {key} under a legal hold. Lift it so that the deletion can continue. Nothing was deleted."
    )
    assert is_whole(locked)
    locked.bucket.versions[key][-1].legal_hold = False
    locked.delete()
    assert locked.stored() == []


def test_invisible_lock_of_the_manifest_keeps_the_whole_backup() -> None:
    locked = Locked()
    locked.store.kept.shows_locks = False
    locked.lock(locked.manifest)
    error = locked.refused()
    assert error.until is None
    assert error.message.endswith("Nothing was deleted.")
    assert is_whole(locked)


def test_invisible_lock_of_a_pack_is_told_truly() -> None:
    """Nothing can show such a lock before the server refuses, and packs never go before their manifest."""
    locked = Locked()
    locked.store.kept.shows_locks = False
    locked.lock(locked.packs[0])
    error = locked.refused()
    assert "cannot be restored" in error.message
    assert locked.stored() == locked.packs[:1]
    locked.refused()
    locked.bucket.versions[locked.packs[0]][-1].until = None
    assert locked.delete() == 1
    assert locked.stored() == []


def test_pack_locked_after_the_manifest_has_gone_is_told_with_its_date() -> None:
    locked = Locked()
    faulty = FaultyStore(locked.store)
    faulty.on("delete", "/packs/").crashes()
    with pytest.raises(Crash):
        locked.line.remove("full", faulty)
    assert locked.manifest not in locked.stored()
    locked.lock(locked.packs[0])
    error = locked.refused()
    assert error.until == locked.clock() + SOON
    assert "has no manifest, and cannot be restored" in error.message
    locked.bucket.versions[locked.packs[0]][-1].until = None
    locked.delete()
    assert locked.stored() == []


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", ["get", "list", "delete"])
@pytest.mark.parametrize("what", ["manifest", "pack"])
def test_death_at_any_request_leaves_a_locked_backup_whole(what: str, operation: Operation, done: bool) -> None:
    deaths = 0
    while True:
        locked = Locked()
        locked.lock(locked.manifest if what == "manifest" else locked.packs[-1])
        faulty = FaultyStore(locked.store)
        faulty.on(operation).crashes(done=done).after(deaths)
        try:
            locked.line.remove("full", faulty)
        except Crash:
            deaths += 1
        except ObjectLocked:
            break
        assert is_whole(locked)
        locked.refused()
        assert is_whole(locked)
    assert deaths >= 1 or operation == "delete"


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", ["get", "list", "delete"])
def test_death_at_any_request_after_the_date_is_repeated(operation: Operation, done: bool) -> None:
    deaths = 0
    while True:
        locked = Locked()
        for key in (locked.manifest, *locked.packs):
            locked.lock(key, timedelta(seconds=-1))
        faulty = FaultyStore(locked.store)
        faulty.on(operation).crashes(done=done).after(deaths)
        try:
            locked.line.remove("full", faulty)
        except Crash:
            deaths += 1
        else:
            break
        assert locked.manifest not in locked.stored() or is_whole(locked)
        locked.delete()
        assert locked.stored() == []
    assert deaths >= 1


def test_lock_of_an_ancestor_does_not_hold_up_a_child() -> None:
    locked = Locked()
    locked.line.add("child", "full")
    for key in (locked.manifest, *locked.packs):
        locked.lock(key)
    locked.line.remove("child")
    assert sorted(locked.stored()) == sorted([locked.manifest, *locked.packs])
    assert is_whole(locked)


def test_container_with_versions_hides_locked_objects() -> None:
    locked = Locked(versioning="Enabled", default=("COMPLIANCE", SOON))
    before = locked.stored()
    assert locked.delete() == len(before)
    assert locked.stored() == []
    assert set(before) <= set(locked.store.retention.versions("", 100).keys)


@pytest.mark.parametrize(
    "error", [AccessDenied("no"), PermanentError("unknown", reason="NotSupported")], ids=["denied", "unknown"]
)
def test_server_that_tells_no_rule_still_deletes(error: PermanentError) -> None:
    locked = Locked()
    locked.store.kept.errors["object_lock"] = error
    locked.delete()
    assert locked.stored() == []


@pytest.mark.parametrize("method", ["inspect", "object_lock"])
def test_silent_server_deletes_nothing(method: str) -> None:
    locked = Locked()
    locked.lock(locked.packs[0])
    locked.store.kept.errors[method] = StoreUnreachable("no answer")
    with pytest.raises(StoreUnreachable):
        locked.delete()
    assert is_whole(locked)


def test_silence_about_versioning_deletes_nothing() -> None:
    locked = Locked(versioning="Enabled")
    locked.store.kept.errors["versioning"] = StoreUnreachable("no answer")
    with pytest.raises(StoreUnreachable):
        locked.delete()
    assert is_whole(locked)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (501, "NotImplemented"),
        *((status, BARE) for status in (400, 403, 404, 405, 408, 425, 429, 500, 501, 502, 503, 504)),
    ],
)
def test_backup_with_a_locked_pack_stays_whole_whatever_the_bucket_tells(status: int, code: str) -> None:
    """The lock of the pack itself can be seen."""
    with aws_stub(keeps_versions=False) as stub:
        bucket = stub.add_bucket("b", lock=True)
        with closing(S3Store(stub.location("b"), CREDENTIALS)) as store:
            line = ParentChain(Backups(store))
            line.add("full", None)
            pack = next(versions[-1] for key, versions in bucket.versions.items() if "/packs/" in key)
            pack.mode, pack.until = "COMPLIANCE", datetime.now(UTC) + SOON
            stub.refuse("GetObjectLockConfiguration", status=status, code=code)
            with pytest.raises(ObjectLocked if status in {400, 403, 404, 405, 501} else StoreUnreachable):
                line.remove("full")
            assert line.read_back("full") == line.held["full"]


@pytest.mark.parametrize("knows_versioning", [True, False])
@pytest.mark.parametrize("what", ["manifest", "pack"])
def test_suspended_versioning_hides_no_null_version(what: str, knows_versioning: bool) -> None:
    locked = Locked()
    locked.bucket.versioning = "Suspended"
    if not knows_versioning:
        locked.store.kept.errors["versioning"] = AccessDenied("no")
    locked.lock(locked.manifest if what == "manifest" else locked.packs[0])
    assert "Nothing was deleted" in locked.refused().message
    assert is_whole(locked)


def test_packs_from_before_versioning_are_checked_when_it_is_suspended() -> None:
    """The manifest alone is a version: versioning was on only when the backup ended."""
    locked = Locked()
    locked.bucket.versions[locked.manifest][-1].id = "v1"
    locked.bucket.versioning = "Suspended"
    locked.lock(locked.packs[0])
    locked.refused()
    assert is_whole(locked)


def test_versioning_that_was_switched_on_later_hides_locked_objects() -> None:
    locked = Locked()
    locked.bucket.versioning = "Enabled"
    locked.lock(locked.packs[0])
    before = locked.stored()
    assert locked.delete() == len(before)
    assert set(before) <= set(locked.store.retention.versions("", 100).keys)


def test_packs_to_look_at_are_few_without_the_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_locks, "_BATCH_OBJECTS", 2)
    monkeypatch.setattr(object_locks, "CHECKED_PACKS_UNSURE", 4)
    locked = Locked()
    locked.store.kept.errors["object_lock"] = AccessDenied("no")
    keys = [f"pack-{number}" for number in range(6)]
    for key in keys:
        locked.bucket.put(key, b"x")
    locked.lock(keys[5])
    object_locks.check_locks(locked.store, locked.manifest, keys, locked.clock())
    locked.lock(locked.manifest, timedelta(seconds=-1))
    with pytest.raises(ObjectLocked):
        object_locks.check_locks(locked.store, locked.manifest, keys, locked.clock())


def test_lock_whose_end_cannot_be_read_keeps_the_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = Locked()
    inspect = locked.store.kept.inspect
    monkeypatch.setattr(
        locked.store.kept, "inspect", lambda key, /: replace(inspect(key), has_unknown_end=key == locked.packs[0])
    )
    error = locked.refused()
    assert error.until is None
    assert "until a date that cannot be read. Nothing was deleted" in error.message
    assert is_whole(locked)


class Liar(BucketStore):
    """A store that confirms every deletion, and keeps some objects."""

    def __init__(self, bucket: Bucket, kept: str) -> None:
        super().__init__(bucket)
        self.kept_keys = kept

    @override
    def delete(self, keys: Iterable[str]) -> None:
        super().delete([key for key in keys if self.kept_keys not in key])


@pytest.mark.parametrize("kept", [".manifest", "/packs/"])
def test_deletion_that_changes_nothing_is_an_error(kept: str) -> None:
    locked = Locked(has_lock=False)
    before = locked.stored()
    with pytest.raises(TransientError, match="confirms its deletion, and still has it") as raised:
        locked.line.remove("full", Liar(locked.bucket, kept))
    assert kept in raised.value.message
    if kept == ".manifest":
        # Packs never go before their manifest.
        assert locked.stored() == before
    locked.delete()
    assert locked.stored() == []


@pytest.mark.parametrize("error", [AccessDenied("no"), StoreUnreachable("away"), PermanentError("no")])
def test_every_error_after_the_manifest_says_so(error: CinderblockError) -> None:
    for text, is_partly_done in ((".manifest", False), ("/packs/", True)):
        locked = Locked(has_lock=False)
        faulty = FaultyStore(locked.store)
        faulty.on("delete", text).raises(error)
        with pytest.raises(type(error)) as raised:
            locked.line.remove("full", faulty)
        assert raised.value.is_partly_done == is_partly_done


def test_packs_are_not_looked_at_without_object_lock() -> None:
    locked = Locked(has_lock=False)
    looked: list[str] = []
    inspect = locked.store.kept.inspect
    locked.store.kept.inspect = lambda key, /: looked.append(key) or inspect(key)  # type: ignore[method-assign,func-returns-value]
    locked.delete()
    assert looked == [locked.manifest]


def test_looks_end_with_the_batch_of_the_first_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_locks, "_BATCH_OBJECTS", 2)
    locked = Locked()
    looked: list[str] = []
    keys = [f"pack-{number}" for number in range(10)]
    for key in keys:
        locked.bucket.put(key, b"x")
    locked.lock(keys[0])
    inspect = locked.store.kept.inspect
    locked.store.kept.inspect = lambda key, /: looked.append(key) or inspect(key)  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(ObjectLocked):
        object_locks.check_locks(locked.store, locked.manifest, keys, locked.clock())
    assert {locked.manifest, keys[0]} <= set(looked) <= {locked.manifest, *keys[:2]}


@pytest.mark.parametrize("keeps_versions", [False, True], ids=["refused", "hidden"])
def test_no_request_bypasses_a_lock_or_names_a_version(keeps_versions: bool) -> None:
    with aws_stub(keeps_versions=keeps_versions) as stub:
        bucket = stub.add_bucket("b", lock=True, default=("GOVERNANCE", SOON))
        with closing(S3Store(stub.location("b"), CREDENTIALS)) as store:
            line = ParentChain(Backups(store))
            line.add("full", None)
            stub.requests.clear()
            if keeps_versions:
                assert line.remove("full") > 1
            else:
                with pytest.raises(ObjectLocked) as raised:
                    line.remove("full")
                assert raised.value.until is not None
                assert line.read_back("full") == line.held["full"]
            with pytest.raises(ObjectNotFound):
                store.get("absent")
        kept = [version for versions in bucket.versions.values() for version in versions if not version.is_marker]
        assert len(kept) >= 2
    for request in stub.requests:
        assert "x-amz-bypass-governance-retention" not in request.headers
        assert b"VersionId" not in request.body
        assert "versionId" not in request.query


def test_sealed_backup_succeeds_although_its_data_key_is_locked() -> None:
    """The wrapped data key of an unfinished backup is deleted before the manifest is written."""
    locked = Locked(default=("COMPLIANCE", SOON))
    assert is_whole(locked)
    assert any(key.endswith("/data-key") for key in locked.stored())
    locked.line.add("child", "full")
    assert locked.line.read_back("child") == locked.line.held["child"]
    for versions in locked.bucket.versions.values():
        versions[-1].until = None
    locked.line.remove("child")
    locked.delete()
    assert locked.stored() == []
