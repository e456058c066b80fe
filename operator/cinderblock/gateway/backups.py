"""``/backups``: VolumeBackups as Cinder's backups; in this file what only reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.gateway import answers, backup_views
from cinderblock.gateway.backup_actions import ACTION, DELETE
from cinderblock.gateway.backup_creation import CREATE
from cinderblock.gateway.backup_lookups import SELECTABLE, find, select, select_any
from cinderblock.gateway.backup_records import EXPORT, IMPORT
from cinderblock.gateway.backup_restoring import RESTORE
from cinderblock.gateway.backup_updating import UPDATE
from cinderblock.gateway.calls import Call, Reply
from cinderblock.gateway.operations import Operation
from cinderblock.gateway.pages import Rules, Wanted
from cinderblock.gateway.versions import Version
from cinderblock.gateway.volume_ids import sizes_in_gib
from cinderblock.gateway.walking import Views, listed
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP

_ABSENT: Final = ("host", "service", "service_metadata", "display_description", "encryption_key_id")
"""Columns of Cinder's that a list may be sorted by, and that have no value here, or none worth sorting by."""


def rules_in(version: Version) -> Rules[VolumeBackup]:
    """What may be asked of the list; the status depends on the version."""
    return Rules(
        noun="Backup",
        collection="backups",
        columns={
            "id": lambda backup: backup.backup_id,
            "created_at": backup_views.created_at,
            "updated_at": lambda backup: backup_views.own_status(backup).updated_at,
            "data_timestamp": lambda b: backup_views.own_status(b).data_timestamp or backup_views.created_at(b),
            "status": lambda backup: backup_views.status_of(backup, version),
            "name": lambda backup: backup.spec.name,
            "display_name": lambda backup: backup.spec.name,
            "volume_id": backup_views.volume_id_of,
            "size": lambda backup: backup_views.own_status(backup).size,
            "object_count": lambda backup: backup_views.own_status(backup).object_count or 0,
            "availability_zone": lambda backup: backup.spec.availability_zone,
            "container": lambda backup: backup_views.own_status(backup).container or backup.spec.container,
            "fail_reason": lambda backup: backup_views.own_status(backup).fail_reason,
            "snapshot_id": lambda b: backup_views.own_status(b).snapshot_id or b.spec.snapshot_id,
            "parent_id": lambda backup: backup_views.own_status(backup).parent_id,
            "project_id": lambda backup: backup.namespace,
            "user_id": lambda backup: backup.metadata.annotations.get(labels.CREATED_BY_ANNOTATION),
            **dict.fromkeys(_ABSENT, lambda _: None),
        },
        filters=frozenset({"name", "status", "volume_id"}),
        newer_sort_keys={"name": 37},
    )


async def index(call: Call) -> Reply:
    """List backups: id, name and links."""

    async def summaries(backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
        return [backup_views.summary(backup, call.links) for backup in backups]

    return await _list(call, "/backups", summaries)


async def detail(call: Call) -> Reply:
    """List backups with everything about them."""
    return await _list(call, "/backups/detail", partial(_details, call))


async def show(call: Call) -> Reply:
    """Show one backup."""
    backup = await find(call.kube, call.project, call.path["backup_id"])
    return Reply(200, {"backup": (await _details(call, [backup]))[0]})


async def _list(call: Call, path: str, views: Views[VolumeBackup]) -> Reply:
    read = partial(_listed, call.kube, call.project)
    return Reply(200, await listed(call, rules_in(call.version), VOLUME_BACKUP, path, read=read, views=views))


_SELECTED_BY_PHASE: Final = frozenset({"error", "error_deleting", "restoring"})
"""Statuses that no backup has without the phase: the others are also those of backups without a status."""


async def _listed(kube: KubeClient, project: str, asked: Wanted) -> list[VolumeBackup]:
    """At least the backups that are asked for: where the API server can leave others out, it does.

    With a marker all of them are needed, because the marker may be one of the others.
    """
    volume, status = asked.filters.get("volume_id"), asked.filters.get("status")
    if asked.marker is None and volume is not None and SELECTABLE.fullmatch(volume):
        return await select_any(kube, project, {"status.volumeId": volume}, {"spec.volumeId": volume})
    if asked.marker is None and status in _SELECTED_BY_PHASE:
        return await select(kube, project, {"status.phase": status})
    return await select(kube, project, {})


async def _details(call: Call, backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
    """Sizes that no status tells yet are those of the volumes, which are read only if there is need."""
    young = {backup.spec.volume_id for backup in backups if backup_views.own_status(backup).size is None}
    sizes = await sizes_in_gib(call.kube, call.project) if young - {None} else {}
    return [
        backup_views.detail(backup, call.version, call.links, size=sizes.get(backup.spec.volume_id or ""))
        for backup in backups
    ]


OPERATIONS: Final = (
    Operation(
        "GET", "/backups", index, "List backups", "backup:get_all", {200: answers.BACKUPS}, query=answers.LIST_QUERY
    ),
    Operation(
        "GET",
        "/backups/detail",
        detail,
        "List backups with details",
        "backup:get_all",
        {200: answers.BACKUP_DETAILS},
        query=answers.LIST_QUERY,
    ),
    CREATE,
    IMPORT,
    Operation("GET", "/backups/{backup_id}", show, "Show a backup", "backup:get", {200: answers.BACKUP_DETAIL}),
    UPDATE,
    DELETE,
    RESTORE,
    EXPORT,
    ACTION,
)
