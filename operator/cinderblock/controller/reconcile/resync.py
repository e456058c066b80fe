"""Which objects a start or a resync must reconcile: all except those that have ended and are in a steady state.

A reconciliation takes about 15 ms of processor time. With ten thousand finished backups, each start and each resync
would take minutes and change nothing. So this module asks the same pure decisions with what a few lists contain, and
leaves out the objects that the decisions would leave alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from cinderblock.api import labels
from cinderblock.api.conditions import ConditionType
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.controller.context import Context
from cinderblock.controller.populate.pending import list_claims
from cinderblock.controller.request import (
    SCHEDULE_KINDS,
    ObjectKey,
    is_in_progress,
    key_of,
    schedule_key,
    volume_key,
)
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.actions import AnyStatus, Decision
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.children import Owner
from cinderblock.lifecycle.observed import ObservedBackup, ObservedRestore, ObservedVerification, OperatorPolicy
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.verification import decide as verification_decide

log = logging.getLogger(__name__)

OBJECTS_PER_TURN: Final = 25
"""Objects examined before other tasks of the event loop run: about 10 ms."""

KEPT_BYTES: Final = 2048
"""Most bytes that are kept of an object, compressed. A usual backup has 700 (1,500 as JSON). A larger one, for example
with very long messages in its conditions, is reconciled at each resync."""

PIN_SLOTS: Final = 6
PIN_SLOT_SECONDS: Final = 600
"""Backups that could not be pinned are divided into slots of this length, so that each is tried again in an hour."""

JsonObject = dict[str, Any]
NamespacedId = tuple[str, str]
"""A namespace, and the id of a backup in it."""

T = TypeVar("T")


async def list_pending(context: Context) -> list[tuple[ObjectKey, bool]]:
    """Return the objects to reconcile, each with whether an operation on it is in progress.

    Raises what the API server raises.
    """
    limit = context.policy.object_limit
    stores = await _list_limited(context.kube, kinds.BACKUP_STORE, limit, _key)
    # After an upgrade, the cluster may lack the definition.
    if context.policy.cluster_stores and await context.kube.serves(kinds.CLUSTER_BACKUP_STORE):
        stores += await _list_limited(context.kube, kinds.CLUSTER_BACKUP_STORE, limit, _key)
    if context.policy.cluster_stores and await context.kube.serves(kinds.BACKUP_GRANT):
        grants = await _list_limited(context.kube, kinds.BACKUP_GRANT, limit, _key)
        stores += [(key, changed) for key, changed in grants if changed]
    asking = await _list_asking(context, limit)
    records = [
        *await _list_limited(context.kube, kinds.VOLUME_BACKUP, limit, Record.of),
        *await _list_limited(context.kube, kinds.VOLUME_RESTORE, limit, Record.of),
    ]
    # After an upgrade, the cluster may lack the definition.
    if await context.kube.serves(kinds.BACKUP_VERIFICATION):
        records += await _list_limited(context.kube, kinds.BACKUP_VERIFICATION, limit, Record.of)
    steady = SteadyStateFilter(context.policy, await _list_owners(context.kube), context.clock())
    async for record in _with_pauses(records):
        steady.observe(record)
    kept = [
        (record.key, record.is_in_progress) async for record in _with_pauses(records) if not steady.is_steady(record)
    ]
    marked_volumes = [name async for name in _marked_volumes(context.kube)]
    schedules = await _list_schedules(context)
    return [
        *stores,
        *schedules,
        # Marks of a deleted schedule are removed by a reconciliation of its key.
        *((key, False) for key in sorted(steady.marking - {key for key, _ in schedules})),
        *kept,
        *asking,
        *((volume_key(name), False) for name in marked_volumes),
    ]


async def _list_asking(context: Context, limit: int) -> list[tuple[ObjectKey, bool]]:
    """Return changed RestoreSources, and claims that ask for their backup.

    The operator may have no right to RestoreSources yet, for example if another tool manages its rights. Backups and
    restores must not wait for that.
    """
    if not context.policy.populates or not await context.kube.serves(kinds.RESTORE_SOURCE):
        return []
    try:
        sources = await _list_limited(context.kube, kinds.RESTORE_SOURCE, limit, _key)
        claims = await list_claims(context)
    except AccessDenied as error:
        log.warning("Claims that ask for their backup wait: %s", error.message, extra={"reason": error.reason})
        return []
    return [*((key, changed) for key, changed in sources if changed), *claims]


async def _list_schedules(context: Context) -> list[tuple[ObjectKey, bool]]:
    """Return all schedules that the cluster serves. Most of them only check the time."""
    found: list[tuple[ObjectKey, bool]] = []
    for kind in SCHEDULE_KINDS.values():
        if kind.kind in context.policy.schedule_kinds and await context.kube.serves(kind):
            found += await _list_limited(context.kube, kind, context.policy.object_limit, _key)
    return found


@dataclass(frozen=True, slots=True)
class Record:
    """An object until all have been read. It is kept as compressed JSON: a parsed one takes eight times as much.

    Attributes:
        key: its key.
        content: the object as JSON, compressed with zlib; None: it is too large to be judged here.
        is_in_progress: whether an operation on it is in progress.
    """

    key: ObjectKey
    content: bytes | None
    is_in_progress: bool

    @classmethod
    def of(cls, body: JsonObject) -> Record:
        """Return the record of an object."""
        content = zlib.compress(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), level=1)
        return cls(key_of(body), content if len(content) <= KEPT_BYTES else None, is_in_progress(body))

    def parse(self) -> Owner | None:
        """Return the object; None if it is too large or does not parse, which its reconciliation reports."""
        try:
            return (
                _MODELS[self.key.kind].model_validate_json(zlib.decompress(self.content))
                if self.content is not None
                else None
            )
        except ValidationError:
            return None


_MODELS: Final[dict[str, type[VolumeBackup] | type[VolumeRestore] | type[BackupVerification]]] = {
    kinds.VOLUME_BACKUP.kind: VolumeBackup,
    kinds.VOLUME_RESTORE.kind: VolumeRestore,
    kinds.BACKUP_VERIFICATION.kind: BackupVerification,
}


async def _list_limited(kube: KubeClient, kind: Kind, object_limit: int, keep: Callable[[JsonObject], T]) -> list[T]:
    """Return what ``keep`` makes of all objects of a kind, and of each namespace no more than its limit."""
    found: list[T] = []
    counts: Counter[str] = Counter()
    async for page in kube.pages(kind):
        if page is None:
            found.clear()
            counts.clear()
            continue
        for body in page:
            namespace = body["metadata"].get("namespace", "")
            counts[namespace] += 1
            if counts[namespace] <= object_limit:
                found.append(keep(body))
    return found


def _key(body: JsonObject) -> tuple[ObjectKey, bool]:
    """Return the key of an object, and whether it has changed."""
    return key_of(body), is_in_progress(body)


class SteadyStateFilter:
    """Recognizes finished objects that the decisions would leave alone.

    Args:
        policy: the operator's own settings.
        owners: UIDs of the objects that have children.
        now: the time of the decisions.
    """

    def __init__(self, policy: OperatorPolicy, owners: frozenset[str], now: datetime) -> None:
        self._policy = policy
        self._owners = owners
        self._now = now
        self._ids: set[NamespacedId] = set()
        self._dependents: dict[NamespacedId, Record] = {}
        self._parents: dict[NamespacedId, set[str]] = defaultdict(set)
        self._missing: dict[NamespacedId, list[NamespacedId]] = {}
        self._restores: dict[NamespacedId, list[Record]] = defaultdict(list)
        self.marking: set[ObjectKey] = set()
        """The schedules whose retention has marked backups as expiring."""

    def observe(self, record: Record) -> None:
        """Take note of the objects that an object refers to. One dependent of a backup is enough."""
        parsed = record.parse()
        if isinstance(parsed, VolumeBackup):
            schedule = schedule_key(parsed.namespace, parsed.metadata.annotations)
            is_served = schedule is not None and schedule.kind in self._policy.schedule_kinds
            if schedule is not None and is_served and parsed.status.expires_at is not None:
                self.marking.add(schedule)
            if parsed.own_phase is not BackupPhase.ERROR:
                self._ids.add((parsed.namespace, parsed.backup_id))
            needed = dependents.needed_parent_id(parsed)
            if needed:
                self._dependents[parsed.namespace, needed] = record
                self._parents[parsed.namespace, parsed.status.volume_id or ""].add(needed)
        elif isinstance(parsed, VolumeRestore) and parsed.status.backup_id and parsed.granted_from is None:
            self._restores[parsed.namespace, parsed.status.backup_id].append(record)

    def is_steady(self, record: Record) -> bool:
        """Return whether nothing would be done about an object. All objects must have been observed before."""
        parsed = record.parse()
        if parsed is None or parsed.uid in self._owners or parsed.metadata.is_being_deleted:
            return False
        if isinstance(parsed, VolumeBackup):
            return self._is_steady_backup(parsed)
        if not parsed.has_ended:
            return False
        if isinstance(parsed, BackupVerification):
            observed = ObservedVerification(parsed, self._policy)
            return _changes_nothing(verification_decide.decide(observed, self._now), parsed.status)
        return _changes_nothing(restore_decide.decide(ObservedRestore(parsed, self._policy), self._now), parsed.status)

    def _is_steady_backup(self, backup: VolumeBackup) -> bool:
        if not backup.has_ended or backup_checks.is_forgotten(backup) or backup.has_unknown_alarm:
            return False
        if backup.own_granted_restores:
            return False
        if self._must_be_pinned(backup):
            return False
        reference = backup.namespace, backup.backup_id
        observed = ObservedBackup(
            backup,
            self._policy,
            siblings=tuple(self._dependent_siblings(backup)),
            restores=tuple(self._restores_of(reference)),
        )
        return _changes_nothing(backup_decide.decide(observed, self._now), backup.status)

    def _must_be_pinned(self, backup: VolumeBackup) -> bool:
        """Return whether to try now to pin a backup of an earlier release: at first, and then once an hour.

        The store may be away for days, or may have lost ten thousand backups. So a sixth of them is tried in each ten
        minutes.
        """
        is_tried = any(condition.type == ConditionType.PINNED for condition in backup.status.conditions)
        slot = int(self._now.timestamp()) // PIN_SLOT_SECONDS
        is_due = not is_tried or zlib.crc32(backup.uid.encode()) % PIN_SLOTS == slot % PIN_SLOTS
        return is_due and backup_checks.is_unpinned(backup)

    def _restores_of(self, reference: NamespacedId) -> Iterator[VolumeRestore]:
        parsed = (record.parse() for record in self._restores.get(reference, ()))
        return (restore for restore in parsed if isinstance(restore, VolumeRestore))

    def _dependent_siblings(self, backup: VolumeBackup) -> Iterator[VolumeBackup]:
        """Yield one backup that needs this one, if any; else one backup of the volume whose parent is gone.

        Only the store shows what that one needs. The store is not asked here: the recorded status is trusted.
        """
        missing = self._missing_parents((backup.namespace, backup.status.volume_id or ""))
        for reference in ((backup.namespace, backup.backup_id), *missing):
            found = self._dependents[reference].parse() if reference in self._dependents else None
            if isinstance(found, VolumeBackup) and found.uid != backup.uid:
                yield found
                return

    def _missing_parents(self, volume: NamespacedId) -> list[NamespacedId]:
        """Return the parents of a volume's backups that no longer exist, searched once for each volume."""
        if volume not in self._missing:
            named = ((volume[0], parent) for parent in self._parents.get(volume, ()))
            self._missing[volume] = [reference for reference in named if reference not in self._ids]
        return self._missing[volume]


