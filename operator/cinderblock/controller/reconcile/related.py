"""The other operations of a namespace that a decision depends on: all if they are few, else the related ones.

A list of ten thousand backups takes more than a second to read, and every step of every backup needs its relatives. So
where there are many, the API server selects the operations on the same volume, the dependents of the same backup, and
its restores. Even these may be very many: they are read page by page, and `relatives` keeps the few that matter.
Selectors cannot find an object that has lost its status and names nothing: its own reconciliation does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from cinderblock.api import labels, layout
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.relatives import (
    KEPT_OF_A_GROUP,
    NamedBackup,
    ObstaclesOfRestore,
    RelativesOfImport,
    RestoresOfBackup,
    SiblingsOfBackup,
    SiblingsOfExpired,
)
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, JsonObjects
from cinderblock.kube.kinds import Kind
from cinderblock.kube.queries import looks_like_uid
from cinderblock.lifecycle.conditions import waiting_since
from cinderblock.lifecycle.restore.checks import ended_before, is_in_place
from cinderblock.reasons import Reason

LIST_ALL_LIMIT: Final = 100
"""Most objects of a namespace that are listed without selectors, which takes 12 ms of processor time. Up to eight
selections take 10 ms."""
OBJECTS_PER_TURN: Final = 100
"""Objects parsed before other tasks of the event loop run: about 10 ms."""

_KINDS: Final[dict[type, Kind]] = {VolumeBackup: kinds.VOLUME_BACKUP, VolumeRestore: kinds.VOLUME_RESTORE}

T = TypeVar("T", VolumeBackup, VolumeRestore)


@dataclass(frozen=True, slots=True)
class RelatedToBackup:
    """The operations of a namespace that matter to a VolumeBackup.

    Attributes:
        backups: other VolumeBackups.
        restores: VolumeRestores.
        count: number of all VolumeBackups of the namespace.
        present_parents: ids of parents of other backups that exist, although they may not be among ``backups``.
    """

    backups: tuple[VolumeBackup, ...]
    restores: tuple[VolumeRestore, ...]
    count: int
    present_parents: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RelatedToRestore:
    """The operations of a namespace that matter to a VolumeRestore.

    Attributes:
        backup: the VolumeBackup to restore.
        backups: VolumeBackups.
        restores: other VolumeRestores.
        count: number of all VolumeRestores of the namespace.
    """

    backup: VolumeBackup | None
    backups: tuple[VolumeBackup, ...]
    restores: tuple[VolumeRestore, ...]
    count: int


async def related_to_backup(
    context: Context,
    backup: VolumeBackup,
    claim: PersistentVolumeClaim | None,
    before: datetime | None = None,
    *,
    has_children: bool = False,
) -> RelatedToBackup:
    """Return the other VolumeBackups and the VolumeRestores that matter to a backup of ``claim``.

    If the namespace has too many VolumeBackups for this one to begin, only their number is returned.

    Args:
        context: what to read with.
        backup: the VolumeBackup.
        claim: its volume.
        before: the time of the snapshot that it names, which its parent must be older than; None: there is none.
        has_children: whether it has a snapshot or a claim, so that it has begun although its status may not say so.
    """
    # An ended backup needs no count, and in a large namespace it needs others than the first ones.
    first = _first_of_small if backup.has_ended else _list_first
    (backups, is_all, count), (restores, are_all, _) = await asyncio.gather(
        first(context, VolumeBackup, backup.namespace),
        _list_first(context, VolumeRestore, backup.namespace),
    )
    if count > context.policy.object_limit and not has_children and _has_not_begun(backup):
        return RelatedToBackup((), (), count)
    status = backup.status
    recorded = {name for name in (status.volume_id, status.volume_name) if name} if backup.has_unknown_alarm else set()
    volumes = _each("spec.volumeId", {claim.uid, claim.name} if claim else recorded)
    present_parents: frozenset[str] = frozenset()
    if not is_all:
        backups, present_parents = await _select_siblings(context, backup, claim, before, volumes)
    if not are_all:
        chosen = RestoresOfBackup(backup, claim)
        selectors = [f"status.backupId={backup.backup_id}", *volumes]
        await _observe(context, VolumeRestore, backup.namespace, selectors, chosen.observe)
        restores = chosen.kept()
    others = tuple(other for other in backups if other.uid != backup.uid)
    return RelatedToBackup(others, restores, count, present_parents)


async def _select_siblings(
    context: Context,
    backup: VolumeBackup,
    claim: PersistentVolumeClaim | None,
    before: datetime | None,
    volumes: list[str],
) -> tuple[tuple[VolumeBackup, ...], frozenset[str]]:
    """Return the other VolumeBackups that matter, and the ids of the parents that exist."""
    namespace = backup.namespace
    chosen = SiblingsOfBackup(backup, context.policy, claim, before)
    recorded = backup.status.volume_id if backup.own_phase else None
    volume_ids = {claim.uid} if claim else {recorded} if recorded else set()
    parents = {backup.status.parent_id} if backup.own_phase and backup.status.parent_id else set()
    selectors = [
        f"status.parentId={backup.backup_id}",
        *volumes,
        *_each("status.volumeId", volume_ids),
        *_each("status.id", parents),
    ]
    await _observe(context, VolumeBackup, namespace, selectors, chosen.observe)
    for parent in parents:
        if not chosen.has_seen_parent:
            # Its status may be lost.
            await _search(context, namespace, partial(_has_id, parent), chosen.observe)
    bodies = await asyncio.gather(
        *(context.kube.get(kinds.VOLUME_BACKUP, name, namespace) for name in chosen.orphans())
    )
    orphans = parse_all(VolumeBackup, [body for body in bodies if body is not None])
    return (*chosen.kept(), *orphans), chosen.present_parents()


async def list_by_id(context: Context, backup: VolumeBackup, ids: Collection[str]) -> list[VolumeBackup]:
    """Return the other VolumeBackups of the volume of a backup with one of these ids, of very many only the first.

    There may be very many ids, and any of them may be the only one that a VolumeBackup has.
    """
    wanted, found = frozenset(ids), list[VolumeBackup]()

    def observe(other: VolumeBackup) -> None:
        if other.uid != backup.uid and other.backup_id in wanted and len(found) < KEPT_OF_A_GROUP:
            found.append(other)

    volume_id, volume_name = backup.status.volume_id, backup.status.volume_name
    references = {reference for reference in (volume_id, volume_name) if reference}
    selectors = [*_each("spec.volumeId", references), *_each("status.volumeId", {volume_id} if volume_id else set())]
    await _observe(context, VolumeBackup, backup.namespace, selectors, observe)
    return found


async def related_to_restore(
    context: Context,
    restore: VolumeRestore,
    target: PersistentVolumeClaim | None,
    granted: VolumeBackup | None = None,
) -> RelatedToRestore:
    """Return the backup to restore, and the VolumeBackups and other VolumeRestores that matter to ``target``.

    If the namespace has too many VolumeRestores for this one to begin, only their number is returned.

    Args:
        context: what to read with.
        restore: the VolumeRestore.
        target: the existing claim that it overwrites, or the claim with the name of the new one.
        granted: the backup of another namespace that it may restore. None is looked for in its own namespace then.
    """
    (backups, is_all, _), (restores, are_all, count) = await asyncio.gather(
        _list_first(context, VolumeBackup, restore.namespace),
        _list_first(context, VolumeRestore, restore.namespace),
    )
    if count > context.policy.object_limit and _has_not_begun(restore) and not await _has_mover(context, restore):
        return RelatedToRestore(None, (), (), count)
    volumes = _each("spec.volumeId", {target.uid, target.name} if target and is_in_place(restore) else set())
    recorded = restore.status.backup_id if restore.own_phase else None
    asked = recorded or restore.spec.backup_id
    found = granted
    if restore.granted_from is None and asked is not None:
        wanted = NamedBackup(asked, is_recorded=recorded is not None)
        found = await _find_backup(context, restore.namespace, wanted, backups, is_all=is_all)
    chosen = ObstaclesOfRestore(restore, context.policy, found, target)
    if not is_all:
        await _observe(context, VolumeBackup, restore.namespace, volumes, chosen.observe_backup)
        backups = chosen.backups()
    if not are_all:
        # One without a phase is new or has lost its status, and may be creating the same claim.
        phases = ["status.phase=restoring"] if is_in_place(restore) else ["status.phase=restoring", "status.phase="]
        selectors = [*phases, *volumes]
        await _observe(context, VolumeRestore, restore.namespace, selectors, chosen.observe_restore)
        restores = chosen.restores()
    others = tuple(other for other in restores if other.uid != restore.uid)
    return RelatedToRestore(found, backups, others, count)


async def find_backup(context: Context, namespace: str, reference: str) -> VolumeBackup | None:
    """Return the VolumeBackup with this id, UID or name; None if there is none."""
    first, is_all, _ = await _list_first(context, VolumeBackup, namespace)
    return await _find_backup(context, namespace, NamedBackup(reference), first, is_all=is_all)


async def observe_backups(
    context: Context, namespace: str, selectors: list[str], observe: Callable[[VolumeBackup], object]
) -> None:
    """Pass each VolumeBackup that a field selector matches on, once, page by page. Most of its spec is left out."""
    await _observe(context, VolumeBackup, namespace, selectors, observe)


async def _find_backup(
    context: Context, namespace: str, chosen: NamedBackup, first: Collection[VolumeBackup], *, is_all: bool
) -> VolumeBackup | None:
    """Return the backup that an operation names.

    Args:
        context: what to read with.
        namespace: the namespace.
        chosen: the name.
        first: the first VolumeBackups of the namespace.
        is_all: whether these are all. Otherwise a better match than the best of them may follow.
    """
    for backup in first:
        chosen.observe(backup)
    if is_all or chosen.is_certain:
        return chosen.found
    selectors = [f"status.id={chosen.reference}"]
    if not chosen.is_recorded:
        selectors.append(f"metadata.name={chosen.reference}")
    await _observe(context, VolumeBackup, namespace, selectors, chosen.observe)
    if not chosen.is_certain and (chosen.is_recorded or looks_like_uid(chosen.reference)):
        # The API server cannot select by UID, and a status may be lost.
        await _search(context, namespace, partial(_has_id, chosen.reference), chosen.observe)
    return chosen.found


async def related_to_import(context: Context, backup: VolumeBackup) -> RelatedToBackup:
    """Return the operations that matter to an import: those that have its id, or depend on it."""
    backup_id, namespace = backup.backup_id, backup.namespace
    relatives = RelativesOfImport(backup, context.policy)
    for name in await context.id_index.names(context.kube, backup):
        other = await context.kube.get(kinds.VOLUME_BACKUP, name, namespace)
        for parsed in parse_all(VolumeBackup, [other] if other is not None else []):
            relatives.observe(parsed)
    chosen = RestoresOfBackup(backup, None)
    selectors = [f"status.backupId={backup_id}"]
    await _observe(context, VolumeRestore, namespace, selectors, chosen.observe)
    return RelatedToBackup(relatives.kept(), chosen.kept(), 0)


async def related_to_expired(context: Context, backup: VolumeBackup) -> SiblingsOfExpired:
    """Return the operations that matter to an expired backup: other expired ones of its volume, and obstacles."""
    chosen, namespace = SiblingsOfExpired(backup), backup.namespace
    volume_id = backup.status.volume_id
    await _observe(context, VolumeBackup, namespace, _each("status.volumeId", {volume_id or ""}), chosen.observe)
    await _observe(context, VolumeRestore, namespace, ["status.phase=restoring"], chosen.observe_restore)
    return chosen


async def list_staying(
    context: Context, store: BackupStore, container: str, volume_id: str, uid: str
) -> dict[str, str]:
    """Return the complete VolumeBackups of a volume that stay in a container: their names, by the ids in the store.

    A backup that was imported under an id of its own has the id of its manifest there. The one with ``uid`` is going.
    """
    found: dict[str, str] = {}
    place = (store.name, container, volume_id)

    def observe(other: VolumeBackup) -> None:
        status = other.status
        if not other.is_complete or other.metadata.is_being_deleted or other.uid == uid:
            return
        if (status.store_name, status.container, status.volume_id) == place:
            ids = layout.stored_ids(status.manifest_key or "", store.spec.prefix)
            found[ids[1] if ids else other.backup_id] = other.name

    await _observe(context, VolumeBackup, store.namespace, _each("status.volumeId", {volume_id}), observe)
    return found


async def list_store_users(context: Context, store: BackupStore) -> tuple[str, ...]:
    """Return the names of VolumeBackups that need a store; only the first ones if there are very many."""
    fields = f"status.storeName={store.name}"
    bodies, more = await context.kube.list_first(kinds.VOLUME_BACKUP, store.namespace, LIST_ALL_LIMIT, fields=fields)
    users = _users(bodies, store)
    if users or not more:
        return users
    async for page in context.kube.pages(kinds.VOLUME_BACKUP, store.namespace, fields=fields):
        users = _users(page or [], store)
        if users:
            break
    return users[:LIST_ALL_LIMIT]


async def has_own_backups(context: Context, store: BackupStore) -> bool:
    """Return whether VolumeBackups exist whose mover this cluster has started for a store."""
    fields = f"status.storeName={store.name}"
    async for page in context.kube.pages(kinds.VOLUME_BACKUP, store.namespace, fields=fields):
        backups = parse_all(VolumeBackup, page or [])
        if any(_is_made_here(backup) for backup in backups):
            return True
    return False


def _is_made_here(backup: VolumeBackup) -> bool:
    has_begun = backup.own_phase is not None and backup.status.manifest_key is not None
    return backup.spec.import_ is None and has_begun


async def list_unsealed(context: Context, store: BackupStore) -> tuple[tuple[str, ...], bool]:
    """Return the names of complete, unencrypted VolumeBackups in a store, and whether these are all of them.

    If there are very many, the first ones are enough for a message.
    """
    fields = f"status.storeName={store.name},status.sealed=false"
    bodies, more = await context.kube.list_first(kinds.VOLUME_BACKUP, store.namespace, LIST_ALL_LIMIT, fields=fields)
    backups = parse_all(VolumeBackup, bodies)
    return tuple(backup.name for backup in backups if backup.is_complete), not more


def _users(bodies: JsonObjects, store: BackupStore) -> tuple[str, ...]:
    return tuple(backup.name for backup in parse_all(VolumeBackup, bodies) if _needs(backup, store))


def _needs(backup: VolumeBackup, store: BackupStore) -> bool:
    """Return whether the store may hold data of the backup. The finalizer shows that it was not dealt with yet."""
    is_recorded = backup.own_phase is not None and backup.status.store_name == store.name
    return is_recorded and labels.BACKUP_FINALIZER in backup.metadata.finalizers


def _has_not_begun(operation: VolumeBackup | VolumeRestore) -> bool:
    """Return whether an operation is new, or waits because its namespace has too many objects."""
    if operation.metadata.is_being_deleted or operation.has_ended:
        return False
    waits = waiting_since(operation.status.conditions, Reason.TOO_MANY_OBJECTS) is not None
    return waits or (operation.own_phase is None and not _is_forgotten(operation))


def _is_forgotten(operation: VolumeBackup | VolumeRestore) -> bool:
    """Return whether the metadata shows that the operator has worked on an operation without a status."""
    if isinstance(operation, VolumeBackup):
        return labels.BACKUP_FINALIZER in operation.metadata.finalizers
    return labels.RESTORE_FINALIZER in operation.metadata.finalizers or ended_before(operation) is not None


async def _has_mover(context: Context, restore: VolumeRestore) -> bool:
    """Return whether a mover Job of a restore exists. The operator may have died before it recorded that Job."""
    return await context.kube.get(kinds.JOB, labels.child_name(restore.uid), restore.namespace) is not None


def _has_id(backup_id: str, body: JsonObject) -> bool:
    """Return whether this is the UID of a VolumeBackup, or the id that it is or was imported with."""
    source, status = (body.get("spec") or {}).get("import") or {}, body.get("status") or {}
    return backup_id in (body["metadata"]["uid"], source.get("id"), status.get("id"))


def _each(field: str, values: set[str]) -> list[str]:
    return [f"{field}={value}" for value in sorted(values)]


async def _list_first(context: Context, model: type[T], namespace: str) -> tuple[tuple[T, ...], bool, int]:
    """Return the first objects of a namespace, whether these are all, and how many there are."""
    bodies, more = await context.kube.list_first(_KINDS[model], namespace, LIST_ALL_LIMIT)
    context.large_namespaces.note(namespace, model, is_large=bool(more))
    return tuple(parse_all(model, bodies)), not more, len(bodies) + more


async def _first_of_small(context: Context, model: type[T], namespace: str) -> tuple[tuple[T, ...], bool, int]:
    """Return the same, but no objects of a namespace that was large a moment ago."""
    if context.large_namespaces.is_large(namespace, model):
        return (), False, 0
    return await _list_first(context, model, namespace)


async def _search(
    context: Context, namespace: str, matches: Callable[[JsonObject], bool], observe: Callable[[VolumeBackup], object]
) -> None:
    """Pass each VolumeBackup of a namespace that matches on, once, and keep none. All pages are read."""
    seen: set[str] = set()
    async for page in context.kube.pages(kinds.VOLUME_BACKUP, namespace):
        found = [body for body in page or () if matches(body) and body["metadata"]["uid"] not in seen]
        seen |= {body["metadata"]["uid"] for body in found}
        for start in range(0, len(found), OBJECTS_PER_TURN):
            for backup in parse_all(VolumeBackup, found[start : start + OBJECTS_PER_TURN]):
                observe(backup)
            await asyncio.sleep(0)


async def _observe(
    context: Context, model: type[T], namespace: str, selectors: list[str], observe: Callable[[T], object]
) -> None:
    """Pass each object that a selector matches on, once, and keep none."""
    seen: set[str] = set()

    async def read(fields: str) -> None:
        async for operation in _each_parsed(context, model, namespace, fields):
            if operation.uid not in seen:
                seen.add(operation.uid)
                observe(operation)

    await asyncio.gather(*map(read, selectors))


async def _each_parsed(context: Context, model: type[T], namespace: str, fields: str) -> AsyncIterator[T]:
    async for page in context.kube.pages(_KINDS[model], namespace, fields=fields):
        bodies = page or []
        for start in range(0, len(bodies), OBJECTS_PER_TURN):
            for operation in parse_all(model, bodies[start : start + OBJECTS_PER_TURN]):
                yield operation
            await asyncio.sleep(0)
