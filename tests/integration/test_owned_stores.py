"""Two clusters and one bucket: two real API servers, two operators, and a real S3 server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.layout import owner_key
from cinderblock.api.mover import StoreLocation
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.s3 import S3Server
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.simulation.controllers import furnish, furnish_namespace

pytestmark = [pytest.mark.integration, pytest.mark.long]

NAMESPACE, BUCKET = "shop", "shared-by-mistake"


@dataclass(frozen=True)
class OneCluster:
    """A cluster whose operator runs, and that has no BackupStore yet.

    Attributes:
        call: runs a function with the administrator's client.
        store: the BackupStore to create.
    """

    call: Callable[[Callable[[KubeClient], Any]], Any]
    store: dict[str, Any]

    @property
    def uid(self) -> str:
        return str(self.call(lambda client: client.get(kinds.NAMESPACE, "kube-system"))["metadata"]["uid"])

    def create(self) -> None:
        self.call(lambda client: client.create(kinds.BACKUP_STORE, self.store))

    def take_over(self, epoch: str) -> None:
        patch = {"spec": {"takeOver": epoch}}
        self.call(lambda client: client.merge_patch(kinds.BACKUP_STORE, "default", NAMESPACE, patch))

    def owner(self) -> dict[str, Any]:
        """Return status.owner."""
        body = self.call(lambda client: client.get(kinds.BACKUP_STORE, "default", NAMESPACE)) or {}
        found: dict[str, Any] = body.get("status", {}).get("owner", {})
        return found

    def ready(self) -> tuple[str, str]:
        """Return status and reason of the condition Ready."""
        body = self.call(lambda client: client.get(kinds.BACKUP_STORE, "default", NAMESPACE)) or {}
        shown = {c["type"]: c for c in body.get("status", {}).get("conditions", ())}.get("Ready", {})
        return shown.get("status", ""), shown.get("reason", "")


async def prepare(client: KubeClient, store: S3Server) -> dict[str, Any]:
    """Return the BackupStore of a new namespace, which is not created yet."""
    for resource in RESOURCES:
        await install(client, resource)
    await furnish(client)
    await furnish_namespace(client, NAMESPACE, store, BUCKET)
    made = await client.get(kinds.BACKUP_STORE, "default", NAMESPACE)
    assert made is not None
    await client.delete(kinds.BACKUP_STORE, "default", NAMESPACE)
    metadata = {name: made["metadata"][name] for name in ("name", "namespace", "annotations")}
    return {"metadata": metadata, "spec": made["spec"]}


def start(stack: ExitStack, directory: Path, store: S3Server) -> OneCluster:
    """Start a cluster and its operator."""
    directory.mkdir()
    server = stack.enter_context(apiserver.running(with_snapshots=True))
    wanted = call_as_admin(server.kubeconfig, lambda client: prepare(client, store))
    api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
    kubeconfig = kubeconfigs.write(directory / "kubeconfig", api.url, server.authority, server.token)
    process = stack.enter_context(
        operator(api, directory, "operator", kubeconfig, CINDERBLOCK_LEASE_NAMESPACE="default")
    )
    wait_for("readiness", process.is_ready)
    return OneCluster(partial(call_as_admin, server.kubeconfig), wanted)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[OneCluster, OneCluster, Callable[[], dict[str, Any]]]]:
    """Run two clusters with one bucket. The last value reads the marker in it."""
    with ExitStack() as stack:
        store = stack.enter_context(s3.running("--keep-alive"))
        location = StoreLocation(endpoint_url=store.url, container=BUCKET, prefix=NAMESPACE)
        opened = stack.enter_context(closing(open_store(location, S3Credentials(store.access_key, store.secret_key))))
        first, second = (start(stack, tmp_path / name, store) for name in ("first", "second"))
        yield first, second, lambda: json.loads(opened.get(owner_key(NAMESPACE)))


def test_second_cluster_changes_nothing_until_it_takes_over(
    world: tuple[OneCluster, OneCluster, Callable[[], dict[str, Any]]],
) -> None:
    first, second, marker = world
    first.create()
    wait_for("the first owner", lambda: first.owner().get("state") == "Own")
    before = marker()
    assert before["cluster"] == first.uid
    assert first.ready() == ("True", "Answers")
    second.create()
    wait_for("a refusal", lambda: second.ready() == ("False", "ForeignOwner"))
    assert (second.owner()["state"], second.owner()["cluster"]) == ("Foreign", first.uid)
    assert marker() == before
    second.take_over(before["epoch"])
    wait_for("the second owner", lambda: second.owner().get("state") == "Own")
    assert marker()["cluster"] == second.uid
    assert marker()["epoch"] != before["epoch"]
    assert second.ready() == ("True", "Answers")