def _changes_nothing(decision: Decision, status: AnyStatus) -> bool:
    return not decision.actions and decision.requeue_after is None and decision.status in (None, status)


async def _list_owners(kube: KubeClient) -> frozenset[str]:
    """Return the UIDs of the operations that have a Job, a PersistentVolumeClaim or a VolumeSnapshot."""
    owners: set[str] = set()
    for kind in (kinds.JOB, kinds.PVC, kinds.VOLUME_SNAPSHOT):
        if await _is_served(kube, kind):
            async for page in kube.pages(kind, labels=labels.OWNER_UID_LABEL):
                owners |= {child["metadata"]["labels"].get(labels.OWNER_UID_LABEL, "") for child in page or ()}
    return frozenset(owners)


async def _marked_volumes(kube: KubeClient) -> AsyncIterator[str]:
    """Yield the names of the volumes with the mark of a restore. After an expired list, some come twice."""
    async for page in kube.pages(kinds.PV, labels=RESTORE_LABEL):
        for volume in page or ():
            yield volume["metadata"]["name"]


async def _is_served(kube: KubeClient, kind: Kind) -> bool:
    return kind is not kinds.VOLUME_SNAPSHOT or await kube.serves(kind)


async def _with_pauses(records: list[Record]) -> AsyncIterator[Record]:
    for number, record in enumerate(records):
        if number % OBJECTS_PER_TURN == OBJECTS_PER_TURN - 1:
            await asyncio.sleep(0)
        yield record
