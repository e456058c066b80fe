"""Locks of packs and manifests: a manifest is never locked for longer than a pack that it lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from cinderblock.api.mover import LockTask
from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.errors import AccessDenied, LockNotExtended, StoreUnreachable
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.base import ObjectLock
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.aws.bucket import Bucket, Version
from tests.support.store.aws.bucket_store import BucketStore
from tests.support.store.faults import Crash, FaultyStore

DAY = timedelta(days=1)
PERIOD, GENERATION = 30 * DAY, 10 * DAY
BEGIN = datetime(2026, 5, 1, 6, 30, 10, tzinfo=UTC)


class CountingStore(BucketStore):
    """A bucket that counts extended locks."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self.extended = 0

    @override
    def set_lock(self, key: str, lock: ObjectLock) -> None:
        self.extended += 1
        super().set_lock(key, lock)


class LockedLine:
    """A volume and its incremental backups in a bucket with versions and Object Lock. Time passes only on request."""

    def __init__(self, *, is_sealed: bool = True) -> None:
        self.now = BEGIN
        self.bucket = Bucket(lambda: self.now, versioning="Enabled", has_lock=True)
        self.counting = CountingStore(self.bucket)
        self.backups = Backups(keys=key_ring() if is_sealed else None)
        self.volume = MemorySource()
        self.newest: str | None = None
        self.count = 0
        self.restart()

    def restart(self) -> None:
        """Let the store answer again after a crash."""
        self.store = FaultyStore(self.counting)
        self.backups.store = self.store

    def die_before_the_manifest(self, lock: LockTask | None = None) -> None:
        """Let the next mover die right before it writes its manifest."""
        self.store.on("put", ".manifest").crashes()
        with pytest.raises(Crash):
            self.make(lock)
        self.restart()
        self.count -= 1

    def lock(self, mode: LockMode = LockMode.COMPLIANCE, period: timedelta = PERIOD) -> LockTask:
        """Return what the operator sends with a task that begins now."""
        return LockTask(mode=mode, until=self.now + period + GENERATION, at_least=self.now + period)

    def make(self, lock: LockTask | None = None, *, is_locked: bool = True) -> str:
        """Write a file, and make a backup that builds on the newest one."""
        self.count += 1
        backup_id = f"b{self.count}"
        self.volume.add(backup_id.encode(), (0, b"content of %s " % backup_id.encode() * 40), stamp=self.count)
        task_lock = (lock or self.lock()) if is_locked else None
        self.backups.back_up(self.volume, backup_id, self.newest, lock=task_lock)
        self.newest = backup_id
        return backup_id

    def manifest(self, backup_id: str) -> Version:
        return self._version(self.backups.manifest_key(backup_id))

    def packs(self, backup_id: str) -> list[Version]:
        """Return the packs that a manifest lists."""
        return [self._version(key) for key in self.listed(backup_id)]

    def listed(self, backup_id: str) -> list[str]:
        return sorted(self.backups.keys_in_use(backup_id))

    def _version(self, key: str) -> Version:
        found = self.bucket.current(key)
        assert found is not None
        return found

    def keeps_its_promises(self) -> bool:
        """Return whether no manifest is locked for longer than a pack that it lists."""
        ids = [f"b{number}" for number in range(1, self.count + 1)]
        return all(
            pack.until is not None and (self.manifest(backup_id).until or BEGIN) <= pack.until
            for backup_id in ids
            for pack in self.packs(backup_id)
        )


def test_packs_and_manifest_are_locked_and_nothing_else() -> None:
    line = LockedLine()
    line.make()
    until = BEGIN + PERIOD + GENERATION
    locked = {key: versions[-1].until for key, versions in line.bucket.versions.items() if versions[-1].until}
    assert {pack.until for pack in line.packs("b1")} == {until}
    # Footers count hours, and no lock is promised to be longer than it is.
    assert line.manifest("b1").until == until.replace(minute=0, second=0)
    assert locked.keys() == {line.backups.manifest_key("b1"), *line.listed("b1")}
    assert any(key.endswith("data-key") for key in line.bucket.versions)


def test_locks_are_extended_once_in_a_generation() -> None:
    line = LockedLine()
    line.make()
    extensions = []
    for _ in range(24):
        line.now += DAY
        before = line.counting.extended
        line.make()
        extensions.append(line.counting.extended - before)
        assert line.keeps_its_promises()
        assert (line.manifest(f"b{line.count}").until or BEGIN) >= line.now + PERIOD - timedelta(hours=1)
    per_pack = sum(extensions) / line.count
    assert 0 < per_pack < 24 / 10 + 1
    assert extensions[:9] == [0] * 9


