"""Translates events into keys: an event adds the keys of the objects that it concerns to the queue, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cinderblock.api import labels
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.controller.handlers.access_waiters import AccessWaiters
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.asking_claims import AskingClaims
from cinderblock.controller.handlers.event_bridge import Event
from cinderblock.controller.handlers.grant_waiters import GrantWaiters
from cinderblock.controller.reconcile.volume_index import VolumeIndex
from cinderblock.controller.request import (
    OWN_KINDS,
    ObjectKey,
    is_in_progress,
    key_of,
    schedule_key,
    volume_key,
)
from cinderblock.controller.workqueue import Priority, WorkQueue
from cinderblock.kube import kinds

STORE_DELAY_SECONDS = 2.0
"""Seconds by which a BackupStore is reconciled after a change of its users, so that many changes cost one pass."""

SCHEDULE_DELAY_SECONDS = 30.0
"""Seconds by which a schedule is reconciled after one of its backups has changed, for example by a hold."""

CHILD_KINDS = (kinds.JOB, kinds.POD, kinds.PVC, kinds.VOLUME_SNAPSHOT)
"""Kinds of children. The API server only sends those with the operator's label."""

MANAGED_SELECTOR = f"{labels.MANAGED_BY_LABEL}={labels.MANAGED_BY}"


