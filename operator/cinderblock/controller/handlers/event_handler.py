"""What an event means: it puts the key of the object that it concerns into the queue, and does nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.reconcile.volume_index import VolumeIndex
from cinderblock.controller.request import OWN_KINDS, ObjectKey, is_in_progress
from cinderblock.controller.workqueue import IN_HAND, URGENT, WorkQueue
from cinderblock.kube import kinds
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL

STORE_DELAY_SECONDS = 2.0
"""Seconds by which the look at a store is put off after a change of a backup: many changes make one look."""

CHILD_KINDS = (kinds.JOB, kinds.POD, kinds.PVC, kinds.VOLUME_SNAPSHOT)
"""Kinds of children; watched with our label only, filtered by the server."""

MANAGED_SELECTOR = f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"


class EventHandler:
    """Translates events into keys.

    Args:
        queue: where the keys go.
        noticing: told of new backups as well.
    """

    def __init__(self, queue: WorkQueue, acknowledger: Acknowledger) -> None:
        self._queue = queue
        self._noticing = acknowledger
        self._names: dict[str, ObjectKey] = {}
        self._marked: dict[str, str] = {}
        self._references: dict[str, set[str]] = {}
        self._relatives = VolumeIndex()
        self._unfinished: set[str] = set()
        self._used: dict[str, ObjectKey] = {}
        self._users: Counter[ObjectKey] = Counter()

    async def on_own(self, event: Mapping[str, Any], **_: Any) -> None:
        """An object of ours came, changed or went."""
        body = event["object"]
        metadata, status = body.get("metadata", {}), body.get("status") or {}
        key = ObjectKey(body["kind"], metadata["namespace"], metadata["name"])
        for known_as in _ids(body):
            if event["type"] == "DELETED":
                self._names.pop(known_as, None)
            else:
                self._names[known_as] = key
        self._noticing.observe(event)
        await self._add_users_store(event["type"], body)
        before = self._references.get(metadata["uid"], set())
        referred = self._referred(event["type"], metadata["uid"], status)
        is_backup = key.kind == kinds.VOLUME_BACKUP.kind
        volume = self._relatives.observe(event["type"], key, status) if is_backup else None
        if event["type"] is None and not is_in_progress(body):
            # A watch begins with everything there is; what may have been missed of it, the resync finds by fewer reads.
            return
        if event["type"] != "DELETED":
            await self._queue.add(key, URGENT if is_in_progress(body) else 0.0)
        elif metadata["uid"] in self._marked:
            await self._queue.add(volume_key(self._marked[metadata["uid"]]))
        known = [self._known(key.namespace, backup_id) for backup_id in referred]
        has_ended = self._has_ended(event["type"], metadata["uid"], status)
        if not all(known) and (has_ended or self._references.get(metadata["uid"], set()) != before):
            # Its parent is gone, so only the manifests show which of the others it needs.
            known.append(self._relatives.of(volume) - {key})
        for other in sorted(frozenset().union(*known)):
            # A dependent or a restore says something about the backup that it belongs to.
            await self._queue.add(other)

    def _known(self, namespace: str, backup_id: str) -> frozenset[ObjectKey]:
        """Return the key of the backup with this id, by its UID or by the id that it was imported with; or none."""
        found = (self._names.get(reference) for reference in (backup_id, f"{namespace}/{backup_id}"))
        return frozenset(key for key in found if key is not None)

    async def _add_users_store(self, how: str | None, body: Mapping[str, Any]) -> None:
        """A store is concerned when the first backup begins to need it, and when the last one has ceased to."""
        if body["kind"] != "VolumeBackup":
            return
        metadata, name = body["metadata"], str((body.get("status") or {}).get("storeName") or "")
        needs = bool(name) and how != "DELETED" and labels.BACKUP_FINALIZER in (metadata.get("finalizers") or ())
        before, now = self._used.pop(metadata["uid"], None), ObjectKey("BackupStore", metadata["namespace"], name)
        if needs:
            self._used[metadata["uid"]] = now
        if before == (now if needs else None):
            return
        for store, change in ((before, -1), (now if needs else None, 1)):
            if store is None:
                continue
            self._users[store] += change
            if self._users[store] == (change > 0) and how is not None:
                await self._queue.add(store, STORE_DELAY_SECONDS)

    def _referred(self, how: str | None, uid: str, status: Mapping[str, Any]) -> set[str]:
        """The backups that an object refers to, or did until now: its status may be lost, or name another one."""
        before = self._references.pop(uid, set())
        named = {str(status[field]) for field in ("parentId", "backupId") if status.get(field)}
        if how != "DELETED" and named:
            self._references[uid] = named
        return before | named

    def _has_ended(self, how: str | None, uid: str, status: Mapping[str, Any]) -> bool:
        """Whether an object was being made, and is not any more: only now do manifests tell what it needs."""
        was_unfinished = uid in self._unfinished
        self._unfinished.discard(uid)
        if how != "DELETED" and status.get("phase") == BackupPhase.CREATING:
            self._unfinished.add(uid)
        return was_unfinished and uid not in self._unfinished

    async def on_child(self, event: Mapping[str, Any], **_: Any) -> None:
        """A child came, changed or went: its owner is concerned."""
        metadata = event["object"].get("metadata", {})
        kind = (metadata.get("labels") or {}).get(labels.OWNER_KIND_LABEL)
        name = (metadata.get("annotations") or {}).get(labels.OWNER_NAME_ANNOTATION)
        if kind in OWN_KINDS and name:
            await self._queue.add(ObjectKey(kind, metadata["namespace"], name), IN_HAND)
        if "deletionTimestamp" in metadata and labels.JOB_FINALIZER in (metadata.get("finalizers") or ()):
            await self._queue.add(ObjectKey(kinds.JOB.kind, metadata["namespace"], metadata["name"]))

    async def on_volume(self, event: Mapping[str, Any], **_: Any) -> None:
        """A PersistentVolume that is being handed over came, changed or went: its restore is concerned."""
        metadata = event["object"].get("metadata", {})
        uid = (metadata.get("labels") or {}).get(RESTORE_LABEL, "")
        if event["type"] == "DELETED":
            self._marked.pop(uid, None)
        else:
            self._marked[uid] = metadata["name"]
            # Without a restore that is known, the volume itself is looked at: that may be gone.
            await self._queue.add(self._names.get(uid, volume_key(metadata["name"])))


def volume_key(name: str) -> ObjectKey:
    """The key of a PersistentVolume that is marked."""
    return ObjectKey(kinds.PV.kind, "", name)


def _ids(body: Mapping[str, Any]) -> tuple[str, ...]:
    """By what others refer to an object: its UID; in its namespace, the id that it has imported as well."""
    metadata, imported = body["metadata"], (body.get("spec") or {}).get("import")
    return (metadata["uid"], f"{metadata['namespace']}/{imported['id']}") if imported else (metadata["uid"],)
