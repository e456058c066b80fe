"""Expiries of backups with locked objects: a locked one waits alone, and nothing is left behind in the end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.errors import AccessDenied, CinderblockError, ObjectLocked, TransientError
from cinderblock.repository.expiry import Expiry
from cinderblock.repository.objects import MARK_NAME
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.parent_chains import ParentChain, name
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.faults import FaultyStore
from tests.unit.repository.test_locked_deletions import Clock

PERIOD = timedelta(days=2)


class LockedLine:
    """A chain of incremental backups in a bucket with rules."""

    def __init__(self, count: int, *, shows_locks: bool = True, **rules: object) -> None:
        self.clock = Clock()
        self.bucket = Bucket(self.clock)
        for rule, value in ({"has_lock": True} | rules).items():
            setattr(self.bucket, rule, value)
        self.store = BucketStore(self.bucket)
        self.store.kept.shows_locks = shows_locks
        self.line = ParentChain(Backups(self.store, key_ring()))
        for number in range(count):
            self.line.add(name(number), name(number - 1) if number else None)

    def lock(self, key: str) -> None:
        version = self.bucket.current(key)
        assert version is not None
        version.mode, version.until = "COMPLIANCE", self.clock() + PERIOD

    def lock_pack(self, number: int) -> None:
        self.lock(self.line.backups.pack_keys(name(number))[-1])

    def expire(self, *numbers: int) -> Expiry:
        run = self.line.expiry([name(number) for number in numbers], clock=self.clock)
        for _ in run.steps():
            pass
        self.line.check()
        return run

    def wait(self) -> None:
        self.clock.passed += 2 * PERIOD

    def is_empty(self) -> bool:
        return not list(self.store.list(""))


def test_backup_with_a_locked_pack_waits_alone() -> None:
    locked = LockedLine(4)
    locked.lock_pack(1)
    run = locked.expire(0, 1, 2)
    assert run.removed.keys() == {name(0), name(2)}
    assert isinstance(run.errors[name(1)], ObjectLocked)
    assert run.errors[name(1)].until == locked.clock() + PERIOD
    assert "Nothing was deleted." in run.errors[name(1)].message
    assert locked.line.there() == [name(1), name(3)]
    locked.wait()
    assert locked.expire(1).removed == {name(1): 1}
    locked.expire(3)
    assert locked.is_empty()


def test_invisible_lock_of_a_manifest_keeps_the_backup_whole() -> None:
    locked = LockedLine(4, shows_locks=False)
    locked.lock(locked.line.key(name(1)))
    run = locked.expire(0, 1, 2)
    assert (run.removed, run.errors.keys()) == ({name(0): 1, name(2): 1}, {name(1)})
    assert locked.line.there() == [name(1), name(3)]
    locked.expire(3)
    locked.wait()
    locked.expire(1)
    assert locked.is_empty()


def test_invisible_lock_of_a_pack_is_awaited_without_a_manifest() -> None:
    locked = LockedLine(3, shows_locks=False)
    locked.lock_pack(2)
    run = locked.expire(1, 2)
    assert (run.removed, run.errors.keys()) == ({name(1): 0}, {name(2)})
    assert "has no manifest" in run.errors[name(2)].message
    locked.wait()
    assert locked.expire(2).removed == {name(2): 0}
    locked.expire(0)
    assert locked.is_empty()


def test_locked_inherited_pack_is_left_to_a_later_pass() -> None:
    locked = LockedLine(3, shows_locks=False)
    locked.expire(0)
    locked.lock_pack(0)
    locked.line.add("other", None, path=b"again")
    assert locked.expire(1, 2).removed == {name(1): 0, name(2): 0}
    assert locked.line.backups.pack_keys(name(0))
    locked.wait()
    locked.line.expire(["other"])
    assert locked.is_empty()


def test_last_backup_waits_for_locked_inherited_packs() -> None:
    locked = LockedLine(2, shows_locks=False)
    locked.expire(0)
    locked.lock_pack(0)
    run = locked.expire(1)
    assert run.removed == {}
    assert isinstance(run.errors[name(1)], ObjectLocked)
    locked.wait()
    assert locked.expire(1).removed == {name(1): 0}
    assert locked.is_empty()


def test_refused_deletion_leaves_no_mark() -> None:
    locked = LockedLine(3, shows_locks=False)
    locked.expire(0)
    locked.lock(locked.line.key(name(2)))
    with pytest.raises(ObjectLocked, match="Nothing was deleted"):
        locked.line.remove(name(2), now=locked.clock())
    assert not [key for key in locked.line.backups.pack_keys(name(2)) if key.endswith(MARK_NAME)]
    locked.line.check()


def test_person_waits_for_locked_inherited_packs_too() -> None:
    locked = LockedLine(2, shows_locks=False)
    locked.expire(0)
    locked.lock_pack(0)
    with pytest.raises(ObjectLocked):
        locked.line.remove(name(1), now=locked.clock())
    locked.wait()
    locked.line.remove(name(1), now=locked.clock())
    assert locked.is_empty()


@pytest.mark.parametrize("versioning", ["Enabled", "Suspended"])
def test_versions_hide_what_expires(versioning: str) -> None:
    locked = LockedLine(3, has_lock=False, versioning=versioning)
    locked.expire(0)
    locked.expire(1, 2)
    assert locked.is_empty()


def test_rules_of_the_bucket_are_asked_once() -> None:
    locked = LockedLine(12, has_lock=False, versioning="Enabled")
    asked: list[str] = []
    retention = locked.store.kept
    for rule in ("versioning", "object_lock"):
        ask = getattr(retention, rule)
        setattr(retention, rule, lambda rule=rule, ask=ask: [asked.append(rule), ask()][1])  # type: ignore[func-returns-value]
    locked.expire(*range(12))
    assert 1 <= asked.count("versioning") <= 8, "eight threads may ask at the same time"


def test_refusal_that_is_no_lock_is_not_taken_for_one() -> None:
    locked = LockedLine(3)
    store = FaultyStore(locked.store)
    store.on("delete", "packs/").raises(AccessDenied("DeleteObject is not allowed"))
    with pytest.raises(AccessDenied):
        locked.line.expire([name(2)], store)
    locked.line.check()


@pytest.mark.parametrize("kept", ["manifest", "packs/"])
def test_confirmation_of_a_proxy_is_not_believed(kept: str) -> None:
    locked = LockedLine(3, has_lock=False)
    error: CinderblockError | None = None
    original = locked.store.delete
    locked.store.delete = lambda keys: original([key for key in keys if kept not in key])  # type: ignore[method-assign]
    try:
        run = locked.expire(2)
        error = run.errors.get(name(2))
    except TransientError as raised:
        error = raised
    assert error is not None
    assert "still has it" in error.message
    locked.store.delete = original  # type: ignore[method-assign]
    assert locked.expire(2).removed == {name(2): 0}
