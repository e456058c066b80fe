"""Related operations of a namespace, on a real API server, which rejects field selectors that do not exist."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile import related
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP, VOLUME_RESTORE, Kind
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy

pytestmark = pytest.mark.integration

CLAIM = {"metadata": {"name": "data", "uid": "c-1"}, "spec": {}, "status": {}}
WORKING = [
    {
        "type": "Reconciling",
        "status": "True",
        "reason": "MoverRunning",
        "message": "",
        "lastTransitionTime": "2026-05-04T12:00:00Z",
    }
]


@pytest.fixture(params=[100, 1], ids=["few", "many"])
def context(request: pytest.FixtureRequest, client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(related, "LIST_ALL_LIMIT", request.param)
    return Context(
        client, cast("StorePool", None), OperatorPolicy(MoverSettings("example/cinderblock:1")), clock=datetime.now
    )


async def make(client: KubeClient, kind: Kind, namespace: str, name: str, spec: Any, **status: Any) -> Any:
    finalizers = ["cinderblock.io/backup-data"] if status.get("storeName") else []
    metadata = {"name": name, "namespace": namespace, "finalizers": finalizers}
    made = await client.create(kind, {"metadata": metadata, "spec": spec})
    own = {"id": made["metadata"]["uid"]} | status
    return await client.merge_patch(kind, name, namespace, {"status": own}, subresource="status")


async def test_backup_finds_operations_on_its_volume_dependents_and_restores(
    context: Context, client: KubeClient, namespace: str
) -> None:
    own = await make(client, VOLUME_BACKUP, namespace, "own", {"volumeId": "data"}, phase="creating", volumeId="c-1")
    uid = own["metadata"]["uid"]
    busy: dict[str, Any] = {"phase": "creating", "conditions": WORKING}
    await make(client, VOLUME_BACKUP, namespace, "by-name", {"volumeId": "data"}, **busy)
    await make(client, VOLUME_BACKUP, namespace, "by-uid", {"volumeId": "c-1"}, **busy)
    await make(client, VOLUME_BACKUP, namespace, "dependent", {"volumeId": "x"}, phase="available", parentId=uid)
    await make(client, VOLUME_RESTORE, namespace, "reads", {"backupId": "own"}, phase="restoring", backupId=uid)
    spec, busy = {"backupId": "x", "volumeId": "data"}, {"phase": "restoring", "conditions": WORKING}
    await make(client, VOLUME_RESTORE, namespace, "writes", spec, **busy)
    found = await related.related_to_backup(
        context, VolumeBackup.model_validate(own), PersistentVolumeClaim.model_validate(CLAIM)
    )
    assert found.count > len(found.backups)
    assert {backup.name for backup in found.backups} >= {"by-name", "by-uid", "dependent"}
    assert {restore.name for restore in found.restores} >= {"reads", "writes"}


@pytest.mark.parametrize("by", ["name", "uid"])
async def test_restore_finds_its_backup_and_writers_to_its_target(
    context: Context, client: KubeClient, namespace: str, by: str
) -> None:
    backup = await make(client, VOLUME_BACKUP, namespace, "full", {"volumeId": "other"}, phase="available")
    await make(client, VOLUME_BACKUP, namespace, "busy", {"volumeId": "data"}, phase="creating", conditions=WORKING)
    spec = {"backupId": backup["metadata"][by], "volumeId": "data"}
    own = await make(client, VOLUME_RESTORE, namespace, "own", spec)
    running: dict[str, Any] = {"phase": "restoring", "conditions": WORKING}
    await make(client, VOLUME_RESTORE, namespace, "running", {"backupId": "full", "volumeId": "data"}, **running)
    found = await related.related_to_restore(
        context, VolumeRestore.model_validate(own), PersistentVolumeClaim.model_validate(CLAIM)
    )
    assert found.count > len(found.restores)
    assert found.backup is not None
    assert found.backup.name == "full"
    assert "busy" in {other.name for other in found.backups}
    assert "running" in {other.name for other in found.restores}


async def test_restore_finds_those_that_make_the_same_claim(
    context: Context, client: KubeClient, namespace: str
) -> None:
    spec = {"backupId": "full", "name": "new"}
    await client.create(VOLUME_RESTORE, {"metadata": {"name": "a-new", "namespace": namespace}, "spec": spec})
    await make(client, VOLUME_RESTORE, namespace, "b-running", spec, phase="restoring", conditions=WORKING)
    own = await client.create(VOLUME_RESTORE, {"metadata": {"name": "own", "namespace": namespace}, "spec": spec})
    late = own | {"metadata": own["metadata"] | {"creationTimestamp": "2999-01-01T00:00:00Z"}}
    found = await related.related_to_restore(context, VolumeRestore.model_validate(late), None)
    assert {"a-new", "b-running"} <= {other.name for other in found.restores}


async def test_store_finds_its_users(context: Context, client: KubeClient, namespace: str) -> None:
    metadata = {"name": "default", "namespace": namespace, "uid": "s-1"}
    store = BackupStore.model_validate({"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})
    await make(client, VOLUME_BACKUP, namespace, "elsewhere", {"volumeId": "a"}, phase="available", storeName="cold")
    assert await related.list_store_users(context, store) == ()
    await make(client, VOLUME_BACKUP, namespace, "here", {"volumeId": "a"}, phase="available", storeName="default")
    assert await related.list_store_users(context, store) == ("here",)


async def test_store_finds_complete_unencrypted_backups(context: Context, client: KubeClient, namespace: str) -> None:
    whole = {"phase": "available", "storeName": "offsite"}
    await make(client, VOLUME_BACKUP, namespace, "plain", {"volumeId": "data"}, **whole, sealed=False)
    await make(client, VOLUME_BACKUP, namespace, "sealed", {"volumeId": "data"}, **whole, sealed=True)
    await make(client, VOLUME_BACKUP, namespace, "unknown", {"volumeId": "data"}, **whole)
    elsewhere = {"phase": "available", "storeName": "other", "sealed": False}
    await make(client, VOLUME_BACKUP, namespace, "elsewhere", {"volumeId": "data"}, **elsewhere)
    spec = {"credentialsSecretRef": {"name": "s3"}}
    store = BackupStore.model_validate({"metadata": {"name": "offsite", "namespace": namespace}, "spec": spec})
    names, is_all = await related.list_unsealed(context, store)
    # A server that has found as many objects as requested does not check whether there are more.
    assert (names, is_all or related.LIST_ALL_LIMIT == 1) == (("plain",), True)
