"""Which VolumeBackups of a namespace have which id, and which parent: read once for many imports.

Each import must know whether another VolumeBackup has its id. The API server cannot select by spec.import.id, so that
takes a list of the whole namespace. If each of ten thousand imports read it, they would read a hundred million objects.

A list that has the import itself began after its creation. So it has each older VolumeBackup, as a list of its own
would have, and that is what counts: of two VolumeBackups with one id, the older one gets it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, KubeClient

MAX_AGE_SECONDS: Final = 10.0
"""For how long a list counts: dependents may have come since."""
MAX_NAMESPACES: Final = 4
"""Namespaces whose lists are kept, each with about 500 bytes for an object. Few namespaces import at the same time."""


@dataclass(slots=True)
class _Listed:
    """One list of the VolumeBackups of a namespace.

    Attributes:
        began: the moment of the loop's clock when it began.
        uids: all VolumeBackups.
        names: names of the VolumeBackups that have an id, or that name it as their parent.
    """

    began: float
    uids: set[str] = field(default_factory=set)
    names: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, body: JsonObject) -> None:
        """Take note of a VolumeBackup."""
        metadata, status = body["metadata"], body.get("status") or {}
        source = (body.get("spec") or {}).get("import") or {}
        self.uids.add(metadata["uid"])
        for key in {metadata["uid"], source.get("id"), status.get("id"), status.get("parentId")}:
            if isinstance(key, str):
                self.names[key].add(metadata["name"])


class IdIndex:
    """The latest list of some namespaces. For one event loop."""

    def __init__(self) -> None:
        self._lists: dict[str, asyncio.Task[_Listed]] = {}

    async def names(self, kube: KubeClient, backup: VolumeBackup) -> list[str]:
        """Return the names of the other VolumeBackups that have the id of an import, or have it as their parent.

        Raises what the API server raises.
        """
        while True:
            task = self._lists.get(backup.namespace)
            is_new = task is None or (task.done() and not _is_usable(task))
            if task is None or is_new:
                task = self._lists[backup.namespace] = asyncio.create_task(_list(kube, backup.namespace))
                self._forget_others(backup.namespace)
            listed = await asyncio.shield(task)
            if backup.uid in listed.uids or is_new:
                return sorted(listed.names.get(backup.backup_id, set()) - {backup.name})
            # It began before the import was created, and others may wait for the next list as well.
            if self._lists.get(backup.namespace) is task:
                del self._lists[backup.namespace]

    def _forget_others(self, namespace: str) -> None:
        done = [name for name, task in self._lists.items() if task.done() and name != namespace]
        for name in done[: max(len(self._lists) - MAX_NAMESPACES, 0)]:
            del self._lists[name]


def _is_usable(task: asyncio.Task[_Listed]) -> bool:
    is_known = not task.cancelled() and task.exception() is None
    return is_known and asyncio.get_running_loop().time() - task.result().began < MAX_AGE_SECONDS


async def _list(kube: KubeClient, namespace: str) -> _Listed:
    listed = _Listed(asyncio.get_running_loop().time())
    async for page in kube.pages(kinds.VOLUME_BACKUP, namespace):
        for body in page or ():
            listed.add(body)
        await asyncio.sleep(0)
    return listed
