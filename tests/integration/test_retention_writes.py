"""The writes of retention to VolumeBackups, next to the operator's own writes of their status, on a real API server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from cinderblock.api.labels import ACCEPT_ANNOTATION
from cinderblock.api.v1alpha1.backup import BackupPhase, DeletedAlarm, VolumeBackup
from cinderblock.api.v1alpha1.schedule import BackupSchedule
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.alarms import record_alarms
from cinderblock.controller.reconcile.execute import Target
from cinderblock.controller.reconcile.reconciler import _write_status
from cinderblock.controller.schedules.apply_retention import Applied, apply_retention
from cinderblock.controller.schedules.retain import retain
from cinderblock.errors import Conflict
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.actions import Decision, KeepAlarms
from cinderblock.lifecycle.backup_record import record_of
from cinderblock.lifecycle.retention.actions import (
    BackupVersion,
    MarkExpiring,
    RemoveExpired,
    UnmarkExpiring,
    version_of,
)
from tests.support.retention.cluster import MINUTE, RetentionLoop, available, make_backup, read
from tests.support.retention.records import DAY, rules

pytestmark = pytest.mark.integration

EXPIRES = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SOON = timedelta(seconds=30)
"""Makes the first backup the newest one. Data counts as at least as new as its VolumeBackup, and the others are created
after the first."""
STRIPPED = {"metadata": {"managedFields": [{}]}}
"""A patch after which the API server no longer knows who owns which field."""


def version(backup: VolumeBackup) -> BackupVersion:
    """Return a backup's identity and version."""
    return version_of(record_of(backup))


async def status_of(client: KubeClient, backup: VolumeBackup) -> dict[str, Any]:
    """Return the stored status."""
    body = await client.get(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    assert body is not None
    return dict(body["status"])


async def reconcile(client: KubeClient, read_: VolumeBackup, **changes: Any) -> None:
    """Write what the reconciliation of a backup decides, after it has read this version of the backup."""
    context = Context(kube=client, stores=cast("Any", None), policy=cast("Any", None))
    decision = Decision(read_.status.model_copy(update=changes))
    await _write_status(context, Target(kinds.VOLUME_BACKUP, read_, {}), decision)


@pytest.fixture
async def backup(client: KubeClient, namespace: str) -> VolumeBackup:
    return await make_backup(client, namespace, "old", datetime.now(UTC) - 40 * DAY)


async def current(client: KubeClient, backup: VolumeBackup) -> VolumeBackup:
    """Read a backup."""
    found = await read(client, backup.namespace, backup.name)
    assert found is not None
    return found


async def mark(client: KubeClient, backup: VolumeBackup) -> VolumeBackup:
    """Mark a backup as retention does, and return it."""
    version_ = version(await current(client, backup))
    assert await apply_retention(client, [MarkExpiring(version_, EXPIRES)]) == Applied(written=1)
    return await current(client, backup)


async def test_mark_changes_nothing_else_of_the_status(client: KubeClient, backup: VolumeBackup) -> None:
    before = await status_of(client, backup)
    marked = await mark(client, backup)
    assert await status_of(client, backup) == before | {"expiresAt": "2026-05-04T12:00:00Z"}
    assert marked.metadata.generation == backup.metadata.generation
    assert await apply_retention(client, [UnmarkExpiring(version(marked))]) == Applied(written=1)
    assert await status_of(client, backup) == before


async def test_status_that_was_decided_before_the_mark_keeps_it(client: KubeClient, backup: VolumeBackup) -> None:
    await mark(client, backup)
    await reconcile(client, backup, phase=BackupPhase.RESTORING)
    found = await status_of(client, backup)
    assert (found["phase"], found["expiresAt"]) == ("restoring", "2026-05-04T12:00:00Z")


async def test_status_that_was_decided_before_the_mark_went_does_not_restore_it(
    client: KubeClient, backup: VolumeBackup
) -> None:
    marked = await mark(client, backup)
    await reconcile(client, marked, size=3)
    now = await current(client, backup)
    await apply_retention(client, [UnmarkExpiring(version(now))])
    await reconcile(client, marked, size=4)
    found = await status_of(client, backup)
    assert found["size"] == 4
    assert "expiresAt" not in found


async def test_fields_that_a_status_no_longer_has_still_go(client: KubeClient, backup: VolumeBackup) -> None:
    await reconcile(client, backup, size=3)
    read_ = await mark(client, backup)
    await reconcile(client, read_, size=None)
    found = await status_of(client, backup)
    assert "size" not in found
    assert found["expiresAt"] == "2026-05-04T12:00:00Z"


async def test_mark_survives_the_loss_of_all_managed_fields(client: KubeClient, backup: VolumeBackup) -> None:
    await reconcile(client, backup, size=3)
    await mark(client, backup)
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, STRIPPED)
    marked = await current(client, backup)
    await reconcile(client, marked, size=None)
    found = await status_of(client, backup)
    assert "size" not in found
    assert found["expiresAt"] == "2026-05-04T12:00:00Z"
    now = await current(client, backup)
    await apply_retention(client, [UnmarkExpiring(version(now))])
    assert "expiresAt" not in await status_of(client, backup)