class EventHandler:
    """An `EventSink` that adds keys to the work queue.

    Args:
        queue: the work queue.
        acknowledger: receives the events about custom resources as well.
    """

    def __init__(self, queue: WorkQueue, acknowledger: Acknowledger) -> None:
        self._queue = queue
        self._acknowledger = acknowledger
        self._keys: dict[str, ObjectKey] = {}
        """By UID, and by namespace and imported id."""
        self._volumes: dict[str, str] = {}
        """Names of marked PersistentVolumes, by the UID of their VolumeRestore."""
        self._references: dict[str, set[str]] = {}
        """Ids of the backups that an object refers to, by its UID."""
        self._volume_index = VolumeIndex()
        self._creating: set[str] = set()
        """UIDs of the objects in phase creating."""
        self._store_of: dict[str, ObjectKey] = {}
        """The BackupStore that a VolumeBackup uses, by the backup's UID."""
        self._users: Counter[ObjectKey] = Counter()
        """Number of VolumeBackups that use a BackupStore."""
        self._schedules: set[ObjectKey] = set()
        self._access_waiters = AccessWaiters()
        self._grant_waiters = GrantWaiters()
        self._asking = AskingClaims()

    async def on_custom_resource(self, event: Event) -> None:
        """Add the object itself, and the objects whose status depends on it."""
        change, body = event["type"], event["object"]
        metadata, status = body.get("metadata", {}), body.get("status") or {}
        key = ObjectKey(body["kind"], metadata["namespace"], metadata["name"])
        self._update_keys(change, body, key)
        self._acknowledger.observe(event)
        for waiter in self._access_waiters.observe(change, key, status):
            await self._queue.add(waiter)
        self._grant_waiters.observe(change, key, body)
        await self._add_store(change, body)
        await self._add_schedule(change, body)
        await self._add_owner(body)
        previous = self._references.get(metadata["uid"], set())
        refers = key.kind != kinds.BACKUP_VERIFICATION.kind
        references = self._update_references(change, metadata["uid"], status if refers else {})
        is_backup = key.kind == kinds.VOLUME_BACKUP.kind
        volume = self._volume_index.observe(change, key, status) if is_backup else None
        if change is None and not is_in_progress(body):
            # A watch begins with all existing objects. The resync finds with fewer reads which of them need work.
            return
        if change != "DELETED":
            await self._queue.add(key, priority=Priority.HIGH if is_in_progress(body) else Priority.NORMAL)
        elif metadata["uid"] in self._volumes:
            await self._queue.add(volume_key(self._volumes[metadata["uid"]]))
        source = str(status.get("backupNamespace") or key.namespace)
        related = [self._keys_of_backup(source, backup_id) for backup_id in references]
        has_left_creating = self._update_creating(change, metadata["uid"], status)
        if not all(related) and (has_left_creating or self._references.get(metadata["uid"], set()) != previous):
            # Its parent is gone, so only the manifests show which of the other backups it needs.
            related.append(self._volume_index.of(volume) - {key})
        if is_backup:
            # A new backup may be what a grant selects. The watch leaves out changes of labels, which cost a minute.
            related.append(frozenset(self._grant_waiters.waiting_for(key.namespace)))
        for other in sorted(frozenset().union(*related)):
            await self._queue.add(other)

    async def _add_owner(self, body: dict[str, Any]) -> None:
        """Add the BackupVerification or the claim of a VolumeRestore, if it is known by its UID."""
        metadata = body["metadata"]
        key = self._keys.get(str((metadata.get("labels") or {}).get(labels.OWNER_UID_LABEL, "")))
        is_owner = key is not None and key.kind in (kinds.BACKUP_VERIFICATION.kind, kinds.PVC.kind)
        if key is not None and is_owner and key.namespace == metadata["namespace"]:
            await self._queue.add(key, priority=Priority.STARTED)

    async def on_schedule(self, event: Event) -> None:
        """Add a schedule that was changed or deleted. In between it acts by the clock, so its status adds nothing.

        A watch begins with all existing objects. One of them may have changed after the resync had listed it.
        """
        change, body = event["type"], event["object"]
        key = key_of(body)
        if change == "DELETED":
            self._schedules.discard(key)
        else:
            self._schedules.add(key)
        if change == "DELETED" or is_in_progress(body):
            await self._queue.add(key, priority=Priority.HIGH)

    async def on_cluster_store(self, event: Event) -> None:
        """Add a ClusterBackupStore that was changed or deleted. In between, it is reconciled by the clock."""
        body = event["object"]
        if event["type"] is not None or is_in_progress(body):
            await self._queue.add(key_of(body), priority=Priority.HIGH if is_in_progress(body) else Priority.NORMAL)

    async def on_grant(self, event: Event) -> None:
        """Add a BackupGrant that was changed, and the restores that wait for one in its namespace."""
        change, body = event["type"], event["object"]
        if change != "DELETED" and is_in_progress(body):
            await self._queue.add(key_of(body), priority=Priority.HIGH)
        for waiter in self._grant_waiters.waiting_for(body["metadata"]["namespace"]):
            await self._queue.add(waiter)

    async def on_source(self, event: Event) -> None:
        """Add a RestoreSource that was changed, and the claims of its namespace that wait for their content."""
        change, body = event["type"], event["object"]
        if change != "DELETED" and is_in_progress(body):
            await self._queue.add(key_of(body), priority=Priority.HIGH)
        if change is not None:
            for waiter in self._asking.waiting_in(body["metadata"]["namespace"]):
                await self._queue.add(waiter)

    async def on_claim(self, event: Event) -> None:
        """Add a claim that asks for its content, and its restore, which waits for the claim to be bound."""
        change, body = event["type"], event["object"]
        metadata = body["metadata"]
        key = ObjectKey(kinds.PVC.kind, metadata["namespace"], metadata["name"])
        is_waiting = self._asking.observe(change, key, body)
        if change == "DELETED":
            self._keys.pop(metadata["uid"], None)
        else:
            self._keys[metadata["uid"]] = key
        if change is not None or is_waiting:
            # Also a claim that is gone: its memory can be forgotten.
            await self._queue.add(key)
        if change is not None and not is_waiting:
            name = labels.populate_name(metadata["uid"])
            await self._queue.add(ObjectKey(kinds.VOLUME_RESTORE.kind, key.namespace, name), priority=Priority.STARTED)

    async def _add_schedule(self, change: str | None, body: dict[str, Any]) -> None:
        """Add the schedule of a backup that has ended, so that retention takes note of it."""
        if body["kind"] != kinds.VOLUME_BACKUP.kind or change is None or is_in_progress(body):
            return
        schedule = schedule_key(body["metadata"]["namespace"], body["metadata"].get("annotations") or {})
        if schedule in self._schedules:
            await self._queue.add(schedule, SCHEDULE_DELAY_SECONDS)

    def _update_keys(self, change: str | None, body: Mapping[str, Any], key: ObjectKey) -> None:
        for reference in _ids(body):
            if change == "DELETED":
                self._keys.pop(reference, None)
            else:
                self._keys[reference] = key

    def _keys_of_backup(self, namespace: str, backup_id: str) -> frozenset[ObjectKey]:
        """Return the key of the backup with this id, by its UID or by the id that it was imported with; or none."""
        found = (self._keys.get(reference) for reference in (backup_id, f"{namespace}/{backup_id}"))
        return frozenset(key for key in found if key is not None)

    async def _add_store(self, change: str | None, body: Mapping[str, Any]) -> None:
        """Add a BackupStore when its first user appears, and when its last user is gone."""
        if body["kind"] != "VolumeBackup":
            return
        metadata, name = body["metadata"], str((body.get("status") or {}).get("storeName") or "")
        is_user = bool(name) and change != "DELETED" and labels.BACKUP_FINALIZER in (metadata.get("finalizers") or ())
        previous = self._store_of.pop(metadata["uid"], None)
        current = ObjectKey("BackupStore", metadata["namespace"], name) if is_user else None
        if current is not None:
            self._store_of[metadata["uid"]] = current
        if previous == current:
            return
        if previous is not None:
            self._users[previous] -= 1
            if not self._users[previous]:
                del self._users[previous]
                await self._add_changed_store(change, previous)
        if current is not None:
            self._users[current] += 1
            if self._users[current] == 1:
                await self._add_changed_store(change, current)

    async def _add_changed_store(self, change: str | None, store: ObjectKey) -> None:
        if change is not None:
            await self._queue.add(store, STORE_DELAY_SECONDS)

    def _update_references(self, change: str | None, uid: str, status: Mapping[str, Any]) -> set[str]:
        """Return the ids of the backups that an object refers to now or did before.

        Both count: its status may be lost, or may name another backup now.
        """
        previous = self._references.pop(uid, set())
        current = {str(status[field]) for field in ("parentId", "backupId") if status.get(field)}
        if change != "DELETED" and current:
            self._references[uid] = current
        return previous | current

    def _update_creating(self, change: str | None, uid: str, status: Mapping[str, Any]) -> bool:
        """Return whether an object has left phase creating: from now on, its manifest tells what it needs."""
        was_creating = uid in self._creating
        self._creating.discard(uid)
        if change != "DELETED" and status.get("phase") == BackupPhase.CREATING:
            self._creating.add(uid)
        return was_creating and uid not in self._creating

    async def on_child(self, event: Event) -> None:
        """Add the owner of the child, if it is known by its UID.

        Anybody can set labels and annotations, and name any owner. So a child of an unknown owner adds nothing, and the
        names of a child are not used. Every operation in progress also comes back by itself.
        """
        metadata = event["object"].get("metadata", {})
        owner = (metadata.get("labels") or {}).get(labels.OWNER_UID_LABEL)
        key = self._keys.get(owner) if isinstance(owner, str) else None
        if key is not None and key.kind in OWN_KINDS and key.namespace == metadata.get("namespace"):
            await self._queue.add(key, priority=Priority.STARTED)
        if "deletionTimestamp" in metadata and labels.JOB_FINALIZER in (metadata.get("finalizers") or ()):
            await self._queue.add(ObjectKey(kinds.JOB.kind, metadata["namespace"], metadata["name"]))

    async def on_persistent_volume(self, event: Event) -> None:
        """Add the VolumeRestore that marked the volume, or the volume itself if no such VolumeRestore is known."""
        metadata = event["object"].get("metadata", {})
        uid = (metadata.get("labels") or {}).get(RESTORE_LABEL, "")
        if event["type"] == "DELETED":
            self._volumes.pop(uid, None)
        else:
            self._volumes[uid] = metadata["name"]
            await self._queue.add(self._keys.get(uid, volume_key(metadata["name"])))


def _ids(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what others refer to an object by: its UID, and in its namespace the id that it was imported with."""
    metadata, imported = body["metadata"], (body.get("spec") or {}).get("import")
    if not imported or body["kind"] != kinds.VOLUME_BACKUP.kind:
        return (metadata["uid"],)
    return metadata["uid"], f"{metadata['namespace']}/{imported['id']}"
