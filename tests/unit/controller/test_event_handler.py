"""Which objects an event adds to the queue."""

from __future__ import annotations

import asyncio
from typing import Any

from cinderblock.api.labels import (
    BACKUP_FINALIZER,
    OWNER_KIND_LABEL,
    OWNER_NAME_ANNOTATION,
    OWNER_UID_LABEL,
    RESTORE_LABEL,
)
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import STORE_DELAY_SECONDS, EventHandler
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from tests.support.simulation.virtual_time import in_virtual_time


class Handler:
    """An event handler, and the keys that it adds to the queue."""

    def __init__(self) -> None:
        self._queue = WorkQueue()
        self._handler = EventHandler(self._queue, Acknowledger(self._queue))

    async def keys(self) -> set[str]:
        """Take all due keys. Return their kinds and names."""
        found = set()
        while self._queue.counts()["due"]:
            key: ObjectKey = await self._queue.get()
            await self._queue.done(key)
            found.add(f"{key.kind} {key.name}")
        return found

    async def handle(self, kind: str, name: str, change: str | None = "MODIFIED", /, **status: str) -> set[str]:
        """Handle an event about a custom resource, and return the keys that it added."""
        finalizers = [BACKUP_FINALIZER] if status.get("storeName") else []
        metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}", "finalizers": finalizers}
        await self._handler.on_custom_resource(
            {"type": change, "object": {"kind": kind, "metadata": metadata, "status": status}}
        )
        return await self.keys()

    def counts_no_users(self) -> bool:
        """Return whether the handler remembers no user of any store."""
        return not self._handler._users and not self._handler._store_of

    async def stores(self) -> set[str]:
        """Wait until changed stores are due, and return their keys."""
        await asyncio.sleep(STORE_DELAY_SECONDS)
        return await self.keys()

    async def handle_volume(self, restore: str, change: str = "MODIFIED") -> set[str]:
        """Handle an event about a PersistentVolume marked by a VolumeRestore, and return the keys that it added."""
        body: dict[str, Any] = {"metadata": {"name": "pv-1", "labels": {RESTORE_LABEL: f"u-{restore}"}}}
        await self._handler.on_persistent_volume({"type": change, "object": body})
        return await self.keys()


def child(owner: str, namespace: str = "shop") -> dict[str, Any]:
    """Return an event about a child; its labels and annotations are what its creator says."""
    labels = {OWNER_KIND_LABEL: "VolumeBackup", OWNER_UID_LABEL: owner}
    metadata = {"name": "x", "namespace": namespace, "labels": labels, "annotations": {OWNER_NAME_ANNOTATION: "old"}}
    return {"type": "MODIFIED", "object": {"metadata": metadata}}


async def test_child_adds_its_owner_and_a_forged_child_nothing() -> None:
    handler = Handler()
    await handler.handle("VolumeBackup", "mine", phase="creating")
    for owner, namespace, added in (
        ("u-mine", "shop", {"VolumeBackup mine"}),
        ("u-mine", "evil", set()),
        ("u-nobody", "shop", set()),
        ("shop/imported", "shop", set()),
    ):
        await handler._handler.on_child(child(owner, namespace))
        assert await handler.keys() == added, (owner, namespace)


async def test_dependent_adds_its_parent_even_after_losing_the_reference() -> None:
    handler = Handler()
    await handler.handle("VolumeBackup", "parent")
    assert await handler.handle("VolumeBackup", "child", parentId="u-parent") == {
        "VolumeBackup child",
        "VolumeBackup parent",
    }
    assert await handler.handle("VolumeBackup", "child") == {"VolumeBackup child", "VolumeBackup parent"}
    assert await handler.handle("VolumeBackup", "child") == {"VolumeBackup child"}


async def test_deleted_dependent_adds_its_parent() -> None:
    handler = Handler()
    await handler.handle("VolumeBackup", "parent")
    await handler.handle("VolumeBackup", "child", parentId="u-parent")
    assert await handler.handle("VolumeBackup", "child", "DELETED", parentId="u-parent") == {"VolumeBackup parent"}


async def test_marked_volume_adds_its_restore() -> None:
    handler = Handler()
    await handler.handle("VolumeRestore", "again")
    assert await handler.handle_volume("again") == {"VolumeRestore again"}


async def test_marked_volume_of_an_unknown_restore_adds_itself() -> None:
    handler = Handler()
    assert await handler.handle_volume("again") == {"PersistentVolume pv-1"}


async def test_deleted_restore_adds_its_marked_volume() -> None:
    handler = Handler()
    await handler.handle("VolumeRestore", "again")
    await handler.handle_volume("again")
    assert await handler.handle("VolumeRestore", "again", "DELETED") == {"PersistentVolume pv-1"}


async def test_volume_that_lost_its_mark_adds_nothing() -> None:
    handler = Handler()
    await handler.handle("VolumeRestore", "again")
    await handler.handle_volume("again")
    assert await handler.handle_volume("again", "DELETED") == set()
    assert await handler.handle("VolumeRestore", "again", "DELETED") == set()