async def test_kept_alarm_survives_other_writes_and_stale_ones_are_refused(
    client: KubeClient, backup: VolumeBackup
) -> None:
    alarm = DeletedAlarm(backup_id="b-1", backup_name="odd", data_timestamp=EXPIRES, raised_at=EXPIRES)
    keep = KeepAlarms(backup.name, backup.metadata.resource_version, (alarm,))
    await record_alarms(client, backup.namespace, keep)
    await reconcile(client, backup, size=3)
    await mark(client, backup)
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, STRIPPED)
    await reconcile(client, await current(client, backup), size=4)
    kept = await current(client, backup)
    assert (kept.status.size, kept.open_deleted_alarms) == (4, [alarm])
    with pytest.raises(Conflict):
        await record_alarms(client, backup.namespace, keep)
    accept = {"metadata": {"annotations": {ACCEPT_ANNOTATION: "b-0, b-1"}}}
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, accept)
    assert not (await current(client, backup)).open_deleted_alarms


async def test_mark_of_another_manager_can_be_removed(client: KubeClient, backup: VolumeBackup) -> None:
    """A tool that restores objects with their status may write the mark as well."""
    patch = {"status": {"expiresAt": "2026-05-04T12:00:00Z"}}
    path = kinds.VOLUME_BACKUP.path(backup.namespace, backup.name, "status")
    request = Request("PATCH", path, {"fieldManager": "velero"}, patch, "application/merge-patch+json")
    assert (await client._transport.round_trip(request)).is_success
    now = await current(client, backup)
    await apply_retention(client, [UnmarkExpiring(version(now))])
    assert "expiresAt" not in await status_of(client, backup)


async def test_mark_of_a_version_that_has_changed_is_not_written(client: KubeClient, backup: VolumeBackup) -> None:
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"spec": {"hold": True}})
    assert await apply_retention(client, [MarkExpiring(version(backup), EXPIRES)]) == Applied(is_complete=False)
    assert "expiresAt" not in await status_of(client, backup)


async def test_hold_between_the_look_and_the_deletion_wins(client: KubeClient, backup: VolumeBackup) -> None:
    marked = await mark(client, backup)
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"spec": {"hold": True}})
    assert await apply_retention(client, [RemoveExpired(version(marked), None)]) == Applied(is_complete=False)
    assert await read(client, backup.namespace, backup.name) is not None


async def test_new_backup_of_the_same_name_is_not_deleted(client: KubeClient, backup: VolumeBackup) -> None:
    marked = await mark(client, backup)
    await client.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    await make_backup(client, backup.namespace, backup.name, datetime.now(UTC))
    assert await apply_retention(client, [RemoveExpired(version(marked), None)]) == Applied(is_complete=False)
    assert await read(client, backup.namespace, backup.name) is not None


@pytest.mark.parametrize("precondition", ["uid", "resource_version"])
async def test_deletion_with_a_stale_precondition_is_a_conflict(
    client: KubeClient, backup: VolumeBackup, precondition: str
) -> None:
    with pytest.raises(Conflict):
        await client.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace, **{precondition: "1"})  # type: ignore[arg-type]


async def test_backups_are_marked_and_removed_over_time(client: KubeClient, namespace: str) -> None:
    now = datetime.now(UTC)
    for number in range(4):
        await make_backup(client, namespace, f"b-{number}", now + SOON - number * DAY)
    loop = RetentionLoop(client, rules(keep_last=1, grace="1h"), namespace)
    later = now + MINUTE
    assert await loop.apply(later) == Applied(written=3)
    assert await loop.apply(later + 30 * MINUTE) == Applied()
    held = await client.merge_patch(kinds.VOLUME_BACKUP, "b-2", namespace, {"spec": {"hold": True}})
    assert held["status"]["expiresAt"]
    assert await loop.apply(later + 62 * MINUTE) == Applied(written=1, removed=2)
    left = await loop.records()
    assert {record.name for record in left} == {"b-0", "b-2"}
    assert all(record.expires_at is None for record in left)


async def test_pass_leaves_what_restores_and_unfinished_backups_need(client: KubeClient, namespace: str) -> None:
    made = [await make_backup(client, namespace, f"b-{n}", datetime.now(UTC) + SOON - n * DAY) for n in range(5)]
    restore = {"metadata": {"name": "r", "namespace": namespace}, "spec": {"backupId": "b-1", "name": "again"}}
    await client.create(kinds.VOLUME_RESTORE, restore)
    child = await make_backup(client, namespace, "child", datetime.now(UTC))
    status = available(child.uid, datetime.now(UTC)) | {"phase": "creating", "parentId": made[2].uid}
    await client.apply_status(kinds.VOLUME_BACKUP, child.name, namespace, status, uid=child.uid)
    retention = {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0, "gone": {"after": "90d"}}
    metadata = {"name": "daily", "namespace": namespace, "uid": "s-1"}
    schedule = BackupSchedule.model_validate(
        {"metadata": metadata, "spec": {"schedule": "@daily", "retention": retention}}
    )
    context = Context(kube=client, stores=cast("Any", None), policy=cast("Any", None))
    now = datetime.now(UTC)
    for at in (now, now + 2 * MINUTE):
        records = [r for r in await RetentionLoop(client, rules(), namespace).records() if r.name != "child"]
        result = await retain(context, schedule, UTC, records, at)
        assert result is not None
        written = schedule.status.model_copy(update={"retention": result.status})
        schedule = schedule.model_copy(update={"status": written})
    left = {record.name for record in await RetentionLoop(client, rules(), namespace).records()}
    assert left == {"b-0", "b-1", "b-2", "child"}
