"""BackupStores of a ClusterBackupStore, when some namespaces refuse them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from typing_extensions import override

from cinderblock.controller.cluster_stores.reconcile import ClusterStoreReconciler
from cinderblock.controller.context import Context
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import CinderblockError, InvalidInput, KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_STORE, Kind
from cinderblock.lifecycle.observed import MoverSettings, OperatorAccount, OperatorPolicy
from cinderblock.lifecycle.store.cluster import MAX_WRITES
from tests.support.shared_stores import SYSTEM, a_cluster_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
FINALIZER = {"finalizers": ["cinderblock.io/store-in-use"]}


class StoresThatAnswer:
    """Stores whose checks find nothing."""

    async def check(self, *_: object) -> None:
        return None

    async def container_rules(self, *_: object) -> None:
        return None


class RefusingClient(KubeClient):
    """A client whose API server refuses BackupStores in namespaces with a prefix."""

    error: CinderblockError

    @override
    async def create(self, kind: Kind, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if kind == BACKUP_STORE and body["metadata"]["namespace"].startswith("a-"):
            raise type(self.error)(self.error.message)  # raised twice, one error would keep the frames of both
        return await super().create(kind, body)


def a_context(error: CinderblockError, namespaces: list[str]) -> tuple[Context, ObjectsInMemory]:
    objects = ObjectsInMemory(lambda: NOW)
    for name in namespaces:
        objects.create("Namespace", {"metadata": {"name": name}})
    kube = RefusingClient(SimulatedApi(objects, lambda how, item: None))
    kube.error = error
    policy = OperatorPolicy(MoverSettings("image"), account=OperatorAccount(SYSTEM))
    return Context(kube, cast("StorePool", StoresThatAnswer()), policy, clock=lambda: NOW), objects


def made(objects: ObjectsInMemory) -> set[str]:
    return {item["metadata"]["namespace"] for item in objects.all("BackupStore")}


@pytest.mark.parametrize("error", [InvalidInput("a quota is exceeded"), KubeUnavailable("a webhook is down")])
async def test_namespaces_that_refuse_do_not_starve_the_rest(error: CinderblockError) -> None:
    refused = [f"a-{number:02}" for number in range(MAX_WRITES)]
    context, objects = a_context(error, [*refused, "y", "z"])
    reconciler, cluster = ClusterStoreReconciler(), a_cluster_store(metadata=FINALIZER)
    for _ in range(MAX_WRITES):
        decision = await reconciler.step(context, cluster)
        assert decision.status is not None, "the conditions are written all the same"
    assert made(objects) == {"y", "z"}
    shown = next(c for c in decision.status.conditions if c.type == "StoresCreated")
    assert (shown.status, shown.reason) == ("False", "StoresNotCreated")


async def test_store_that_does_not_parse_is_not_counted_as_made() -> None:
    context, objects = a_context(InvalidInput("none"), ["y", "z"])
    objects.create("BackupStore", {"metadata": {"name": "shared", "namespace": "y"}, "spec": {"clusterStoreRef": 7}})
    decision = await ClusterStoreReconciler().step(context, a_cluster_store(metadata=FINALIZER))
    assert decision.status is not None
    shown = next(c for c in decision.status.conditions if c.type == "StoresCreated")
    assert (shown.status, shown.reason) == ("False", "InvalidInput")
    assert " in y." in shown.message
