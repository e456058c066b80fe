"""The backups that a preview of retention judges: those of schedules in a cluster, or those of a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupSchedule, ClusterBackupSchedule
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.cli.output import warn
from cinderblock.errors import AccessDenied, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.plan import zone_name
from cinderblock.lifecycle.retention.uses import names_used_by, used_ids, verified_at
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.names import is_made_by
from cinderblock.repository.catalog import CatalogEntry


@dataclass(frozen=True, slots=True)
class Wanted:
    """The schedules to preview.

    Attributes:
        namespace: their namespace; empty for a ClusterBackupSchedule.
        name: the name of the only one; empty: all of the namespace that have retention.
    """

    namespace: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The backups to judge together, and by what.

    Attributes:
        title: the schedule, or the bucket.
        retention: the rules.
        zone: name of the zone in which days begin.
        backups: the backups.
        context: what the plan depends on.
        has_marks: whether an operator announces removals in status.expiresAt.
    """

    title: str
    retention: Retention
    zone: str
    backups: Sequence[BackupRecord]
    context: RetentionContext
    has_marks: bool = True


async def read_cluster(kube: KubeClient, wanted: Wanted, rules: Retention | None) -> list[Subject]:
    """Return the schedules with their backups.

    Args:
        kube: the cluster.
        wanted: which schedules.
        rules: the rules to judge by; None: those of each schedule.

    Raises:
        NotFound: a schedule does not exist, or none of them has retention.
    """
    schedules = await _schedules(kube, wanted)
    judged = [(s, retention) for s in schedules if (retention := rules or s.spec.retention) is not None]
    if not judged:
        raise NotFound("Cannot preview retention: no such schedule has spec.retention, so all backups are kept.")
    namespace = wanted.namespace or None
    records = _records(await kube.list(kinds.VOLUME_BACKUP, namespace))
    restores = await kube.list(kinds.VOLUME_RESTORE, namespace)
    names = {name for body in restores for name in names_used_by(body)}
    context = RetentionContext(
        used_ids=used_ids(records, names),
        volumes=await _volumes(kube, namespace),
        others=tuple(records),
        verified_at=verified_at(records),
        read_only=await _read_only_stores(kube, namespace),
    )
    return [_subject(schedule, records, context, retention, is_own=rules is None) for schedule, retention in judged]


def from_catalog(title: str, entries: Iterable[CatalogEntry], rules: Retention) -> Subject:
    """Return the backups of a bucket that could be read. Nothing there is announced, held or in use."""
    records = [record for entry in entries if (record := record_of_manifest(entry)) is not None]
    return Subject(title, rules, zone_name(rules, "Etc/UTC"), records, RetentionContext(), has_marks=False)


def record_of_manifest(entry: CatalogEntry) -> BackupRecord | None:
    """Return the record of a backup from its manifest; None if the manifest could not be read."""
    summary, header = entry.summary, entry.header
    if summary is None or header is None:
        return None
    description = summary.description
    return BackupRecord(
        namespace=description.namespace,
        name=description.backup_name or description.backup_id,
        uid=entry.stored.key,
        resource_version="",
        backup_id=entry.stored.backup_id,
        schedule="",
        scheduled_for=None,
        volume_id=entry.stored.volume_id,
        volume_name=description.volume_name,
        store_name="",
        container="",
        phase=BackupPhase.AVAILABLE,
        created=description.created_at,
        data_time=description.data_timestamp,
        is_incremental=header.parent_id is not None,
        parent_id=header.parent_id or "",
        is_held=False,
        keeps_data=False,
        is_imported=False,
        is_being_deleted=False,
        expires_at=None,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=summary.transferred_bytes,
        stored_bytes=summary.stored_bytes,
        fail_reason="",
        is_suspicious=False,
        lacks_files=bool(summary.unreadable_files),
    )


async def _schedules(kube: KubeClient, wanted: Wanted) -> list[AnySchedule]:
    if not wanted.name:
        bodies = await kube.list(kinds.BACKUP_SCHEDULE, wanted.namespace)
        return [BackupSchedule.model_validate(body) for body in bodies]
    kind = kinds.BACKUP_SCHEDULE if wanted.namespace else kinds.CLUSTER_BACKUP_SCHEDULE
    body = await kube.get(kind, wanted.name, wanted.namespace or None)
    if body is None:
        place = f" in namespace {wanted.namespace}" if wanted.namespace else ""
        raise NotFound(f"Cannot preview retention: {kind.kind} {wanted.name}{place} does not exist.")
    model = BackupSchedule if wanted.namespace else ClusterBackupSchedule
    return [model.model_validate(body)]


async def _volumes(kube: KubeClient, namespace: str | None) -> frozenset[tuple[str, str]] | None:
    """Return the claims that exist; None if the caller may not read them."""
    try:
        bodies = await kube.list(kinds.PVC, namespace)
    except AccessDenied as error:
        warn(f"no volume counts as gone, because the claims cannot be read: {error.message}")
        return None
    return frozenset((body["metadata"].get("namespace", ""), body["metadata"]["uid"]) for body in bodies)


async def _read_only_stores(kube: KubeClient, namespace: str | None) -> frozenset[tuple[str, str]]:
    """Return namespace and name of the read-only BackupStores; none if the caller may not read them."""
    try:
        stores = [BackupStore.model_validate(body) for body in await kube.list(kinds.BACKUP_STORE, namespace)]
    except AccessDenied as error:
        warn(f"no store counts as read-only, because the BackupStores cannot be read: {error.message}")
        return frozenset()
    return frozenset((store.namespace, store.name) for store in stores if store.is_read_only)


def _subject(
    schedule: AnySchedule,
    records: Iterable[BackupRecord],
    context: RetentionContext,
    retention: Retention,
    *,
    is_own: bool,
) -> Subject:
    """Return one schedule. Other rules than its own have announced nothing yet."""
    reference = names.reference_to(schedule)
    own = [
        r
        for r in records
        if r.schedule == reference and schedule.namespace in ("", r.namespace) and is_made_by(schedule, r)
    ]
    previous = schedule.status.retention if is_own else None
    title = "/".join(filter(None, (schedule.namespace, reference)))
    zone = zone_name(retention, schedule.spec.time_zone)
    return Subject(title, retention, zone, own, replace(context, previous=previous))


def _records(bodies: Iterable[JsonObject]) -> list[BackupRecord]:
    """Return the records of VolumeBackups. One that does not parse is left out, as the operator leaves it alone."""
    records = []
    for body in bodies:
        try:
            records.append(record_of(VolumeBackup.model_validate(body)))
        except ValidationError:
            metadata = body["metadata"]
            warn(f"VolumeBackup {metadata['namespace']}/{metadata['name']} does not parse and is not judged")
    return records
