"""However many operations a namespace has, a decision is given the few that matter, and no list is held as a whole."""

from __future__ import annotations

from typing import Any, cast

import pytest
from typing_extensions import override

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile import related
from cinderblock.controller.reconcile.relatives import KEPT_OF_A_GROUP
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube.client import JsonObjects, KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi

MANY = 200
CLAIM = PersistentVolumeClaim.model_validate({"metadata": {"name": "data", "uid": "c-1", "namespace": "shop"}})
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"


class Pages(KubeClient):
    """A client that never returns a whole list of operations."""

    @override
    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> JsonObjects:
        raise AssertionError(f"a whole list of {kind.plural} is held: {fields}")


class Api(SimulatedApi):
    """Counts requests."""

    requests = 0

    @override
    async def round_trip(self, request: Request) -> Response:
        self.requests += 1
        return await super().round_trip(request)


@pytest.fixture
def objects() -> ObjectsInMemory:
    return ObjectsInMemory(lambda: START)


@pytest.fixture
def api(objects: ObjectsInMemory) -> Api:
    return Api(objects, lambda how, item: None)


@pytest.fixture
def context(api: Api) -> Context:
    policy = OperatorPolicy(MoverSettings("example/cinderblock:1"), object_limit=2 * MANY)
    return Context(Pages(api), cast("StorePool", None), policy)


def make(objects: ObjectsInMemory, kind: str, name: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    """Create an operation with a status of its own."""
    finalizers = ["cinderblock.io/backup-data"] if status.get("storeName") else []
    made = objects.create(
        kind, {"metadata": {"name": name, "namespace": "shop", "finalizers": finalizers}, "spec": spec}
    )
    assert made is not None
    if status:
        objects.update(made, status={"id": made["metadata"]["uid"]} | status)
    return made


def backup(objects: ObjectsInMemory, name: str, **status: Any) -> VolumeBackup:
    return VolumeBackup.model_validate(make(objects, "VolumeBackup", name, {"volumeId": "data"}, **status))


def waiting(reason: str) -> list[dict[str, str]]:
    return [
        {
            "type": "Reconciling",
            "status": "True",
            "reason": reason,
            "message": "",
            "lastTransitionTime": "2026-05-04T12:00:00Z",
        }
    ]


async def test_few_of_many_operations_on_a_volume_are_kept(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        backup(objects, f"waits-{number:03}", phase="creating", conditions=waiting("Queued"))
        backup(objects, f"failed-{number:03}", phase="error", volumeId="c-1")
        make(objects, "VolumeRestore", f"over-{number:03}", {"backupId": "x", "volumeId": "data"}, phase="restoring")
    found = await related.related_to_backup(
        context, backup(objects, "me", phase="creating", conditions=waiting("Queued")), CLAIM
    )
    assert 1 <= len(found.backups) <= KEPT_OF_A_GROUP
    assert 1 <= len(found.restores) <= KEPT_OF_A_GROUP
    assert found.count == 2 * MANY + 1


async def test_only_the_latest_of_many_possible_parents_is_kept(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        instant = f"2026-05-04T12:{number // 60:02}:{number % 60:02}Z"
        status = {"volumeId": "c-1", "storeName": "default", "container": "bucket", "dataTimestamp": instant}
        backup(objects, f"full-{(number * 7) % MANY:03}", phase="available", **status)
    me = make(objects, "VolumeBackup", "me", {"volumeId": "data", "incremental": True})
    found = await related.related_to_backup(context, VolumeBackup.model_validate(me), CLAIM)
    assert [found.status.data_timestamp.isoformat() for found in found.backups if found.status.data_timestamp] == [
        "2026-05-04T12:03:19+00:00"
    ]


async def test_children_of_present_parents_are_not_orphans(objects: ObjectsInMemory, context: Context) -> None:
    me = backup(objects, "me", phase="available", volumeId="c-1")
    parent = me.uid
    for number in range(MANY):
        parent = backup(objects, f"chain-{number:03}", phase="available", volumeId="c-1", parentId=parent).uid
    orphan = backup(objects, "orphan", phase="creating", volumeId="c-1", parentId="gone")
    found = await related.related_to_backup(context, me, None)
    assert {other.name for other in found.backups} == {"chain-000", "orphan"}
    assert orphan.status.parent_id not in found.present_parents
    assert len(found.present_parents) == MANY - 1


async def test_restore_of_a_missing_backup_holds_no_backups(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        backup(objects, f"other-{number:03}", phase="available", volumeId="c-1")
    for reference in ("missing", UID):
        restore = VolumeRestore.model_validate(make(objects, "VolumeRestore", reference, {"backupId": reference}))
        found = await related.related_to_restore(context, restore, None)
        assert (found.backup, found.backups) == (None, ())


async def test_backup_to_restore_is_found_among_many(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        backup(objects, f"other-{number:03}", phase="available", volumeId="c-1")
    source = {"id": UID, "manifest": "x"}
    imported = make(objects, "VolumeBackup", "wanted", {"import": source}, id=UID, importedBy="?")
    imported_by = imported["metadata"]["uid"]
    objects.update(imported, status={"phase": "available", "id": UID, "importedBy": imported_by})
    for reference in ("wanted", UID, imported_by):
        restore = VolumeRestore.model_validate(
            make(objects, "VolumeRestore", f"by-{reference}", {"backupId": reference})
        )
        found = await related.related_to_restore(context, restore, None)
        assert found.backup is not None
        assert found.backup.name == "wanted"


async def test_import_is_given_the_backups_with_its_id(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        backup(objects, f"other-{number:03}", phase="available", volumeId="c-1")
    make(objects, "VolumeBackup", "same", {"import": {"id": UID}})
    me = VolumeBackup.model_validate(make(objects, "VolumeBackup", "me", {"import": {"id": UID}}))
    assert [other.name for other in (await related.related_to_import(context, me)).backups] == ["same"]


async def test_users_of_a_store_are_found_behind_many_that_are_not(objects: ObjectsInMemory, context: Context) -> None:
    for number in range(MANY):
        made = make(objects, "VolumeBackup", f"a-{number:03}", {"volumeId": "data"})
        objects.update(made, status={"id": made["metadata"]["uid"], "phase": "error", "storeName": "default"})
    backup(objects, "user", phase="available", storeName="default")
    metadata = {"name": "default", "namespace": "shop"}
    store = BackupStore.model_validate({"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})
    assert await related.list_store_users(context, store) == ("user",)


@pytest.mark.parametrize("reason", ["", "TooManyObjects"])
async def test_nothing_is_read_for_an_operation_that_may_not_begin(
    objects: ObjectsInMemory, api: Api, context: Context, reason: str
) -> None:
    for number in range(2 * MANY + 1):
        backup(objects, f"other-{number:03}")
    status = {"phase": "creating", "conditions": waiting(reason)} if reason else {}
    found = await related.related_to_backup(context, backup(objects, "me", **status), CLAIM)
    assert (found.backups, found.count) == ((), 2 * MANY + 2)
    assert api.requests == 2
