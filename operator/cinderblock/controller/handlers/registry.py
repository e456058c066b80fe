"""Every kopf handler of the operator. Each hands its event to an `EventSink`; nothing is decided here.

There are no change handlers, timers or daemons. The API server filters by the labels as well; see `kopf_settings`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import kopf

from cinderblock.api.labels import GROUP, MANAGED_BY, MANAGED_BY_LABEL, RESTORE_LABEL, VERSION
from cinderblock.controller.handlers.event_bridge import Event, EventSink
from cinderblock.controller.handlers.watch_filter import asks_for_backup
from cinderblock.controller.request import SCHEDULE_KINDS
from cinderblock.kube.kinds import (
    BACKUP_GRANT,
    BACKUP_STORE,
    BACKUP_VERIFICATION,
    CLUSTER_BACKUP_STORE,
    PVC,
    RESTORE_SOURCE,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
)

MANAGED: Final = {MANAGED_BY_LABEL: MANAGED_BY}
MARKED_BY_RESTORE: Final = {RESTORE_LABEL: kopf.PRESENT}

Login = Callable[[], Awaitable[kopf.AiohttpSession]]
"""Opens a connection to the API server for kopf."""


def make_registry(sink: EventSink, login: Login) -> kopf.OperatorRegistry:
    """Declare what the operator listens to.

    Args:
        sink: receives the events.
        login: opens kopf's connections.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.AiohttpSession:
        return await login()

    async def on_custom_resource(event: Event, **_: Any) -> None:
        await sink.on_custom_resource(event)

    for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE, BACKUP_VERIFICATION):
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(on_custom_resource)

    @kopf.on.event("batch", "v1", "jobs", labels=MANAGED, registry=registry)
    async def on_job(event: Event, **_: Any) -> None:
        await sink.on_child(event)

    @kopf.on.event("v1", "pods", labels=MANAGED, registry=registry)
    async def on_pod(event: Event, **_: Any) -> None:
        await sink.on_child(event)

    @kopf.on.event("v1", "persistentvolumeclaims", labels=MANAGED, registry=registry)
    async def on_managed_claim(event: Event, **_: Any) -> None:
        await sink.on_child(event)

    @kopf.on.event("snapshot.storage.k8s.io", "v1", "volumesnapshots", labels=MANAGED, registry=registry)
    async def on_snapshot(event: Event, **_: Any) -> None:
        await sink.on_child(event)

    @kopf.on.event("v1", "persistentvolumes", labels=MARKED_BY_RESTORE, registry=registry)
    async def on_volume(event: Event, **_: Any) -> None:
        await sink.on_persistent_volume(event)

    return registry


def add_cluster_stores(registry: kopf.OperatorRegistry, sink: EventSink) -> None:
    """Listen to ClusterBackupStores as well, and to BackupGrants, which need them."""

    async def on_cluster_store(event: Event, **_: Any) -> None:
        await sink.on_cluster_store(event)

    async def on_grant(event: Event, **_: Any) -> None:
        await sink.on_grant(event)

    kopf.on.event(GROUP, VERSION, CLUSTER_BACKUP_STORE.plural, registry=registry)(on_cluster_store)
    kopf.on.event(GROUP, VERSION, BACKUP_GRANT.plural, registry=registry)(on_grant)


def add_populator(registry: kopf.OperatorRegistry, sink: EventSink) -> None:
    """Listen to RestoreSources as well, and to claims whose dataSourceRef names one of our kinds."""

    async def on_source(event: Event, **_: Any) -> None:
        await sink.on_source(event)

    async def on_claim(event: Event, **_: Any) -> None:
        if asks_for_backup(dict(event["object"])):
            await sink.on_claim(event)

    kopf.on.event(GROUP, VERSION, RESTORE_SOURCE.plural, registry=registry)(on_source)
    kopf.on.event("v1", PVC.plural, registry=registry)(on_claim)


def add_schedules(registry: kopf.OperatorRegistry, sink: EventSink, kinds: Collection[str]) -> None:
    """Listen to schedules of these kinds as well."""

    async def on_schedule(event: Event, **_: Any) -> None:
        await sink.on_schedule(event)

    for kind in sorted(kinds):
        kopf.on.event(GROUP, VERSION, SCHEDULE_KINDS[kind].plural, registry=registry)(on_schedule)
