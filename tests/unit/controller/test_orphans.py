"""A marked volume is released only if its VolumeRestore is known not to exist."""

from __future__ import annotations

from typing import Any, cast

import pytest
from typing_extensions import override

from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.orphans import release_volume
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import AccessDenied
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi


class Api(SimulatedApi):
    """Refuses everything in one namespace, and records writes."""

    def __init__(self, refused: str) -> None:
        super().__init__(ObjectsInMemory(lambda: START), lambda how, item: self.writes.append(how))
        self.writes: list[str] = []
        self.refused = refused

    @override
    async def round_trip(self, request: Request) -> Response:
        if f"/namespaces/{self.refused}/" in request.path:
            return Response(403, b"{}")
        return await super().round_trip(request)


def a_volume(api: Api, uid: str) -> dict[str, Any]:
    metadata = {"name": "pv-1", "labels": {RESTORE_LABEL: uid}}
    spec = {"claimRef": {"namespace": "shop", "name": "data", "uid": "c-1"}, "persistentVolumeReclaimPolicy": "Retain"}
    made = api.objects.create("PersistentVolume", {"metadata": metadata, "spec": spec, "status": {"phase": "Released"}})
    assert made is not None
    return made


def context_of(api: Api, *namespaces: str) -> Context:
    kube = KubeClient(api)
    kube.namespaces, kube.skips_unreadable = namespaces, True
    return Context(kube, cast("StorePool", None), OperatorPolicy(MoverSettings("example/cinderblock:1")))


async def test_volume_of_a_namespace_that_may_not_be_read_is_left_alone() -> None:
    api = Api("shop")
    with pytest.raises(AccessDenied):
        await release_volume(context_of(api, "demo", "shop"), a_volume(api, "gone"))
    assert not api.writes


@pytest.mark.parametrize("namespaces", [(), ("demo", "shop")])
async def test_volume_whose_restore_exists_is_left_alone(namespaces: tuple[str, ...]) -> None:
    api = Api("")
    body = {"metadata": {"name": "again", "namespace": "shop"}, "spec": {"backupId": "full"}}
    restore = api.objects.create("VolumeRestore", body)
    assert restore is not None
    assert await release_volume(context_of(api, *namespaces), a_volume(api, restore["metadata"]["uid"])) is None
    assert not api.writes


async def test_volume_is_released_although_another_namespace_may_not_be_read() -> None:
    api = Api("demo")
    await release_volume(context_of(api, "demo", "shop"), a_volume(api, "gone"))
    assert api.writes
