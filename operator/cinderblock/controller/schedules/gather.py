"""Read what a schedule needs: the claims that it selects, its VolumeBackups, and the stores of their namespaces.

Everything is read page by page, and only small records of it are kept.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.apply_retention import MAX_WRITES
from cinderblock.controller.schedules.record_limit import RECORDS, RecordLimit, fewest_backups, newest_backups
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.schedule import names, review
from cinderblock.lifecycle.schedule.observed import BackupIndex, ObservedSchedule, StoreChoice
from cinderblock.lifecycle.schedule.volumes import ClaimRecord, record_of_claim
from cinderblock.lifecycle.selector import LabelSelector
from cinderblock.lifecycle.store import access
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.reasons import Reason

OBJECTS_PER_TURN: Final = 100
"""Objects parsed before other tasks of the event loop run: about 10 ms."""
FEW_NAMESPACES: Final = 20
"""Namespaces that are listed one by one. If there are more, one list of all namespaces is read."""
MAX_CLAIMS: Final = 50_000
"""Bound claims that one reconciliation keeps, at about 0.5 KiB each. Namespaces with the most give way."""
DEFAULT_STORES: Final = 20
"""Default BackupStores of a namespace that are kept. More than one is an error, whose message names them."""

T = TypeVar("T", bound=Object)

ClaimLimit = RecordLimit[ClaimRecord]
"""Claims within a limit of memory."""


async def gather(context: Context, observed: ObservedSchedule, backups: RecordLimit[BackupRecord]) -> ObservedSchedule:
    """Return a schedule with its claims, its backups and the stores. Raises what the API server raises."""
    schedule = observed.schedule
    places, found = await _selected(context, observed, backups.unreadable)
    claims = found.records()
    used = {claim.namespace for claim in claims}
    stores = await _stores(context, places, used, schedule.spec.template.spec.store_name)
    return replace(
        observed,
        claims=tuple(claim for claim in claims if claim.namespace not in places.unreadable),
        backups=BackupIndex(backups.records()),
        stores=stores,
        overfull=frozenset(backups.overfull),
        unreadable=places.unreadable,
        crowded=frozenset(found.overfull - places.unreadable.keys()),
    )


async def read_claims(context: Context, observed: ObservedSchedule) -> list[ClaimRecord]:
    """Return the claims with the labels of a schedule that can be backed up. Raises what the API server raises."""
    _, found = await _selected(context, observed, {})
    return found.records()


@dataclass(frozen=True, slots=True)
class Lacking:
    """The selected volumes without a complete backup since a time.

    Attributes:
        volumes: namespace and name of each claim; None: some could not be read.
        count: number of objects that were read.
    """

    volumes: frozenset[tuple[str, str]] | None
    count: int


async def read_lacking(context: Context, observed: ObservedSchedule, since: datetime, now: datetime) -> Lacking:
    """Return the selected volumes without a newer backup of anybody. Raises what the API server raises."""
    places, found = await _selected(context, observed, {})
    selects, count = observed.settings.selection.selects, sum(found.counts.values())
    newer: set[tuple[str, str]] = set()
    async for page in places.pages(context, VolumeBackup, kinds.VOLUME_BACKUP):
        count += len(page)
        records = map(record_of, page)
        newer |= {(record.namespace, record.volume_id) for record in records if review.is_newer(record, since)}
    if places.unreadable or found.overfull:
        return Lacking(None, count)
    claims = (claim for claim in found.records() if selects(claim, now) and (claim.namespace, claim.uid) not in newer)
    return Lacking(frozenset((claim.namespace, claim.name) for claim in claims), count)


async def _selected(
    context: Context, observed: ObservedSchedule, unreadable: Mapping[str, str]
) -> tuple[_Places, ClaimLimit]:
    """Return the lists that were read for a schedule, and its claims."""
    namespaces = await _namespaces(context, observed.settings.namespaces)
    if namespaces is None:
        namespace = observed.schedule.namespace
        selected, places = frozenset([namespace]), _Places([namespace])
    else:
        selected, places = namespaces, _places(context, namespaces, unreadable)
    return places, await _claims(context, places, selected, observed.settings.claims)


async def _namespaces(context: Context, selector: LabelSelector | None) -> frozenset[str] | None:
    """Return the selected namespaces that are not being deleted; None for a schedule of one namespace.

    An operator that works in some namespaces only reads just these.
    """
    if selector is None:
        return None
    if context.kube.namespaces:
        read = await asyncio.gather(*(context.get(Object, kinds.NAMESPACE, name) for name in context.kube.namespaces))
        found = [namespace for namespace in read if namespace and selector.matches(namespace.metadata.labels)]
    else:
        found = [
            namespace
            async for page in parsed_pages(context, Object, kinds.NAMESPACE, None, selector.query)
            for namespace in page
        ]
    return frozenset(namespace.name for namespace in found if not namespace.metadata.is_being_deleted)


@dataclass(slots=True)
class _Places:
    """The lists to read for a schedule.

    Attributes:
        lists: namespaces; None is the list of all.
        skips: whether a namespace that may not be read holds up no other.
        unreadable: why namespaces could not be read.
    """

    lists: Sequence[str | None]
    skips: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)

    async def pages(self, context: Context, model: type[T], kind: Kind, query: str = "") -> AsyncIterator[list[T]]:
        """Yield some objects at a time of all lists, and take note of namespaces that may not be read."""
        for place in self.lists:
            if place in self.unreadable:
                continue
            try:
                async for page in parsed_pages(context, model, kind, place, query):
                    yield page
            except AccessDenied as error:
                if not self.skips or place is None or error.reason == Reason.UNAUTHORIZED:
                    raise
                self.unreadable[place] = error.message


def _places(context: Context, namespaces: Collection[str], unreadable: Mapping[str, str]) -> _Places:
    """Return the lists to read for a ClusterBackupSchedule.

    An operator that works in some namespaces reads each of them for itself: one list would leave out those that it may
    not read, and nobody would notice.
    """
    is_few = len(namespaces) <= FEW_NAMESPACES or bool(context.kube.namespaces)
    known = {namespace: why for namespace, why in unreadable.items() if namespace in namespaces}
    return _Places(sorted(namespaces) if is_few else [None], skips=True, unreadable=known)


async def _claims(
    context: Context, places: _Places, namespaces: Collection[str], selector: LabelSelector
) -> ClaimLimit:
    """Return the claims with the labels that can be backed up. Anybody may create any number of others.

    After a list has expired, some come twice, so each UID counts once.
    """
    found = ClaimLimit(MAX_CLAIMS)
    async for page in places.pages(context, PersistentVolumeClaim, kinds.PVC, selector.query):
        for record in map(record_of_claim, page):
            if record.namespace in namespaces and record.is_usable:
                found.add(record)
    return found


async def _stores(
    context: Context, places: _Places, namespaces: Collection[str], name: str | None
) -> dict[str, StoreChoice]:
    """Return the store of each namespace: the one with the name, or the default one."""
    found: dict[str, dict[str, BackupStore]] = defaultdict(dict)
    if not namespaces:
        return {}
    async for page in places.pages(context, BackupStore, kinds.BACKUP_STORE):
        for store in page:
            kept = found[store.namespace]
            is_wanted = store.name == name if name is not None else store.is_default
            if is_wanted and not store.is_leaving and len(kept) < DEFAULT_STORES:
                kept[store.name] = store
    return {namespace: _choice(namespace, list(found[namespace].values()), name) for namespace in namespaces}


def _choice(namespace: str, stores: list[BackupStore], name: str | None) -> StoreChoice:
    if name is None:
        lookup = default_store(stores, namespace)
    elif stores:
        lookup = StoreLookup(stores[0])
    else:
        lookup = StoreLookup(missing=f"BackupStore {name} could not be found in namespace {namespace}.")
    if lookup.store is None:
        return StoreChoice(missing=lookup.missing)
    refused = access.refusal(lookup.store)
    return StoreChoice(lookup.store.name, read_only=refused.message if refused is not None else "")


async def read_backups(context: Context, schedule: ObjectKey) -> RecordLimit[BackupRecord]:
    """Return the VolumeBackups of a schedule. The label finds them, and the annotation tells which kind it has.

    An operator that works in some namespaces reads each of them for itself, and skips those that it may not read.
    """
    found = RecordLimit(reductions=(newest_backups, fewest_backups))
    async for record in _records(context, schedule, found.unreadable):
        found.add(record)
    return found


async def read_marked(context: Context, schedule: ObjectKey) -> list[BackupRecord]:
    """Return the backups of a schedule that expire, or of each namespace more of them than one call can write.

    The others take no memory here, so marks are also found in a namespace with too many backups.
    """
    found: dict[str, dict[str, BackupRecord]] = defaultdict(dict)
    count = 0
    async for record in _records(context, schedule, {}):
        if record.expires_at is not None and count < RECORDS and len(found[record.namespace]) <= MAX_WRITES:
            found[record.namespace][record.uid] = record
            count += 1
    return [record for of_namespace in found.values() for record in of_namespace.values()]


async def records_of_namespace(context: Context, schedule: ObjectKey, namespace: str) -> AsyncIterator[BackupRecord]:
    """Yield the backups of a schedule in one namespace. Raises what the API server raises."""
    async for record in _of_places(context, schedule, _Places([namespace])):
        yield record


async def _records(context: Context, schedule: ObjectKey, unreadable: dict[str, str]) -> AsyncIterator[BackupRecord]:
    """Yield the backups of a schedule, and take note of namespaces that may not be read."""
    places = _Places([schedule.namespace or None], unreadable=unreadable)
    if not schedule.namespace and context.kube.namespaces:
        places = _Places(context.kube.namespaces, skips=True, unreadable=unreadable)
    async for record in _of_places(context, schedule, places):
        yield record


async def _of_places(context: Context, schedule: ObjectKey, places: _Places) -> AsyncIterator[BackupRecord]:
    reference = f"{schedule.kind}/{schedule.name}"
    query = f"{labels.SCHEDULE_LABEL}={names.label_of(schedule.name)}"
    async for page in places.pages(context, VolumeBackup, kinds.VOLUME_BACKUP, query):
        for backup in page:
            if backup.metadata.annotations.get(labels.SCHEDULE_ANNOTATION) == reference:
                yield record_of(backup)


async def parsed_pages(
    context: Context, model: type[T], kind: Kind, namespace: str | None, query: str = "", *, fields: str = ""
) -> AsyncGenerator[list[T], None]:
    """Yield some objects at a time, with pauses. After a list has expired, all come again."""
    async for page in context.kube.pages(kind, namespace, labels=query, fields=fields):
        bodies = page or []
        for start in range(0, len(bodies), OBJECTS_PER_TURN):
            yield parse_all(model, bodies[start : start + OBJECTS_PER_TURN])
            await asyncio.sleep(0)
