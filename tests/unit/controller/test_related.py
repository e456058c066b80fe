"""However many operations a namespace has, a decision is given the few that matter, and no list is held as a whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from typing_extensions import override

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile import related
from cinderblock.controller.reconcile.relatives import KEPT_OF_A_GROUP
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube import client
from cinderblock.kube.client import JsonObjects, KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import delete, import_checks
from cinderblock.lifecycle.observed import MoverSettings, ObservedBackup, OperatorPolicy
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi, stamp

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


def restore_of(objects: ObjectsInMemory, reference: str, **status: Any) -> VolumeRestore:
    """Create a VolumeRestore of a backup into a new volume."""
    return VolumeRestore.model_validate(make(objects, "VolumeRestore", "back", {"backupId": reference}, **status))


def taken(objects: ObjectsInMemory, name: str, backup_id: str) -> VolumeBackup:
    """Create an import that failed, because another VolumeBackup has its id."""
    made = make(objects, "VolumeBackup", name, {"import": {"id": backup_id}})
    objects.update(made, status={"phase": "error", "id": backup_id, "importedBy": made["metadata"]["uid"]})
    return VolumeBackup.model_validate(objects.get("VolumeBackup", name, "shop"))


@pytest.fixture(params=["first page", "all"])
def first_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first page hold one object, or all of them."""
    if request.param == "first page":
        monkeypatch.setattr(related, "LIST_ALL_LIMIT", 1)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page hold as many objects as are kept of a group."""
    monkeypatch.setattr(related, "LIST_ALL_LIMIT", 1)
    monkeypatch.setattr(client, "PAGE_LIMIT", KEPT_OF_A_GROUP)


def over_limit(context: Context) -> Context:
    """Return the context of an operator that works on no more than one object of a namespace."""
    return replace(context, policy=replace(context.policy, object_limit=1))


@pytest.mark.usefixtures("first_page")
async def test_id_of_a_backup_wins_over_the_name_of_an_earlier_one(objects: ObjectsInMemory, context: Context) -> None:
    wanted = backup(objects, "zz-wanted", phase="available")
    backup(objects, wanted.uid, phase="available")
    found = (await related.related_to_restore(context, restore_of(objects, wanted.uid), None)).backup
    assert found is not None
    assert found.uid == wanted.uid


@pytest.mark.usefixtures("first_page")
async def test_backup_wins_over_a_failed_import_of_its_id(objects: ObjectsInMemory, context: Context) -> None:
    wanted = backup(objects, "zz-wanted", phase="available")
    taken(objects, "a-taken", wanted.uid)
    taken(objects, wanted.uid, wanted.uid)
    for phase in ({}, {"phase": "restoring", "backupId": wanted.uid}):
        restore = restore_of(objects, wanted.uid, **phase)
        found = (await related.related_to_restore(context, restore, None)).backup
        assert found is not None
        assert found.uid == wanted.uid
        objects.delete(objects.get("VolumeRestore", "back", "shop"))


@pytest.mark.usefixtures("first_page")
@pytest.mark.parametrize("named", ["0-name", UID])
async def test_accepted_restore_never_takes_a_backup_by_name(
    objects: ObjectsInMemory, context: Context, named: str
) -> None:
    for name in ("0-name", UID):
        backup(objects, name, phase="available")
    restore = restore_of(objects, named, phase="restoring", backupId=UID)
    assert (await related.related_to_restore(context, restore, None)).backup is None


@pytest.mark.usefixtures("first_page")
async def test_accepted_restore_keeps_a_backup_that_has_lost_its_status(
    objects: ObjectsInMemory, context: Context
) -> None:
    backup(objects, "a-other", phase="available")
    own, imported = backup(objects, "lost"), make(objects, "VolumeBackup", "lost-import", {"import": {"id": UID}})
    for backup_id, name in ((own.uid, "lost"), (UID, imported["metadata"]["name"])):
        restore = restore_of(objects, "gone", phase="restoring", backupId=backup_id)
        found = (await related.related_to_restore(context, restore, None)).backup
        assert found is not None
        assert found.name == name
        objects.delete(objects.get("VolumeRestore", "back", "shop"))


@pytest.mark.usefixtures("small_pages")
async def test_import_finds_the_owner_of_its_id_among_many_others(objects: ObjectsInMemory, context: Context) -> None:
    me = VolumeBackup.model_validate(make(objects, "VolumeBackup", "me", {"import": {"id": UID}}))
    for number in range(KEPT_OF_A_GROUP):
        backup(objects, f"a-child-{number:02}", phase="error", parentId=UID)
        backup(objects, f"b-child-{number:02}", phase="available", parentId=UID)
    source = {"id": UID, "manifest": "x"}
    owner = make(objects, "VolumeBackup", "zz-owner", {"import": source})
    objects.update(owner, status={"phase": "available", "id": UID, "importedBy": owner["metadata"]["uid"]})
    found = (await related.related_to_import(context, me)).backups
    assert import_checks.id_is_free(ObservedBackup(me, context.policy, siblings=found)) is not None
    assert len([other for other in found if other.name.startswith("b-child")]) == KEPT_OF_A_GROUP
    assert not [other for other in found if other.name.startswith("a-child")]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("is_lost", [False, True])
async def test_recorded_parent_is_found_behind_many_failed_imports_of_its_id(
    objects: ObjectsInMemory, context: Context, is_lost: bool
) -> None:
    parent = backup(objects, "zz-parent", **({} if is_lost else {"phase": "available", "volumeId": "c-1"}))
    for number in range(KEPT_OF_A_GROUP + 1):
        taken(objects, f"a-taken-{number:02}", parent.uid)
    me = backup(objects, "me", phase="creating", volumeId="c-1", parentId=parent.uid, manifestKey="x")
    found = await related.related_to_backup(context, me, None)
    chosen = backup_checks.recorded_parent(ObservedBackup(me, context.policy, siblings=found.backups))
    assert chosen is not None
    assert chosen.uid == parent.uid


@pytest.mark.usefixtures("small_pages")
async def test_unfinished_orphan_is_found_behind_many_complete_ones(objects: ObjectsInMemory, context: Context) -> None:
    """Before a backup is complete, no manifest shows that it needs another backup, so only its status protects that."""
    me = backup(objects, "me", phase="deleting", volumeId="c-1")
    for number in range(KEPT_OF_A_GROUP + 1):
        backup(objects, f"a-{number:02}", phase="available", volumeId="c-1", parentId=f"gone-{number}")
    backup(objects, "zz-unfinished", phase="creating", volumeId="c-1", parentId="gone")
    found = await related.related_to_backup(context, me, None)
    observed = ObservedBackup(me, context.policy, siblings=found.backups, present_parents=found.present_parents)
    assert [other.name for other in dependents.dependents_of(observed)] == ["zz-unfinished"]


@pytest.mark.usefixtures("small_pages")
async def test_failed_import_does_not_stand_for_a_parent_that_is_gone(
    objects: ObjectsInMemory, context: Context
) -> None:
    me = backup(objects, "me", phase="available", volumeId="c-1")
    backup(objects, "orphan", phase="creating", volumeId="c-1", parentId=UID)
    failed = taken(objects, "a-taken", UID)
    found = await related.related_to_backup(context, me, None)
    siblings = (*found.backups, failed)
    observed = ObservedBackup(me, context.policy, siblings=siblings, present_parents=found.present_parents)
    assert [other.name for other in dependents.orphaned_incrementals(observed)] == ["orphan"]


@pytest.mark.usefixtures("small_pages")
async def test_alias_is_found_behind_many_without_a_status_of_their_own(
    objects: ObjectsInMemory, context: Context
) -> None:
    key = f"backups/c-1/{UID}.manifest"
    me = backup(objects, "me", phase="deleting", volumeId="c-1", manifestKey=key)
    spec = {"import": {"id": "alias", "manifest": key}}
    for number in range(KEPT_OF_A_GROUP + 1):
        make(objects, "VolumeBackup", f"a-{number:02}", spec, volumeId="c-1", manifestKey=key, importedBy="another")
    alias = make(objects, "VolumeBackup", "zz-alias", spec)
    own = {"phase": "available", "importedBy": alias["metadata"]["uid"], "volumeId": "c-1", "manifestKey": key}
    objects.update(alias, status=own)
    found = await related.related_to_backup(context, me, None)
    aliases = delete.aliases(ObservedBackup(me, context.policy, siblings=found.backups))
    assert [other.name for other in aliases] == ["zz-alias"]


async def test_dependent_is_found_behind_many_ids_without_a_backup(objects: ObjectsInMemory, context: Context) -> None:
    me = backup(objects, "me", phase="deleting", volumeId="c-1", volumeName="data")
    needed_by = [f"gone-{number}" for number in range(2 * KEPT_OF_A_GROUP)]
    child = backup(objects, "child", phase="available", volumeId="c-1")
    lost = backup(objects, "lost")
    for uid in (child.uid, lost.uid):
        assert [other.uid for other in await related.list_by_id(context, me, [*needed_by, uid, me.uid])] == [uid]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("mark", ["finalizer", "annotation", "Job"])
async def test_restore_that_has_begun_gets_its_backup_in_a_full_namespace(
    objects: ObjectsInMemory, context: Context, mark: str
) -> None:
    wanted = backup(objects, "wanted", phase="available")
    for number in range(2):
        make(objects, "VolumeRestore", f"other-{number}", {"backupId": "x"})
    status = {"phase": "restoring", "conditions": waiting("TooManyObjects")} if mark == "Job" else {}
    made = restore_of(objects, wanted.uid, **status)
    if mark == "Job":
        objects.create("Job", {"metadata": {"name": labels.child_name(made.uid), "namespace": "shop"}})
    marks = {
        "finalizer": {"finalizers": [labels.RESTORE_FINALIZER]},
        "annotation": {"annotations": {labels.ENDED_ANNOTATION: f"{made.uid}/available"}},
    }
    restore = made.model_copy(update={"metadata": made.metadata.model_copy(update=marks.get(mark, {}))})
    found = await related.related_to_restore(over_limit(context), restore, None)
    assert found.backup is not None
    assert found.backup.name == "wanted"


@pytest.mark.usefixtures("small_pages")
async def test_backup_with_a_snapshot_gets_its_parent_in_a_full_namespace(
    objects: ObjectsInMemory, context: Context
) -> None:
    """The operator may have died before it recorded the snapshot in the status."""
    parent = backup(objects, "parent", phase="available", volumeId="c-1")
    status = {"phase": "creating", "parentId": parent.uid, "conditions": waiting("TooManyObjects")}
    me = backup(objects, "me", **status)
    waits = await related.related_to_backup(over_limit(context), me, CLAIM)
    begun = await related.related_to_backup(over_limit(context), me, CLAIM, has_children=True)
    assert (waits.backups, [other.name for other in begun.backups]) == ((), ["parent"])


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("phase", [{}, {"phase": "restoring"}])
async def test_older_restore_that_makes_the_same_claim_is_found_among_many(
    objects: ObjectsInMemory, context: Context, phase: dict[str, Any]
) -> None:
    make(objects, "VolumeRestore", "zz-older", {"backupId": "x", "name": "new"}, **phase)
    for number in range(KEPT_OF_A_GROUP + 1):
        make(objects, "VolumeRestore", f"a-{number:02}", {"backupId": "x", "name": f"other-{number}"}, **phase)
    spec = {"backupId": "x", "name": "new"}
    me = VolumeRestore.model_validate(make(objects, "VolumeRestore", "me", spec))
    found = await related.related_to_restore(context, me, None)
    assert [other.name for other in found.restores] == ["zz-older"]


async def test_history_of_a_backup_is_kept_of_many(objects: ObjectsInMemory, context: Context) -> None:
    """Ten recent ones of the same volume and container are kept, and the newest full one, however old it is."""
    here = {"volumeId": "c-1", "storeName": "default", "container": "bucket", "phase": "available"}
    for number in range(MANY):
        instant = f"2026-05-04T12:{number // 60:02}:{number % 60:02}Z"
        backup(objects, f"old-{(number * 7) % MANY:03}", **here, dataTimestamp=instant, isIncremental=number != 20)
    for name, other in {
        "away": {"container": "other"},
        "failed": {"phase": "error"},
        "of-another": {"volumeId": "x"},
    }.items():
        backup(objects, name, **(here | {"dataTimestamp": "2026-05-04T12:59:00Z"} | other))
    made_of_it = {"dataTimestamp": "2026-05-04T12:03:00Z", "phase": "creating"}
    found = await related.related_to_backup(context, backup(objects, "me", **(here | made_of_it)), CLAIM)
    kept = {other.name for other in found.backups if other.is_complete}
    assert kept == {f"old-{(number * 7) % MANY:03}" for number in (20, *range(170, 180))}


async def test_last_restore_into_the_volume_is_kept_of_many(objects: ObjectsInMemory, context: Context) -> None:
    me = backup(objects, "me", phase="creating", volumeId="c-1")
    for number in range(MANY):
        ended = f"2026-05-04T12:{number // 60:02}:{number % 60:02}Z"
        status = {"phase": "available", "volumeId": "c-1", "backupId": "x", "completedAt": ended}
        make(objects, "VolumeRestore", f"over-{number:03}", {"backupId": "x", "volumeId": "data"}, **status)
        make(objects, "VolumeRestore", f"new-{number:03}", {"backupId": "x", "name": "new"}, **status)
    found = await related.related_to_backup(context, me, CLAIM)
    assert [restore.name for restore in found.restores] == [f"over-{MANY - 1:03}"]


@pytest.mark.parametrize("reference", ["c-1", "data"])
async def test_backups_that_are_missing_in_the_history_are_kept_of_many(
    objects: ObjectsInMemory, context: Context, reference: str
) -> None:
    """A complete backup waits for their statuses, and no claim is read for it."""
    here = {"volumeId": "c-1", "volumeName": "data", "storeName": "default", "container": "bucket"}
    for number in range(MANY):
        backup(objects, f"old-{number:03}", **here, phase="available", dataTimestamp="2026-05-04T12:00:00Z")
    make(objects, "VolumeBackup", "of-another", {"volumeId": "other"}, phase="error", storeName="default")
    make(objects, "VolumeBackup", "lost", {"volumeId": reference}, phase="error", storeName="default")
    unknown = {"type": "Suspicious", "status": "Unknown", "reason": "AlarmUnknown", "lastTransitionTime": stamp(START)}
    state = {"phase": "available", "dataTimestamp": "2026-05-04T13:00:00Z", "conditions": [unknown]}
    found = await related.related_to_backup(context, backup(objects, "me", **here, **state), None)
    names = {other.name for other in found.backups}
    assert "lost" in names
    assert "of-another" not in names
    assert len([name for name in names if name.startswith("old")]) >= 10


@pytest.mark.usefixtures("small_pages")
async def test_latest_damage_is_kept_behind_much_older_damage(objects: ObjectsInMemory, context: Context) -> None:
    def damaged(name: str, at: datetime) -> VolumeBackup:
        made = backup(objects, name, phase="available", volumeId="c-1", storeName="default", container="backups")
        packs = [f"packs/c-1/{name}/{number}" for number in range(20)]
        found = {"result": "Damaged", "recordedFor": made.uid, "damagedAt": stamp(at), "objects": packs}
        stored = objects.get("VolumeBackup", name, "shop")
        objects.update(stored, status=stored["status"] | {"verification": found | {"damagedObjects": 20}})
        return made

    for number in range(KEPT_OF_A_GROUP + 1):
        damaged(f"a-{number:02}", START - timedelta(days=9))
    latest = damaged("zz-latest", START - timedelta(days=1))
    me = VolumeBackup.model_validate(make(objects, "VolumeBackup", "me", {"volumeId": "data", "incremental": True}))
    found = await related.related_to_backup(context, me, CLAIM)
    kept = [other.uid for other in found.backups if other.is_damaged]
    assert latest.uid in kept
    assert len(kept) < KEPT_OF_A_GROUP
