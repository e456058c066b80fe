"""Read what a schedule needs: the claims that it selects, its VolumeBackups, and the stores of their namespaces.

Everything is read page by page, and only small records of it are kept.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import Final, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.observed import BackupIndex, ObservedSchedule, StoreChoice
from cinderblock.lifecycle.schedule.selector import LabelSelector
from cinderblock.lifecycle.schedule.volumes import ClaimRecord, record_of_claim
from cinderblock.lifecycle.store.decide import default_store

OBJECTS_PER_TURN: Final = 100
"""Objects parsed before other tasks of the event loop run: about 10 ms."""
FEW_NAMESPACES: Final = 20
"""Namespaces that are listed one by one. If there are more, one list of all namespaces is read."""
DEFAULT_STORES: Final = 20
"""Default BackupStores of a namespace that are kept. More than one is an error, whose message names them."""

T = TypeVar("T", bound=Object)


async def gather(context: Context, observed: ObservedSchedule, backups: RecordLimit[BackupRecord]) -> ObservedSchedule:
    """Return a schedule with its claims, its backups and the stores. Raises what the API server raises."""
    schedule = observed.schedule
    namespaces = await _namespaces(context, observed.settings.namespaces)
    places = [schedule.namespace] if namespaces is None else list_places(namespaces)
    selected = frozenset([schedule.namespace]) if namespaces is None else namespaces
    claims = await _claims(context, places, selected, observed.settings.claims)
    used = {claim.namespace for claim in claims}
    stores = await _stores(context, places, used, schedule.spec.template.spec.store_name)
    return replace(
        observed,
        claims=tuple(claims),
        backups=BackupIndex(backups.records()),
        stores=stores,
        overfull=frozenset(backups.overfull),
    )


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


def list_places(namespaces: Collection[str]) -> list[str | None]:
    """Return the lists to read for some namespaces; None is the list of all."""
    return sorted(namespaces) if len(namespaces) <= FEW_NAMESPACES else [None]  # type: ignore[return-value]


async def _claims(
    context: Context, places: Collection[str | None], namespaces: Collection[str], selector: LabelSelector
) -> list[ClaimRecord]:
    """Return the claims with the labels. After a list has expired, some come twice, so each UID counts once."""
    found: dict[str, ClaimRecord] = {}
    for place in places:
        async for page in parsed_pages(context, PersistentVolumeClaim, kinds.PVC, place, selector.query):
            for claim in page:
                if claim.namespace in namespaces:
                    found[claim.uid] = record_of_claim(claim)
    return list(found.values())


async def _stores(
    context: Context, places: Collection[str | None], namespaces: Collection[str], name: str | None
) -> dict[str, StoreChoice]:
    """Return the store of each namespace: the one with the name, or the default one."""
    found: dict[str, dict[str, BackupStore]] = defaultdict(dict)
    for place in places if namespaces else ():
        async for page in parsed_pages(context, BackupStore, kinds.BACKUP_STORE, place):
            for store in page:
                kept = found[store.namespace]
                is_wanted = store.name == name if name is not None else store.is_default
                if is_wanted and not store.metadata.is_being_deleted and len(kept) < DEFAULT_STORES:
                    kept[store.name] = store
    return {namespace: _choice(namespace, list(found[namespace].values()), name) for namespace in namespaces}


def _choice(namespace: str, stores: list[BackupStore], name: str | None) -> StoreChoice:
    if name is not None:
        missing = f"BackupStore {name} could not be found in namespace {namespace}."
        return StoreChoice(name) if stores else StoreChoice(missing=missing)
    lookup = default_store(stores, namespace)
    return StoreChoice(lookup.store.name) if lookup.store is not None else StoreChoice(missing=lookup.missing)


async def read_backups(context: Context, schedule: ObjectKey) -> RecordLimit[BackupRecord]:
    """Return the VolumeBackups of a schedule. The label finds them, and the annotation tells which kind it has."""
    found: RecordLimit[BackupRecord] = RecordLimit()
    reference = f"{schedule.kind}/{schedule.name}"
    query = f"{labels.SCHEDULE_LABEL}={names.label_of(schedule.name)}"
    async for page in parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, schedule.namespace or None, query):
        for backup in page:
            if backup.metadata.annotations.get(labels.SCHEDULE_ANNOTATION) == reference:
                found.add(record_of(backup))
    return found


async def parsed_pages(
    context: Context, model: type[T], kind: Kind, namespace: str | None, query: str = "", *, fields: str = ""
) -> AsyncIterator[list[T]]:
    """Yield some objects at a time, with pauses. After a list has expired, all come again."""
    async for page in context.kube.pages(kind, namespace, labels=query, fields=fields):
        bodies = page or []
        for start in range(0, len(bodies), OBJECTS_PER_TURN):
            yield parse_all(model, bodies[start : start + OBJECTS_PER_TURN])
            await asyncio.sleep(0)