async def test_start_of_a_watch_adds_only_objects_in_progress() -> None:
    handler = Handler()
    assert await handler.handle("VolumeBackup", "old", None, phase="available", parentId="u-other") == set()
    assert await handler.handle("VolumeBackup", "young", None) == {"VolumeBackup young"}
    assert await handler.handle("VolumeBackup", "old", phase="available") == {"VolumeBackup old"}


@in_virtual_time
async def test_start_of_a_watch_adds_a_changed_schedule() -> None:
    handler = Handler()
    for change, observed, added in (
        (None, 1, {"BackupSchedule nightly"}),
        (None, 2, set()),
        ("MODIFIED", 1, {"BackupSchedule nightly"}),
        ("MODIFIED", 2, set()),
        ("DELETED", 2, {"BackupSchedule nightly"}),
    ):
        metadata = {"name": "nightly", "namespace": "shop", "uid": "u-1", "generation": 2}
        body = {"kind": "BackupSchedule", "metadata": metadata, "status": {"observedGeneration": observed}}
        await handler._handler.on_schedule({"type": change, "object": body})
        assert await handler.keys() == added, (change, observed)


async def test_store_is_added_for_its_first_and_last_user() -> None:
    handler = Handler()
    await handler.handle("VolumeBackup", "young", phase="creating", storeName="default")
    assert await handler.stores() == {"BackupStore default"}
    await handler.handle("VolumeBackup", "young", phase="available", storeName="default")
    await handler.handle("VolumeBackup", "other", phase="creating", storeName="default")
    await handler.handle("VolumeBackup", "young", "DELETED", phase="deleting", storeName="default")
    assert await handler.stores() == set()
    await handler.handle("VolumeBackup", "other", "DELETED", phase="deleting", storeName="default")
    assert await handler.stores() == {"BackupStore default"}
    assert handler.counts_no_users()


async def test_started_operations_come_before_new_ones_and_finished_ones_last() -> None:
    queue = WorkQueue()
    handler = EventHandler(queue, Acknowledger(queue))
    for name, phase in (("old", "available"), ("young", ""), ("started", "creating")):
        metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}"}
        await handler.on_custom_resource(
            {"type": "MODIFIED", "object": {"kind": "VolumeBackup", "metadata": metadata, "status": {"phase": phase}}}
        )
    await handler.on_child(child("u-started"))
    assert [(await queue.get()).name for _ in range(3)] == ["started", "young", "old"]


async def test_backup_with_missing_parent_adds_all_backups_of_its_volume() -> None:
    handler = Handler()
    for name in ("first", "second"):
        await handler.handle("VolumeBackup", name, volumeId="v")
    await handler.handle("VolumeBackup", "other", volumeId="w")
    all_of_volume = {"VolumeBackup first", "VolumeBackup second", "VolumeBackup orphan"}
    assert await handler.handle("VolumeBackup", "orphan", volumeId="v", parentId="u-gone") == all_of_volume
    assert await handler.handle("VolumeBackup", "orphan", volumeId="v", parentId="u-gone") == {"VolumeBackup orphan"}
    status = {"volumeId": "v", "parentId": "u-gone", "phase": "creating"}
    assert await handler.handle("VolumeBackup", "orphan", **status) == {"VolumeBackup orphan"}
    assert await handler.handle("VolumeBackup", "orphan", **status | {"phase": "available"}) == all_of_volume
    assert await handler.handle("VolumeBackup", "orphan", **status | {"phase": "available"}) == {"VolumeBackup orphan"}
    assert await handler.handle("VolumeBackup", "orphan") == all_of_volume, "its status was lost"
    assert await handler.handle("VolumeBackup", "orphan", volumeId="v", parentId="u-gone") == all_of_volume
    after_deletion = await handler.handle("VolumeBackup", "orphan", "DELETED", volumeId="v", parentId="u-gone")
    assert after_deletion == all_of_volume - {"VolumeBackup orphan"}
    assert await handler.handle("VolumeBackup", "last", volumeId="v", parentId="u-first") == {
        "VolumeBackup last",
        "VolumeBackup first",
    }


@in_virtual_time
async def test_store_that_is_writable_again_adds_deletions_that_wait() -> None:
    handler = Handler()
    waits: Any = {"conditions": [{"type": "Reconciling", "reason": "StoreReadOnly"}]}
    for name, store, more in (("a", "archive", waits), ("b", "archive", {}), ("c", "other", waits)):
        await handler.handle("VolumeBackup", name, storeName=store, **more)
    assert await handler.handle("BackupStore", "archive", access="ReadOnly") == {"BackupStore archive"}
    added = await handler.handle("BackupStore", "archive", access="ReadWrite")
    assert added == {"BackupStore archive", "VolumeBackup a"}
    await handler.handle("VolumeBackup", "a", "DELETED", storeName="archive", **waits)
    assert await handler.handle("BackupStore", "archive", access="ReadWrite") == {"BackupStore archive"}
