"""Removals of expired backups end with the leadership, and are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from cinderblock.controller.stores import expiry
from cinderblock.controller.stores.expiry import HELD_FOR, ExpiryRuns
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import NotLeading, PermanentError, TransientError
from cinderblock.store.base import ObjectStore
from tests.support.mover.backups import NOON, PREFIX, VOLUME
from tests.support.mover.parent_chains import ParentChain, a_line, name
from tests.support.simulation.observed_builders import a_store

STORE = a_store(prefix=PREFIX)
PLACE = (STORE, "container", VOLUME)


class Pool:
    """A `StorePool` with one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def open(self, *_: object) -> ObjectStore:
        return self._store

    async def keys(self, *_: object) -> None:
        return None

    async def call(self, _store: object, call: Callable[[], Any], _seconds: float) -> Any:
        return await asyncio.to_thread(call)


class Operator:
    """The parts of an operator that remove expired backups."""

    def __init__(self, line: ParentChain) -> None:
        self.line = line
        self.runs = ExpiryRuns()
        self.references = ReferenceLookups(lock_wait_seconds=0.0)

        self.staying: list[dict[str, str]] = []

    async def list_staying(self) -> dict[str, str]:
        """Return the next answer of the API server about complete VolumeBackups; without one, there are none."""
        return self.staying.pop(0) if self.staying else {}

    def remove(self, *backups: str, guard: Callable[[], None] = lambda: None) -> None:
        asyncio.run(self.begin(*backups, guard=guard))

    async def begin(self, *backups: str, guard: Callable[[], None] = lambda: None) -> None:
        await self.runs.remove(
            *PLACE,
            backups,
            stores=cast("StorePool", Pool(self.line.backups.store)),
            references=self.references,
            secrets=SecretReader(),
            list_staying=self.list_staying,
            guard=guard,
            clock=lambda: NOON,
            waits_for_locks=False,
        )

    def left(self, backup: str) -> int | None:
        removed = self.runs.removed(*PLACE, backup)
        return removed.packs_left if removed is not None else None


def test_removed_backups_are_remembered_with_their_packs() -> None:
    operator = Operator(a_line(4))
    operator.remove(name(0), name(1))
    assert [operator.left(name(number)) for number in range(3)] == [1, 1, None]
    operator.line.check()


def leader_for(steps: int) -> Callable[[], None]:
    """Return a guard that passes so many times."""
    left = iter(range(steps))

    def guard() -> None:
        if next(left, None) is None:
            raise NotLeading("another process leads")

    return guard


def test_lost_leadership_ends_a_removal_at_any_step() -> None:
    steps = 0
    while True:
        operator = Operator(a_line(4))
        try:
            operator.remove(name(0), name(3), guard=leader_for(steps))
        except NotLeading:
            steps += 1
            assert operator.left(name(0)) is None
            operator.line.check()
        else:
            break
    assert steps > 3
    assert operator.line.there() == [name(1), name(2)]


def test_unreadable_manifest_holds_the_volume_for_a_moment() -> None:
    line = a_line(3)
    operator, key = Operator(line), line.key(name(2))
    sound = line.backups.store.get(key)
    line.backups.store.put(key, sound[:-1])
    with pytest.raises(PermanentError, match=key) as refused:
        operator.remove(name(0))
    assert refused.value.reason == "ReferencesUnknown"
    assert operator.runs.held_by(*PLACE, NOON) is not None
    assert operator.runs.held_by(*PLACE, NOON + HELD_FOR) is None
    line.backups.store.put(key, sound)
    operator.remove(name(0))
    assert operator.runs.held_by(*PLACE, NOON) is None


def test_one_removal_at_a_time_works_on_a_volume() -> None:
    operator = Operator(a_line(3))

    async def both() -> list[object]:
        return await asyncio.gather(operator.begin(name(0)), operator.begin(name(1)), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first is None
    assert isinstance(second, TransientError)
    assert second.reason == "ReadingReferences"
    operator.line.check()


def test_error_of_another_backup_is_not_raised() -> None:
    line = a_line(3)
    operator = Operator(line)
    line.add("alone", None, path=b"again")
    line.backups.store.put(line.key("copy"), line.backups.store.get(line.key("alone")))
    operator.remove(name(2), "copy")
    assert (operator.left(name(2)), operator.left("copy")) == (0, None)
    with pytest.raises(PermanentError) as refused:
        operator.remove("copy", name(1))
    assert refused.value.reason == "ForeignManifest"
    assert operator.left(name(1)) == 0


def test_memory_of_removed_backups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "REMEMBERED", 2)
    operator = Operator(a_line(3))
    operator.remove(name(0), name(1), name(2))
    assert [operator.left(name(number)) for number in range(3)].count(None) == 1


def test_missing_manifest_of_a_complete_backup_holds_the_volume_and_names_it() -> None:
    line = a_line(3)
    operator, content = Operator(line), line.backups.store.get(line.key(name(2)))
    line.backups.store.delete([line.key(name(2))])
    operator.staying = [{name(2): "newest"}, {name(2): "newest"}]
    with pytest.raises(PermanentError, match="no manifest of VolumeBackup newest") as refused:
        operator.remove(name(0), name(1))
    assert refused.value.reason == "ReferencesUnknown"
    held = operator.runs.held_by(*PLACE, NOON)
    assert held is not None
    assert (held.message, held.reason) == (refused.value.message, refused.value.reason)
    assert held.__traceback__ is None, "it would keep what the removal has read"
    line.backups.store.put(line.key(name(2)), content)
    line.check()


def test_missing_manifest_of_a_backup_that_is_deleted_meanwhile_is_tried_again() -> None:
    line = a_line(3)
    operator = Operator(line)
    line.backups.store.delete([line.key(name(2))])
    operator.staying = [{name(2): "newest"}, {}]
    with pytest.raises(TransientError):
        operator.remove(name(0))
    assert operator.runs.held_by(*PLACE, NOON) is None
    operator.remove(name(0))
