"""Copies into a store that locks: no manifest in it is locked for longer than a pack that it lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.mover import LockTask
from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import AccessDenied, LockNotExtended, ObjectLocked, StoreUnreachable, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.reasons import Reason
from cinderblock.repository.copying.copy_backup import CopiedBackup, CopyPlace, copy_backup
from cinderblock.repository.copying.locks import TargetLocks
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.repository.verify import findings
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.store.aws.bucket import Bucket, Version
from tests.support.store.faults import Crash, FaultyStore
from tests.unit.archiver.test_locks import CountingStore, LockedLine
from tests.unit.repository.test_copies import made

DAY = timedelta(days=1)
BEGIN = datetime(2026, 5, 1, 6, 30, 10, tzinfo=UTC)
GENERATION = 10 * DAY


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)


class Offsite:
    """A bucket with Object Lock that gets copies of the backups "one" and "two". Time passes only on request."""

    def __init__(self, backups: Backups | None = None) -> None:
        self.now = BEGIN
        self.bucket = Bucket(lambda: self.now, versioning="Enabled", has_lock=True)
        self.counting = CountingStore(self.bucket)
        self.store = FaultyStore(self.counting)
        self.backups = backups or made(key_ring())

    def lock(self, days: int = 30, mode: LockMode = LockMode.COMPLIANCE) -> LockTask:
        """Return what the operator sends with a task that begins now."""
        at_least = self.now + days * DAY
        return LockTask(mode=mode, until=at_least + GENERATION, at_least=at_least)

    def copy(
        self, name: str = "two", lock: LockTask | None = None, *, keys: KeyRing | None = None, is_locked: bool = True
    ) -> CopiedBackup:
        locks = TargetLocks(self.store, (lock or self.lock()) if is_locked else None)
        return self.copy_with(locks, name, keys)

    def copy_with(self, locks: TargetLocks, name: str, keys: KeyRing | None = None) -> CopiedBackup:
        source = CopyPlace(self.backups.store, PREFIX, self.backups.keys)
        target = CopyPlace(self.store, PREFIX, keys or self.backups.keys)
        return copy_backup(source, target, self.backups.expected(name), locks=locks)

    def restart(self) -> None:
        """Let the store answer again after a crash."""
        self.store = FaultyStore(self.counting)

    def manifest(self, name: str = "two") -> Version | None:
        return self.bucket.current(self.backups.manifest_key(name))

    def locked_until(self, name: str = "two") -> datetime | None:
        found = self.manifest(name)
        assert found is not None
        return found.until

    def packs(self, name: str = "two") -> list[Version]:
        """Return the packs of a backup that the bucket holds."""
        found = [self.bucket.current(key) for key in sorted(self.backups.keys_in_use(name))]
        return [pack for pack in found if pack is not None]

    def keeps_its_promises(self) -> bool:
        return all(_is_covered(self, name) for name in ("one", "two") if self.manifest(name) is not None)


def _is_covered(site: Offsite, name: str) -> bool:
    """Return whether the packs that a manifest lists are there, and locked for as long as the manifest."""
    until, packs = site.locked_until(name), site.packs(name)
    is_whole = len(packs) == len(site.backups.keys_in_use(name))
    return until is None or (is_whole and all(pack.until is not None and pack.until >= until for pack in packs))


@pytest.mark.parametrize("mode", list(LockMode))
def test_packs_and_manifest_of_a_copy_are_locked_and_nothing_else(mode: LockMode) -> None:
    site = Offsite()
    copied = site.copy(lock=site.lock(mode=mode))
    until = BEGIN + 40 * DAY
    locked = {key: versions[-1] for key, versions in site.bucket.versions.items() if versions[-1].until}
    assert {(version.until, version.mode) for version in locked.values()} == {(until, mode.value)}
    assert locked.keys() == {site.backups.manifest_key("two"), *site.backups.keys_in_use("two")}
    assert len(site.bucket.versions) == len(locked) + 1
    assert copied.locked_until == until


def test_copy_without_a_wish_for_locks_sets_none() -> None:
    site = Offsite()
    assert site.copy(is_locked=False).locked_until is None
    assert not any(versions[-1].until for versions in site.bucket.versions.values())


def test_unlocked_copy_is_locked_by_its_next_comparison() -> None:
    site = Offsite()
    site.copy(is_locked=False)
    copied = site.copy()
    assert (copied.bytes_sent, copied.locked_until) == (0, BEGIN + 40 * DAY)
    assert site.keeps_its_promises()


def test_packs_are_extended_before_the_manifest_is_written() -> None:
    site = Offsite()
    site.copy("one")
    site.now += 20 * DAY
    site.store.on("put", "two.manifest").crashes()
    with pytest.raises(Crash):
        site.copy("two")
    assert {pack.until for pack in site.packs("two")} == {site.now + 40 * DAY}
    site.restart()
    assert site.copy("two").locked_until == site.now + 40 * DAY


def test_comparison_extends_only_locks_that_fall_short() -> None:
    site = Offsite()
    site.copy()
    for days, is_extended in ((9, False), (11, True), (20, False)):
        site.now, before = BEGIN + days * DAY, site.counting.extended
        assert site.copy().bytes_sent == 0
        assert (site.counting.extended > before) is is_extended
        assert (site.locked_until() or BEGIN) >= site.now + 30 * DAY
        assert site.keeps_its_promises()


def test_locks_of_shared_packs_are_extended_once_in_a_run() -> None:
    site = Offsite()
    site.copy("one")
    site.copy("two")
    site.now += 20 * DAY
    locks = TargetLocks(site.store, site.lock())
    site.copy_with(locks, "one")
    site.copy_with(locks, "two")
    objects = site.backups.keys_in_use("one") | site.backups.keys_in_use("two")
    assert site.counting.extended == len(objects) + 2
    assert site.keeps_its_promises()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["one", "two"]),
            st.integers(0, 45),
            st.sampled_from([5, 30]),
            st.sampled_from(list(LockMode)),
            st.sampled_from([None, "put", "lock"]),
            st.integers(0, 4),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=20, deadline=None)
def test_no_manifest_of_a_copy_outlasts_its_packs(
    steps: list[tuple[str, int, int, LockMode, str | None, int, bool]],
) -> None:
    site = Offsite(BACKUPS)
    for name, days, period, mode, fails, after, done in steps:
        site.now += days * DAY
        lock = site.lock(period, mode)
        if fails is not None:
            site.store.on("put" if fails == "put" else "lock").crashes(done=done).after(after)
            try:
                site.copy(name, lock)
            except Crash:
                assert site.keeps_its_promises()
            site.restart()
        copied = site.copy(name, lock)
        assert copied.locked_until == site.locked_until(name)
        assert (copied.locked_until or BEGIN) >= lock.at_least
        assert site.keeps_its_promises()


BACKUPS = made(key_ring())
"""The backups of the test above, which does not change them."""


@pytest.mark.parametrize("is_locked", [True, False])
def test_pack_that_is_sent_again_is_locked_like_its_manifest(is_locked: bool) -> None:
    site = Offsite()
    # Without a wish for locks, the clock of this machine decides whether the lock of the manifest still counts.
    site.now = datetime.now(UTC).replace(microsecond=0)
    site.copy(lock=site.lock(300))
    before, pack = site.locked_until(), min(site.backups.keys_in_use("two"))
    site.store.put(pack, b"shorter")
    assert not site.keeps_its_promises()
    assert site.copy(lock=site.lock(5), is_locked=is_locked).locked_until == before
    assert site.keeps_its_promises()


def test_pack_that_another_copy_has_locked_too_short_is_extended() -> None:
    site = Offsite()
    site.copy("one", site.lock(300))
    shared = min(site.backups.keys_in_use("one") & site.backups.keys_in_use("two"))
    site.store.put(shared, b"shorter")
    site.copy("two", site.lock(5))
    assert not site.keeps_its_promises()
    assert site.copy("one", site.lock(5)).locked_until == BEGIN + 310 * DAY
    assert site.keeps_its_promises()


def test_rewrapped_manifest_of_a_copy_keeps_its_lock() -> None:
    site = Offsite()
    site.copy(lock=site.lock(300))
    before, keys = site.manifest(), site.backups.keys
    assert before is not None
    assert keys is not None
    run_rewrap(site.backups.store, site.backups.manifest_key("two"), site.backups.expected("two"), keys, "2024")
    site.copy(lock=site.lock(5))
    after = site.manifest()
    assert after is not None
    assert after.body != before.body
    assert (after.mode, after.until) == (before.mode, before.until)
    assert site.keeps_its_promises()


def test_manifest_with_a_key_of_its_own_is_extended() -> None:
    site = Offsite()
    site.copy()
    assert site.backups.keys is not None
    key = site.backups.manifest_key("two")
    run_rewrap(site.store, key, site.backups.expected("two"), site.backups.keys, "2024")
    own = site.store.get(key)
    site.now += 20 * DAY
    assert site.copy(keys=key_ring("2024")).locked_until == site.now + 40 * DAY
    assert site.store.get(key) == own


def test_copy_whose_packs_cannot_be_locked_gets_no_manifest() -> None:
    site = Offsite()
    site.copy("one")
    site.now += 20 * DAY
    site.store.on("lock").raises(AccessDenied("refused"))
    with pytest.raises(LockNotExtended):
        site.copy("two")
    assert site.manifest("two") is None
    site.restart()
    site.store.on("lock").raises(StoreUnreachable("away"))
    with pytest.raises(StoreUnreachable):
        site.copy("two")
    assert site.manifest("two") is None
    assert site.keeps_its_promises()


def test_pack_that_vanishes_before_it_is_locked_is_sent_later() -> None:
    site = Offsite()
    site.copy("one")
    locks = TargetLocks(site.store, site.lock()).of_copy(site.backups.manifest_key("two"))
    pack = min(site.backups.keys_in_use("one"))
    site.store.delete([pack])
    with pytest.raises(TransientError) as raised:
        locks.lock_packs([pack])
    assert raised.value.reason == Reason.OVERTAKEN


def test_target_without_calls_about_locks_gets_plain_copies() -> None:
    site = Offsite()
    site.copy(is_locked=False)
    site.counting.kept.errors["inspect"] = ObjectLocked("not supported")
    assert site.copy(is_locked=False).bytes_sent == 0


def test_backup_on_a_copy_believes_no_lock_of_the_original() -> None:
    line = LockedLine()
    line.make(line.lock(period=300 * DAY))
    line.make(line.lock(period=300 * DAY))
    offsite = Offsite(line.backups)
    offsite.copy("b1", offsite.lock(2))
    offsite.copy("b2", offsite.lock(2))
    # The copy becomes the store of the volume, and the manifest still records the locks of the original.
    line.bucket, line.backups.store, line.now = offsite.bucket, offsite.store, offsite.now
    line.make()
    assert {pack.until for pack in line.packs("b3")} == {line.now + 40 * DAY}
    assert line.keeps_its_promises()


def test_copies_of_unlocked_stores_need_no_lock_calls() -> None:
    backups, target = made(key_ring()), MemoryStore()
    place = CopyPlace(backups.store, PREFIX, backups.keys)
    copied = copy_backup(place, CopyPlace(target, PREFIX, backups.keys), backups.expected("two"))
    assert copied.locked_until is None
    assert backups.expected("two").volume_id == VOLUME
