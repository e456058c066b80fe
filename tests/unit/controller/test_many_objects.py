"""Lists of all namespaces are read page by page, and little is kept of BackupStores and claims."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from typing_extensions import override

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.context import Context
from cinderblock.controller.metrics import collector
from cinderblock.controller.reconcile import gather, gather_store
from cinderblock.controller.reconcile.gather import choose_store
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube.client import JsonObjects, KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.reduction import reduce_object
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.store.factory import ignores_unsigned_headers
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi

LIMIT = 5
AFFINITY = {"nodeAffinity": {"x": ["y" * 1000] * 100}}


class Pages(KubeClient):
    """A client that never returns a whole list."""

    @override
    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> JsonObjects:
        raise AssertionError(f"a whole list of {kind.plural} is held")


@pytest.fixture
def objects() -> ObjectsInMemory:
    return ObjectsInMemory(lambda: START)


@pytest.fixture
def context(objects: ObjectsInMemory) -> Context:
    kube = Pages(SimulatedApi(objects, lambda how, item: None), reduce=reduce_object)
    policy = OperatorPolicy(MoverSettings("example/cinderblock:1"), object_limit=LIMIT)
    return Context(kube, StorePool(kube, ignores_unsigned_headers=ignores_unsigned_headers), policy)


def a_store(objects: ObjectsInMemory, name: str, *, is_default: bool = False, **status: Any) -> BackupStore:
    marks = {"cinderblock.io/is-default-store": "true"} if is_default else {}
    metadata = {"name": name, "namespace": "shop", "annotations": marks}
    spec = {"credentialsSecretRef": {"name": "s3"}, "mover": {"affinity": AFFINITY}}
    made = objects.create("BackupStore", {"metadata": metadata, "spec": spec})
    assert made is not None
    objects.update(made, status=status)
    return BackupStore.model_validate(made)


def ready() -> list[dict[str, str]]:
    stamp = "2026-05-04T12:00:00Z"
    return [{"type": "Ready", "status": "True", "reason": "Answers", "message": "", "lastTransitionTime": stamp}]


async def test_default_store_is_chosen_from_a_list_and_read_whole(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(3 * LIMIT):
        a_store(objects, f"other-{number}")
    a_store(objects, "usual", is_default=True)
    chosen = (await choose_store(context, "shop", None)).store
    assert chosen is not None
    assert (chosen.name, chosen.spec.mover.affinity) == ("usual", AFFINITY)


async def test_several_default_stores_are_named(objects: ObjectsInMemory, context: Context) -> None:
    for name in ("one", "two"):
        a_store(objects, name, is_default=True)
    lookup = await choose_store(context, "shop", None)
    assert lookup.store is None
    assert "several default BackupStores (one, two)" in lookup.missing


async def test_resync_keeps_the_keys_of_stores_up_to_the_limit(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(3 * LIMIT):
        a_store(objects, f"store-{number:02}")
    pending = await list_pending(context)
    assert [key.name for key, _ in pending] == [f"store-{number:02}" for number in range(LIMIT)]
    assert len(json.dumps(pending)) < 100 * LIMIT


async def test_new_store_in_a_namespace_with_too_many_is_not_looked_at(
    objects: ObjectsInMemory, context: Context
) -> None:
    stores = [a_store(objects, f"store-{number}") for number in range(LIMIT + 1)]
    observed = await gather_store.gather(context, stores[-1], Broker())
    assert observed.lookup.error is not None
    assert observed.lookup.error.reason == "TooManyObjects"


async def test_store_that_works_is_still_looked_at(objects: ObjectsInMemory, context: Context) -> None:
    stores = [a_store(objects, f"store-{number}", conditions=ready()) for number in range(LIMIT + 1)]
    observed = await gather_store.gather(context, stores[-1], Broker())
    assert observed.lookup.error is not None
    assert observed.lookup.error.reason == "SecretNotFound"


async def test_metrics_keep_only_claims_that_backups_name(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(3 * LIMIT):
        objects.create("PersistentVolumeClaim", {"metadata": {"name": f"data-{number}", "namespace": "shop"}})
    objects.create("VolumeBackup", {"metadata": {"name": "full", "namespace": "shop"}, "spec": {"volumeId": "data-3"}})
    state = await collector.read(cast("KubeClient", context.kube))
    assert [volume.name for volume in state.volumes] == ["data-3"]


def a_pod(objects: ObjectsInMemory, name: str, claim: str, **metadata: Any) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    body = {"metadata": {"name": name, "namespace": "shop"} | metadata, "spec": {"volumes": volumes}}
    assert objects.create("Pod", body)


def a_claim(name: str) -> PersistentVolumeClaim:
    return PersistentVolumeClaim.model_validate({"metadata": {"name": name, "namespace": "shop", "uid": "u"}})


async def test_few_pods_are_kept_of_very_many(
    objects: ObjectsInMemory, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user of the volume and a mover of a restore are found behind any number of others."""
    monkeypatch.setattr(gather, "PODS_OF_A_VOLUME", 3)
    for number in range(600):
        a_pod(objects, f"other-{number:03}", "other")
    for number in range(10):
        a_pod(objects, f"user-{number}", "data")
    mover = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY, labels.OWNER_KIND_LABEL: "VolumeRestore"}
    a_pod(objects, "z-mover", "data", labels=mover)
    pods = await gather.list_pods_using(context, a_claim("data"))
    assert len(pods) == 4
    assert gather.pods_restoring(pods, "another") == ("z-mover",)
    assert await gather.list_pods_using(context, a_claim("nothing")) == []


async def test_stateful_set_is_found_behind_very_many_pods(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(600):
        a_pod(objects, f"other-{number:03}", "other")
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "s", "controller": True}
    a_pod(objects, "web-0", "data-web-0", ownerReferences=[owner])
    found = await gather.find_running_pods(context, a_claim("data-web-1"))
    assert (found.using, found.stateful_sets) == ([], ("web",))


async def test_few_pods_are_kept_of_a_forged_mover(
    objects: ObjectsInMemory, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PODS_OF_A_MOVER", 3)
    metadata = {"name": "full", "namespace": "shop", "uid": "u-1"}
    backup = VolumeBackup.model_validate({"metadata": metadata, "spec": {"volumeId": "data"}})
    for number in range(1200):
        a_pod(objects, f"mover-{number:04}", "data", labels={labels.OWNER_UID_LABEL: "u-1"})
    assert 3 <= len(await gather.list_mover_pods(context, backup)) <= 500
