"""Which objects an event concerns."""

from __future__ import annotations

import asyncio
from typing import Any

from cinderblock.api.labels import BACKUP_FINALIZER, OWNER_KIND_LABEL, OWNER_NAME_ANNOTATION
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import STORE_DELAY_SECONDS, EventHandler
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL
from tests.support.simulation.virtual_time import in_virtual_time


class Heard:
    """A watch, and what it puts into the queue."""

    def __init__(self) -> None:
        self._queue = WorkQueue()
        self.watch = EventHandler(self._queue, Acknowledger(self._queue))

    async def keys(self) -> set[str]:
        """Kind and name of everything that is due, taken out of the queue."""
        found = set()
        while self._queue.counts()["due"]:
            key: ObjectKey = await self._queue.get()
            await self._queue.done(key)
            found.add(f"{key.kind} {key.name}")
        return found

    async def own(self, kind: str, name: str, how: str | None = "MODIFIED", **status: str) -> set[str]:
        """An object of ours was heard of; ``how`` None: a watch begins with it."""
        finalizers = [BACKUP_FINALIZER] if status.get("storeName") else []
        metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}", "finalizers": finalizers}
        await self.watch.on_own({"type": how, "object": {"kind": kind, "metadata": metadata, "status": status}})
        return await self.keys()

    async def stores(self) -> set[str]:
        """Names of the stores that are due once they are, which is a little later."""
        await asyncio.sleep(STORE_DELAY_SECONDS)
        return await self.keys()

    async def volume(self, restore: str, how: str = "MODIFIED") -> set[str]:
        """A PersistentVolume that carries the mark of a restore was heard of."""
        body: dict[str, Any] = {"metadata": {"name": "pv-1", "labels": {RESTORE_LABEL: f"u-{restore}"}}}
        await self.watch.on_volume({"type": how, "object": body})
        return await self.keys()


async def test_a_child_concerns_its_parent_also_when_it_does_not_name_it_any_more() -> None:
    heard = Heard()
    await heard.own("VolumeBackup", "parent")
    assert await heard.own("VolumeBackup", "child", parentId="u-parent") == {
        "VolumeBackup child",
        "VolumeBackup parent",
    }
    assert await heard.own("VolumeBackup", "child") == {"VolumeBackup child", "VolumeBackup parent"}
    assert await heard.own("VolumeBackup", "child") == {"VolumeBackup child"}


async def test_a_child_that_goes_concerns_its_parent() -> None:
    heard = Heard()
    await heard.own("VolumeBackup", "parent")
    await heard.own("VolumeBackup", "child", parentId="u-parent")
    assert await heard.own("VolumeBackup", "child", "DELETED", parentId="u-parent") == {"VolumeBackup parent"}


async def test_a_marked_volume_concerns_its_restore() -> None:
    heard = Heard()
    await heard.own("VolumeRestore", "again")
    assert await heard.volume("again") == {"VolumeRestore again"}


async def test_a_marked_volume_whose_restore_is_not_known_is_looked_at_itself() -> None:
    heard = Heard()
    assert await heard.volume("again") == {"PersistentVolume pv-1"}


async def test_a_restore_that_goes_concerns_the_volume_that_carries_its_mark() -> None:
    heard = Heard()
    await heard.own("VolumeRestore", "again")
    await heard.volume("again")
    assert await heard.own("VolumeRestore", "again", "DELETED") == {"PersistentVolume pv-1"}


async def test_a_volume_that_is_not_marked_any_more_concerns_nobody() -> None:
    heard = Heard()
    await heard.own("VolumeRestore", "again")
    await heard.volume("again")
    assert await heard.volume("again", "DELETED") == set()
    assert await heard.own("VolumeRestore", "again", "DELETED") == set()


async def test_when_a_watch_begins_only_what_is_under_way_is_looked_at() -> None:
    heard = Heard()
    assert await heard.own("VolumeBackup", "old", None, phase="available", parentId="u-other") == set()
    assert await heard.own("VolumeBackup", "young", None) == {"VolumeBackup young"}
    assert await heard.own("VolumeBackup", "old", phase="available") == {"VolumeBackup old"}


@in_virtual_time
async def test_a_store_is_concerned_by_its_first_user_and_by_the_end_of_its_last_one() -> None:
    heard = Heard()
    await heard.own("VolumeBackup", "young", phase="creating", storeName="default")
    assert await heard.stores() == {"BackupStore default"}
    await heard.own("VolumeBackup", "young", phase="available", storeName="default")
    await heard.own("VolumeBackup", "other", phase="creating", storeName="default")
    await heard.own("VolumeBackup", "young", "DELETED", phase="deleting", storeName="default")
    assert await heard.stores() == set()
    await heard.own("VolumeBackup", "other", "DELETED", phase="deleting", storeName="default")
    assert await heard.stores() == {"BackupStore default"}


async def test_what_has_been_begun_comes_before_what_is_new_and_that_before_what_has_ended() -> None:
    queue = WorkQueue()
    watch = EventHandler(queue, Acknowledger(queue))
    for name, phase in (("old", "available"), ("young", ""), ("begun", "creating")):
        metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}"}
        await watch.on_own(
            {"type": "MODIFIED", "object": {"kind": "VolumeBackup", "metadata": metadata, "status": {"phase": phase}}}
        )
    owner = {"labels": {OWNER_KIND_LABEL: "VolumeBackup"}, "annotations": {OWNER_NAME_ANNOTATION: "begun"}}
    await watch.on_child({"type": "MODIFIED", "object": {"metadata": {"name": "x", "namespace": "shop"} | owner}})
    assert [(await queue.get()).name for _ in range(3)] == ["begun", "young", "old"]


async def test_a_backup_whose_parent_is_gone_concerns_all_of_its_volume_when_that_changes() -> None:
    heard = Heard()
    for name in ("first", "second"):
        await heard.own("VolumeBackup", name, volumeId="v")
    await heard.own("VolumeBackup", "other", volumeId="w")
    everybody = {"VolumeBackup first", "VolumeBackup second", "VolumeBackup stray"}
    assert await heard.own("VolumeBackup", "stray", volumeId="v", parentId="u-gone") == everybody
    assert await heard.own("VolumeBackup", "stray", volumeId="v", parentId="u-gone") == {"VolumeBackup stray"}
    made = {"volumeId": "v", "parentId": "u-gone", "phase": "creating"}
    assert await heard.own("VolumeBackup", "stray", **made) == {"VolumeBackup stray"}
    assert await heard.own("VolumeBackup", "stray", **made | {"phase": "available"}) == everybody
    assert await heard.own("VolumeBackup", "stray", **made | {"phase": "available"}) == {"VolumeBackup stray"}
    assert await heard.own("VolumeBackup", "stray") == everybody, "its status was lost"
    assert await heard.own("VolumeBackup", "stray", volumeId="v", parentId="u-gone") == everybody
    gone = await heard.own("VolumeBackup", "stray", "DELETED", volumeId="v", parentId="u-gone")
    assert gone == everybody - {"VolumeBackup stray"}
    assert await heard.own("VolumeBackup", "last", volumeId="v", parentId="u-first") == {
        "VolumeBackup last",
        "VolumeBackup first",
    }
