"""``/backups``: VolumeBackups as Cinder's backups. This module has the operations that only read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.gateway.resources.backups import schemas, view
from cinderblock.gateway.resources.backups.actions import ACTION, DELETE
from cinderblock.gateway.resources.backups.create import CREATE
from cinderblock.gateway.resources.backups.find import SELECTABLE, find, select_pages
from cinderblock.gateway.resources.backups.records import EXPORT, IMPORT
from cinderblock.gateway.resources.backups.restore import RESTORE
from cinderblock.gateway.resources.backups.update import UPDATE
from cinderblock.gateway.resources.volumes.ids import sizes_in_gib
from cinderblock.gateway.rest.list_query import ListQuery, ListSpec
from cinderblock.gateway.rest.microversions import Version
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.pagination import ToViews, paginate
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP

_ABSENT: Final = ("host", "service", "service_metadata", "display_description", "encryption_key_id")
"""Cinder's columns that callers may sort by, but that have no useful value here."""


def list_spec(version: Version) -> ListSpec[VolumeBackup]:
    """Return how the list can be queried. The status depends on the version."""
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


async def index(request: ApiRequest) -> ApiResponse:
    """List backups with id, name and links."""

    async def summaries(backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
        return [view.summary(backup, request.links) for backup in backups]

    return await _list(request, "/backups", summaries)


async def detail(request: ApiRequest) -> ApiResponse:
    """List backups with all their fields."""
    return await _list(request, "/backups/detail", _Details(request))


async def show(request: ApiRequest) -> ApiResponse:
    """Show one backup."""
    backup = await find(request.kube, request.project, request.path["backup_id"])
    return ApiResponse(200, {"backup": (await _Details(request)([backup]))[0]})


async def _list(request: ApiRequest, path: str, to_views: ToViews[VolumeBackup]) -> ApiResponse:
    read = partial(_read, request.kube, request.project)
    spec = list_spec(request.version)
    return ApiResponse(200, await paginate(request, spec, VOLUME_BACKUP, path, read=read, to_views=to_views))


_SELECTED_BY_PHASE: Final = frozenset({"error", "error_deleting", "restoring"})
"""Statuses that always equal the phase. Backups without a status can have the others."""


def _read(kube: KubeClient, project: str, query: ListQuery) -> AsyncIterator[list[VolumeBackup]]:
    """Return at least the backups that the query selects. The API server filters where it can.

    With a marker, it cannot: the filters may exclude the marker.
    """
    volume, status = query.filters.get("volume_id"), query.filters.get("status")
    if query.marker is None and volume is not None and SELECTABLE.fullmatch(volume):
        return select_pages(kube, project, {"status.volumeId": volume}, {"spec.volumeId": volume})
    if query.marker is None and status in _SELECTED_BY_PHASE:
        return select_pages(kube, project, {"status.phase": status})
    return select_pages(kube, project, {})


class _Details:
    """Converts backups to their views with all fields. The volumes are read only if a status has no size yet."""

    def __init__(self, request: ApiRequest) -> None:
        self._request = request
        self._sizes: dict[str, int] | None = None

    async def __call__(self, backups: Sequence[VolumeBackup]) -> list[dict[str, Any]]:
        """Return the views of some backups."""
        request = self._request
        without_size = {backup.spec.volume_id for backup in backups if view.own_status(backup).size is None}
        if self._sizes is None and without_size - {None}:
            self._sizes = await sizes_in_gib(request.kube, request.project)
        sizes = self._sizes or {}
        return [
            view.detail(backup, request.version, request.links, size=sizes.get(backup.spec.volume_id or ""))
            for backup in backups
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