@given(steps=st.lists(st.tuples(st.integers(0, 45), st.sampled_from([5, 30]), st.booleans()), min_size=1, max_size=7))
@settings(max_examples=25, deadline=None)
def test_no_manifest_outlasts_its_packs(steps: list[tuple[int, int, bool]]) -> None:
    line = LockedLine()
    line.make()
    for days, period, is_sound in steps:
        line.now += days * DAY
        lock = line.lock(period=period * DAY)
        if not is_sound:
            line.die_before_the_manifest(lock)
        line.make(lock)
        assert line.keeps_its_promises()
        assert (line.manifest(f"b{line.count}").until or BEGIN) >= lock.at_least - timedelta(hours=1)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_packs_without_a_lock_get_one_from_the_next_backup(is_sealed: bool) -> None:
    line = LockedLine(is_sealed=is_sealed)
    line.make(is_locked=False)
    assert line.manifest("b1").until is None
    line.make()
    assert all(pack.until == BEGIN + PERIOD + GENERATION for pack in line.packs("b2"))
    assert line.manifest("b1").until is None


@pytest.mark.parametrize("mode", [LockMode.COMPLIANCE, LockMode.GOVERNANCE])
def test_changed_mode_leaves_existing_locks_as_strict_as_they_are(mode: LockMode) -> None:
    line = LockedLine()
    other = LockMode.GOVERNANCE if mode is LockMode.COMPLIANCE else LockMode.COMPLIANCE
    line.make(line.lock(mode))
    line.now += 20 * DAY
    line.make(line.lock(other))
    assert line.keeps_its_promises()
    assert all(pack.mode == "COMPLIANCE" for pack in line.packs("b1"))
    assert line.manifest("b2").mode == other.value


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (lambda store: store.on("lock").raises(AccessDenied("Cannot access the store.")), LockNotExtended),
        (lambda store: store.on("lock").raises(StoreUnreachable("Cannot reach the store.")), StoreUnreachable),
    ],
)
def test_backup_without_its_locks_is_not_made(fail: Callable[[FaultyStore], object], expected: type[Exception]) -> None:
    line = LockedLine()
    line.make()
    line.now += 20 * DAY
    fail(line.store)
    with pytest.raises(expected):
        line.make()
    assert line.bucket.current(line.backups.manifest_key("b2")) is None


def test_resumed_packs_are_locked_for_as_long_as_new_ones() -> None:
    line = LockedLine()
    line.die_before_the_manifest()
    line.now += 5 * DAY
    line.make()
    assert {pack.until for pack in line.packs("b1")} == {BEGIN + 5 * DAY + PERIOD + GENERATION}
    assert line.keeps_its_promises()


def test_forged_lock_of_an_unsealed_parent_is_asked_at_the_store() -> None:
    line = LockedLine(is_sealed=False)
    line.make(line.lock(period=300 * DAY))
    for pack in line.packs("b1"):
        # The manifest claims a longer lock.
        pack.until = line.now + DAY
    line.make()
    assert all(pack.until == BEGIN + PERIOD + GENERATION for pack in line.packs("b2"))


def test_rewrapped_manifest_keeps_its_lock() -> None:
    line = LockedLine()
    now = datetime.now(UTC).replace(microsecond=0)
    line.now = now
    line.make()
    before = line.manifest("b1")
    expected = line.backups.expected("b1")
    run_rewrap(line.store, line.backups.manifest_key("b1"), expected, key_ring(), "2024")
    after = line.manifest("b1")
    assert after.id != before.id
    assert (after.mode, after.until) == (before.mode, before.until)


@pytest.mark.parametrize("done", [False, True])
def test_death_while_locks_are_extended_breaks_no_promise(done: bool) -> None:
    line = LockedLine()
    line.make()
    line.make()
    line.now += 20 * DAY
    line.store.on("lock").after(1).crashes(done=done)
    with pytest.raises(Crash):
        line.make()
    line.restart()
    line.count -= 1
    assert line.bucket.current(line.backups.manifest_key("b3")) is None
    assert line.keeps_its_promises()
    line.now += 3 * DAY
    line.make()
    assert line.keeps_its_promises()
