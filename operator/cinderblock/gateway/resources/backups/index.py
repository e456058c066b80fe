"""``/backups``: VolumeBackups as Cinder's backups; in this file what only reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.gateway.resources.backups import schemas, view
from cinderblock.gateway.resources.backups.actions import ACTION, DELETE
from cinderblock.gateway.resources.backups.create import CREATE
from cinderblock.gateway.resources.backups.find import SELECTABLE, find, select, select_any
from cinderblock.gateway.resources.backups.records import EXPORT, IMPORT
from cinderblock.gateway.resources.backups.restore import RESTORE
from cinderblock.gateway.resources.backups.update import UPDATE
from cinderblock.gateway.resources.volumes.ids import sizes_in_gib
from cinderblock.gateway.rest.microversions import Version
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.paginate import Views, paginate
from cinderblock.gateway.rest.pagination import ListQuery, ListSpec
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP

_ABSENT: Final = ("host", "service", "service_metadata", "display_description", "encryption_key_id")
"""Columns of Cinder's that a list may be sorted by, and that have no value here, or none worth sorting by."""


def rules_in(version: Version) -> ListSpec[VolumeBackup]:
    """What may be asked of the list; the status depends on the version."""
    return ListSpec(
        noun="Backup",
        collection="backups",
        columns={
            "id": lambda backup: backup.backup_id,
            "created_at": view.created_at,
            "updated_at": lambda backup: view.own_status(backup).updated_at,
            "data_timestamp": lambda b: view.own_status(b).data_timestamp or view.created_at(b),
            "status": lambda backup: view.status_of(backup, version),
            "name": lambda backup: backup.spec.name,
            "display_name": lambda backup: backup.spec.name,
            "volume_id": view.volume_id_of,
            "size": lambda backup: view.own_status(backup).size,
            "object_count": lambda backup: view.own_status(backup).object_count or 0,
            "availability_zone": lambda backup: backup.spec.availability_zone,
            "container": lambda backup: view.own_status(backup).container or backup.spec.container,
            "fail_reason": lambda backup: view.own_status(backup).fail_reason,
            "snapshot_id": lambda b: view.own_status(b).snapshot_id or b.spec.snapshot_id,
            "parent_id": lambda backup: view.own_status(backup).parent_id,
            "project_id": lambda backup: backup.namespace,
            "user_id": lambda backup: backup.metadata.annotations.get(labels.CREATED_BY_ANNOTATION),
            **dict.fromkeys(_ABSENT, lambda _: None),
        },
        filters=frozenset({"name", "status", "volume_id"}),
        newer_sort_keys={"name": 37},
    )


async def index(call: ApiRequest) -> ApiResponse:
    """List backups: id, name and links."""

    async def summaries(backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
        return [view.summary(backup, call.links) for backup in backups]

    return await _list(call, "/backups", summaries)


async def detail(call: ApiRequest) -> ApiResponse:
    """List backups with everything about them."""
    return await _list(call, "/backups/detail", partial(_details, call))


async def show(call: ApiRequest) -> ApiResponse:
    """Show one backup."""
    backup = await find(call.kube, call.project, call.path["backup_id"])
    return ApiResponse(200, {"backup": (await _details(call, [backup]))[0]})


async def _list(call: ApiRequest, path: str, views: Views[VolumeBackup]) -> ApiResponse:
    read = partial(_listed, call.kube, call.project)
    return ApiResponse(200, await paginate(call, rules_in(call.version), VOLUME_BACKUP, path, read=read, views=views))


_SELECTED_BY_PHASE: Final = frozenset({"error", "error_deleting", "restoring"})
"""Statuses that no backup has without the phase: the others are also those of backups without a status."""


async def _listed(kube: KubeClient, project: str, asked: ListQuery) -> list[VolumeBackup]:
    """At least the backups that are asked for: where the API server can leave others out, it does.

    With a marker all of them are needed, because the marker may be one of the others.
    """
    volume, status = asked.filters.get("volume_id"), asked.filters.get("status")
    if asked.marker is None and volume is not None and SELECTABLE.fullmatch(volume):
        return await select_any(kube, project, {"status.volumeId": volume}, {"spec.volumeId": volume})
    if asked.marker is None and status in _SELECTED_BY_PHASE:
        return await select(kube, project, {"status.phase": status})
    return await select(kube, project, {})


async def _details(call: ApiRequest, backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
    """Sizes that no status tells yet are those of the volumes, which are read only if there is need."""
    young = {backup.spec.volume_id for backup in backups if view.own_status(backup).size is None}
    sizes = await sizes_in_gib(call.kube, call.project) if young - {None} else {}
    return [
        view.detail(backup, call.version, call.links, size=sizes.get(backup.spec.volume_id or "")) for backup in backups
    ]


OPERATIONS: Final = (
    Operation(
        "GET", "/backups", index, "List backups", "backup:get_all", {200: schemas.BACKUPS}, query=schemas.LIST_QUERY
    ),
    Operation(
        "GET",
        "/backups/detail",
        detail,
        "List backups with details",
        "backup:get_all",
        {200: schemas.BACKUP_DETAILS},
        query=schemas.LIST_QUERY,
    ),
    CREATE,
    IMPORT,
    Operation("GET", "/backups/{backup_id}", show, "Show a backup", "backup:get", {200: schemas.BACKUP_DETAIL}),
    UPDATE,
    DELETE,
    RESTORE,
    EXPORT,
    ACTION,
)
