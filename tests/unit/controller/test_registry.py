"""The kopf handlers cover every watched kind, and hand each event to the right method of the sink."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import kopf

from cinderblock.controller.handlers.event_bridge import Event
from cinderblock.controller.handlers.event_handler import CHILD_KINDS
from cinderblock.controller.handlers.registry import (
    add_cluster_stores,
    add_populator,
    add_schedules,
    make_registry,
)
from cinderblock.controller.handlers.watch_manager import WATCHED_KINDS
from cinderblock.controller.request import OWN_KINDS, SCHEDULE_KINDS
from cinderblock.kube.kinds import PVC, RESTORE_SOURCE


class RecordingSink:
    """Records the events that it receives, with the method that received them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def on_custom_resource(self, event: Event) -> None:
        self.events.append(("custom resource", event))

    async def on_schedule(self, event: Event) -> None:
        self.events.append(("schedule", event))

    async def on_cluster_store(self, event: Event) -> None:
        self.events.append(("cluster store", event))

    async def on_grant(self, event: Event) -> None:
        self.events.append(("grant", event))

    async def on_source(self, event: Event) -> None:
        self.events.append(("source", event))

    async def on_claim(self, event: Event) -> None:
        self.events.append(("claim", event))

    async def on_child(self, event: Event) -> None:
        self.events.append(("child", event))

    async def on_persistent_volume(self, event: Event) -> None:
        self.events.append(("persistent volume", event))


async def login() -> kopf.AiohttpSession:
    return cast("kopf.AiohttpSession", SimpleNamespace())


def handlers(registry: kopf.OperatorRegistry) -> dict[tuple[str | None, str | None, str | None], Any]:
    """Return the event handlers by group, version and plural."""
    found = registry._watching.get_all_handlers()
    return {(h.selector.group, h.selector.version, h.selector.any_name or h.selector.plural): h for h in found}


def registry_of(sink: RecordingSink) -> kopf.OperatorRegistry:
    """Return the registry of an operator that works on schedules and ClusterBackupStores."""
    registry = make_registry(sink, login)
    add_schedules(registry, sink, SCHEDULE_KINDS)
    add_cluster_stores(registry, sink)
    return registry


def registry_that_populates(sink: RecordingSink) -> kopf.OperatorRegistry:
    """Return the same for an operator that fills claims of users."""
    registry = registry_of(sink)
    add_populator(registry, sink)
    return registry


async def test_operator_without_schedules_listens_to_none() -> None:
    declared = handlers(make_registry(RecordingSink(), login))
    assert {plural for _, _, plural in declared}.isdisjoint(kind.plural for kind in SCHEDULE_KINDS.values())


async def test_every_watched_kind_has_a_handler() -> None:
    declared = handlers(registry_that_populates(RecordingSink()))
    assert set(declared) == {(kind.group, kind.version, kind.plural) for kind in WATCHED_KINDS}


async def test_each_kind_reaches_its_method_of_the_sink() -> None:
    sink = RecordingSink()
    declared = handlers(registry_of(sink))
    for kind in (kind for kind in WATCHED_KINDS if kind != RESTORE_SOURCE):
        await declared[kind.group, kind.version, kind.plural].fn(event=kind.kind, body={}, type="ADDED")
    own = {kind.kind: "custom resource" for kind in OWN_KINDS.values() if kind != RESTORE_SOURCE}
    expected = own | dict.fromkeys(SCHEDULE_KINDS, "schedule")
    expected |= {kind.kind: "child" for kind in CHILD_KINDS} | {"PersistentVolume": "persistent volume"}
    expected |= {"ClusterBackupStore": "cluster store", "BackupGrant": "grant"}
    assert {event: method for method, event in sink.events} == expected


async def test_only_claims_that_ask_for_a_backup_reach_the_sink() -> None:
    sink = RecordingSink()
    declared = handlers(registry_that_populates(sink))
    asking = {"spec": {"dataSourceRef": {"apiGroup": "cinderblock.io", "kind": "VolumeBackup", "name": "full"}}}
    of_others = {"spec": {"dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot"}}}
    events = [{"type": "ADDED", "object": body} for body in (asking, of_others, {"spec": {}}, {})]
    for event in events:
        await declared[PVC.group, PVC.version, PVC.plural].fn(event=event)
    await declared["cinderblock.io", "v1alpha1", "restoresources"].fn(event="a source")
    assert sink.events == [("claim", events[0]), ("source", "a source")]
