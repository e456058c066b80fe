"""``/backups`` on a real API server, without the operator: the tests write the statuses that it would."""

from __future__ import annotations

import base64
import json
import uuid

import pytest

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import NAMESPACE, VOLUME_BACKUP, VOLUME_RESTORE, Kind
from tests.support.gateway.cinder_objects import (
    backup,
    pod_with,
    set_backup_status,
    set_restore_status,
    snapshot,
    store,
    volume,
)
from tests.support.gateway.gateways import READER, Gateway, Person

pytestmark = pytest.mark.integration

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
UNKNOWN = str(uuid.UUID(int=1))


@pytest.fixture
async def person(gateway: Gateway, namespace: str) -> Person:
    return await gateway.person(namespace)


@pytest.fixture
async def admin(gateway: Gateway, namespace: str) -> Person:
    return await gateway.person(namespace, admin=True)


async def test_created_volume_backup_can_be_shown_at_once(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace, gib=3)
    requested = {
        "volume_id": database,
        "name": " Nächtliche Sicherung ",
        "description": "one",
        "force": "yes",
        "metadata": {"a": "b"},
        "availability_zone": "nova",
    }
    answer = await person.post("backups", {"backup": requested}, version="3.71")
    assert answer.status == 202
    created = answer.json["backup"]
    assert set(created) == {"id", "name", "links"}
    (body,) = await client.list(VOLUME_BACKUP, namespace)
    assert body["metadata"]["uid"] == created["id"]
    assert body["metadata"]["name"].startswith("nachtliche-sicherung-")
    assert body["metadata"]["annotations"] == {
        "cinderblock.io/created-by": f"system:serviceaccount:{namespace}:person-7"
    }
    assert body["spec"]["volumeId"] == database
    assert body["spec"]["force"] is True
    shown = (await person.get(f"backups/{created['id']}", version="3.71")).json["backup"]
    assert shown["name"] == "Nächtliche Sicherung"
    assert (shown["status"], shown["size"], shown["object_count"], shown["metadata"]) == ("creating", 3, 0, {"a": "b"})
    assert shown["links"][0]["href"] == f"{person.url}/v3/{namespace}/backups/{created['id']}"
    assert shown["links"][1]["href"] == f"{person.url}/{namespace}/backups/{created['id']}"


async def test_backup_has_the_form_of_cinders(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    monday = await backup(client, namespace, database)
    expected = {
        "id": monday,
        "name": "monday",
        "links": [
            {"rel": "self", "href": f"{person.url}/v2/{namespace}/backups/{monday}"},
            {"rel": "bookmark", "href": f"{person.url}/{namespace}/backups/{monday}"},
        ],
        "status": "available",
        "size": 1,
        "object_count": 21,
        "availability_zone": None,
        "container": "backups",
        "created_at": "2026-11-23T09:00:00.000000",
        "updated_at": "2026-11-23T09:00:00.000000",
        "description": None,
        "fail_reason": None,
        "volume_id": database,
        "is_incremental": False,
        "has_dependent_backups": False,
        "snapshot_id": None,
        "data_timestamp": "2026-11-23T09:00:00.000000",
    }
    assert (await person.get(f"/v2/{namespace}/backups/{monday}")).json == {"backup": expected}
    assert (await person.get(f"/v2/{namespace}/backups/detail")).json == {"backups": [expected]}


@pytest.mark.parametrize("identifier", ["zz", "1", UNKNOWN, "a,status.phase=available", "%00", "x" * 300, "..%2f.."])
async def test_unknown_backup_is_404_whatever_its_id(person: Person, identifier: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/export_record")):
        assert (await person.ask(method, f"backups/{identifier}{path}")).status == 404


async def test_backup_of_another_tenant_is_404(
    person: Person, client: KubeClient, namespace: str, gateway: Gateway
) -> None:
    other = f"test-{uuid.uuid4().hex[:12]}"
    await client.create(NAMESPACE, {"metadata": {"name": other}})
    theirs = await backup(client, other, await volume(client, other))
    answer = await person.get(f"backups/{theirs}")
    assert answer.fault == ("itemNotFound", 404, f"Backup {theirs} could not be found.")


async def test_requests_that_cinder_rejects_are_rejected_and_create_nothing(
    person: Person, client: KubeClient, namespace: str
) -> None:
    database, used = await volume(client, namespace), await volume(client, namespace, "used")
    pending = await volume(client, namespace, "pending", phase="Pending")
    await pod_with(client, namespace, "used")
    young = await snapshot(client, namespace, "database", "young", ready=False)
    await store(client, namespace)
    unavailable = "Invalid volume: Volume to be backed up must be available or in-use, but the current status is"
    for requested, code, message in (
        ({"volume_id": UNKNOWN}, 404, f"Volume {UNKNOWN} could not be found."),
        ({"volume_id": used}, 400, "Invalid volume: Backing up an in-use volume must use the force flag."),
        ({"volume_id": pending, "force": True}, 400, f'{unavailable} "pending".'),
        ({"volume_id": database, "snapshot_id": UNKNOWN}, 404, f"Snapshot {UNKNOWN} could not be found."),
        ({"volume_id": used, "snapshot_id": young}, 400, f"Invalid volume: Volume {used} does not match"),
        ({"volume_id": database, "snapshot_id": young}, 400, "Invalid snapshot: Snapshot to be backed up must be"),
        ({"volume_id": database, "incremental": True}, 400, "Invalid backup: No backups available to do an"),
        ({"volume_id": database, "container": "No Bucket"}, 400, "Invalid input for field/attribute container."),
    ):
        answer = await person.post("backups", {"backup": requested})
        assert answer.status == code, answer.text
        assert answer.fault[2].startswith(message)
    assert await client.list(VOLUME_BACKUP, namespace) == []


async def test_volume_with_a_running_operation_is_rejected(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    assert (await person.post("backups", {"backup": {"volume_id": database}})).status == 202
    answer = await person.post("backups", {"backup": {"volume_id": database}})
    assert answer.fault[2].endswith('the current status is "backing-up".')
    mail = await volume(client, namespace, "mail")
    monday = await backup(client, namespace, mail)
    assert (await person.post(f"backups/{monday}/restore", {"restore": {"volume_id": mail}})).status == 202
    answer = await person.post("backups", {"backup": {"volume_id": mail}})
    assert answer.fault[2].endswith('the current status is "restoring-backup".')


async def test_incremental_backup_finds_its_parent(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    await store(client, namespace)
    await backup(client, namespace, database)
    answer = await person.post("backups", {"backup": {"volume_id": database, "incremental": True}})
    assert answer.status == 202
    shown = await person.get(f"backups/{answer.json['backup']['id']}")
    assert shown.json["backup"]["is_incremental"] is True


async def test_exceeded_quota_is_413_with_cinders_message(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    limited = {"count/volumebackups.cinderblock.io": "0"}
    where = {"name": "few", "namespace": namespace}
    await client.create(QUOTA, {"metadata": where, "spec": {"hard": limited}})
    await client.merge_patch(
        QUOTA, "few", namespace, {"status": {"hard": limited, "used": limited}}, subresource="status"
    )
    answer = await person.post("backups", {"backup": {"volume_id": database}})
    assert answer.json["overLimit"] == {
        "code": 413,
        "message": "BackupLimitExceeded: Maximum number of backups allowed (0) exceeded",
        "retryAfter": "0",
    }
    assert answer.headers["Retry-After"] == "0"


async def test_deletion_has_the_code_of_the_version(person: Person, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    first, second = [await backup(client, namespace, database, name) for name in ("first", "second")]
    answer = await person.delete(f"/v2/{namespace}/backups/{first}")
    assert (answer.status, answer.text) == (204, "")
    answer = await person.delete(f"backups/{second}")
    assert (answer.status, answer.text) == (202, "")
    assert (await person.get("backups")).json == {"backups": []}


async def test_backup_with_dependents_is_not_deleted_even_by_force(
    person: Person, client: KubeClient, namespace: str
) -> None:
    database = await volume(client, namespace)
    parent = await backup(client, namespace, database, "parent")
    child = await backup(client, namespace, database, "child", isIncremental=True, parentId=parent)
    for answer in (
        await person.delete(f"backups/{parent}"),
        await person.post(f"backups/{parent}/action", {"os-force_delete": None}),
    ):
        assert answer.fault[1:] == (400, "Invalid backup: Incremental backups exist for this backup.")
    assert (await person.delete(f"backups/{child}")).status == 202
    assert (await person.delete(f"backups/{parent}")).status == 202


@pytest.mark.parametrize("phase", ["creating", "restoring"])
async def test_running_backup_is_deleted_only_by_force(
    person: Person, client: KubeClient, namespace: str, phase: str
) -> None:
    """A restore of another namespace makes a backup ``restoring`` as well (tests/data/cinder/answers/deleting.json)."""
    database = await volume(client, namespace)
    running = await backup(client, namespace, database, phase=phase)
    answer = await person.delete(f"backups/{running}")
    assert answer.fault[1:] == (400, "Invalid backup: Backup status must be available or error")
    assert (await person.post(f"backups/{running}/action", {"os-force_delete": {}})).status == 202
    assert (await person.get(f"backups/{running}")).status == 404


async def test_deletion_shows_before_the_operator_reacts(person: Person, client: KubeClient, namespace: str) -> None:
    monday = await backup(client, namespace, await volume(client, namespace))
    held = {"metadata": {"finalizers": ["cinderblock.io/backup-data"]}}
    await client.merge_patch(VOLUME_BACKUP, "monday", namespace, held)
    assert (await person.delete(f"backups/{monday}")).status == 202
    assert (await person.get(f"backups/{monday}")).json["backup"]["status"] == "deleting"
    assert (await person.delete(f"backups/{monday}")).status == 400
    await client.merge_patch(VOLUME_BACKUP, "monday", namespace, {"metadata": {"finalizers": None}})
    assert (await person.get(f"backups/{monday}")).status == 404


async def test_resetting_the_status_requires_the_right_to_write_it(
    person: Person, admin: Person, client: KubeClient, namespace: str
) -> None:
    monday = await backup(client, namespace, await volume(client, namespace))
    body = {"os-reset_status": {"status": "ERROR"}}
    answer = await person.post(f"backups/{monday}/action", body)
    assert answer.fault[1] == 403
    assert (await admin.post(f"backups/{monday}/action", body)).status == 202
    shown = (await person.get(f"backups/{monday}")).json["backup"]
    assert (shown["status"], shown["fail_reason"]) == ("error", "The status was reset")
    assert (await admin.post(f"backups/{monday}/action", {"os-reset_status": {"status": "available"}})).status == 202
    shown = (await person.get(f"backups/{monday}")).json["backup"]
    assert (shown["status"], shown["fail_reason"]) == ("available", None)


async def test_incomplete_backup_cannot_be_reset_to_available(
    admin: Person, client: KubeClient, namespace: str
) -> None:
    failed = await backup(client, namespace, await volume(client, namespace), phase="error", storedBytes=None)
    answer = await admin.post(f"backups/{failed}/action", {"os-reset_status": {"status": "available"}})
    assert answer.fault[1] == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"os-foo": None}, "There is no such action: os-foo. Verify the request body and Content-Type header"),
        ({}, "Malformed request body"),
        ([], "Malformed request body"),
        (None, "There is no such action: None."),
        ({"os-reset_status": None}, "Invalid input for field/attribute os-reset_status. Value: None. None is not of"),
        ({"os-reset_status": {"status": "creating"}}, "Backup status: creating is invalid, valid statuses are: ['av"),
    ],
)
async def test_invalid_actions_get_cinders_messages(person: Person, body: object, message: str) -> None:
    answer = await person.post("backups/zz/action", body)
    assert answer.fault[1] == 400
    assert answer.fault[2].startswith(message)


async def test_restore_returns_the_volume_id_before_the_claim_exists(
    person: Person, client: KubeClient, namespace: str
) -> None:
    monday = await backup(client, namespace, await volume(client, namespace))
    answer = await person.post(f"backups/{monday}/restore", {"restore": {}})
    assert answer.status == 202
    (created,) = await client.list(VOLUME_RESTORE, namespace)
    assert answer.json == {
        "restore": {
            "backup_id": monday,
            "volume_id": created["metadata"]["uid"],
            "volume_name": f"restore_backup_{monday}",
        }
    }
    assert (created["spec"]["backupId"], created["spec"]["name"]) == (monday, f"restore-backup-{monday}")


async def test_restores_with_the_same_name_get_different_claims(
    person: Person, client: KubeClient, namespace: str
) -> None:
    monday = await backup(client, namespace, await volume(client, namespace))
    for _ in range(2):
        answer = await person.post(f"backups/{monday}/restore", {"restore": {"name": "Database"}})
        assert answer.json["restore"]["volume_name"] == "Database"
    created = await client.list(VOLUME_RESTORE, namespace)
    assert {item["spec"]["name"] for item in created} == {"database-2", "database-3"}


async def test_restore_in_place_is_rejected_as_in_cinder(person: Person, client: KubeClient, namespace: str) -> None:
    small, used = await volume(client, namespace, "small"), await volume(client, namespace, "used", 2)
    large = await volume(client, namespace, "large", 3)
    await pod_with(client, namespace, "used")
    monday = await backup(client, namespace, large, size=2)
    running = await backup(client, namespace, large, "running", phase="creating")
    for identifier, target, code, message in (
        (monday, UNKNOWN, 404, f"Volume {UNKNOWN} could not be found."),
        (monday, small, 400, "Invalid volume: volume size 1 is too small to restore backup of size 2."),
        (monday, used, 400, "Invalid volume: Volume to be restored to must be available"),
        (running, large, 400, "Invalid backup: Backup status must be available"),
    ):
        answer = await person.post(f"backups/{identifier}/restore", {"restore": {"volume_id": target}})
        assert answer.fault[1:] == (code, message)
    assert await client.list(VOLUME_RESTORE, namespace) == []
    requested = {"volume_id": large, "name": "ignored"}
    answer = await person.post(f"backups/{monday}/restore", {"restore": requested})
    assert answer.json == {"restore": {"backup_id": monday, "volume_id": large, "volume_name": "large"}}
    answer = await person.post(f"backups/{monday}/restore", {"restore": requested})
    assert answer.fault[2] == "Invalid volume: Volume to be restored to must be available"
    (created,) = await client.list(VOLUME_RESTORE, namespace)
    await set_restore_status(
        client, namespace, created["metadata"]["name"], created["metadata"]["uid"], phase="available"
    )
    assert (await person.post(f"backups/{monday}/restore", {"restore": requested})).status == 202


async def test_error_restoring_is_a_status_of_backups_in_v2_only(
    person: Person, client: KubeClient, namespace: str
) -> None:
    monday = await backup(client, namespace, await volume(client, namespace), phase="error_restoring")
    assert (await person.get(f"/v2/{namespace}/backups/{monday}")).json["backup"]["status"] == "error_restoring"
    assert (await person.get(f"backups/{monday}")).json["backup"]["status"] == "available"
    assert (await person.post(f"backups/{monday}/restore", {"restore": {}})).status == 202


async def test_update_changes_only_the_given_fields(person: Person, client: KubeClient, namespace: str) -> None:
    monday = await backup(client, namespace, await volume(client, namespace))
    put = {"backup": {"name": " new ", "metadata": {"a": "b", "c": "d"}}}
    answer = await person.put(f"backups/{monday}", put, version="3.43")
    assert (answer.status, answer.json["backup"]["name"]) == (200, "new")
    await person.put(f"backups/{monday}", {"backup": {"metadata": {"e": "f"}}}, version="3.43")
    await person.put(f"backups/{monday}", {"backup": {"description": "told"}}, version="3.9")
    shown = (await person.get(f"backups/{monday}", version="3.43")).json["backup"]
    assert (shown["name"], shown["description"], shown["metadata"]) == ("new", "told", {"e": "f"})
    await person.put(f"backups/{monday}", {"backup": {"name": None}}, version="3.9")
    assert (await person.get(f"backups/{monday}")).json["backup"]["name"] is None
    for version in ("", "3.8"):
        answer = await person.put(f"backups/{monday}", {"backup": {"name": "x"}}, version=version)
        assert answer.fault == ("itemNotFound", 404, "The resource could not be found.")
    assert (await person.put(f"/v2/{namespace}/backups/{monday}", {"backup": {"name": "x"}})).status == 404


async def test_reader_may_only_read(gateway: Gateway, client: KubeClient, namespace: str) -> None:
    database = await volume(client, namespace)
    monday = await backup(client, namespace, database)
    reader = await gateway.person(namespace, READER)
    assert (await reader.get(f"backups/{monday}")).status == 200
    for answer, policy in (
        (await reader.post("backups", {"backup": {"volume_id": database}}), "backup:create"),
        (await reader.delete(f"backups/{monday}"), "backup:delete"),
        (await reader.post(f"backups/{monday}/restore", {"restore": {}}), "backup:restore"),
        (await reader.put(f"backups/{monday}", {"backup": {"name": "x"}}, version="3.9"), "backup:update"),
    ):
        assert answer.fault[1] == 403
        assert answer.fault[2].startswith(f"Policy doesn't allow {policy} to be performed.")


async def test_exported_record_can_be_imported_under_its_id(person: Person, client: KubeClient, namespace: str) -> None:
    await store(client, namespace)
    monday = await backup(client, namespace, await volume(client, namespace))
    record = (await person.get(f"backups/{monday}/export_record")).json["backup-record"]
    assert record["backup_service"].startswith("cinder.backup.drivers")
    answer = await person.post("backups/import_record", {"backup-record": record})
    assert answer.fault[2] == "Invalid backup: Backup already exists in database."
    assert (await person.delete(f"backups/{monday}")).status == 202
    answer = await person.post("backups/import_record", {"backup-record": record})
    assert (answer.status, answer.json["backup"]["id"]) == (201, monday)
    shown = (await person.get(f"backups/{monday}")).json["backup"]
    assert (shown["status"], shown["volume_id"]) == ("creating", str(uuid.UUID(int=0)))
    (created,) = await client.list(VOLUME_BACKUP, namespace)
    await set_backup_status(
        client, namespace, created["metadata"]["name"], monday, importedBy=created["metadata"]["uid"]
    )
    assert (await person.get(f"backups/{monday}")).json["backup"]["status"] == "available"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"hello", "Can't parse backup record."),
        (b"[]", "Can't parse backup record."),
        (b"[" * 100_000, "Can't parse backup record."),
        (b"{}", "Provided backup record is missing an id"),
        (b'{"id": 1}', "Provided backup record is missing size attribute"),
    ],
)
async def test_invalid_records_get_cinders_messages(person: Person, record: bytes, message: str) -> None:
    url = base64.b64encode(record).decode()[:110_000]
    body = {"backup-record": {"backup_service": "s", "backup_url": url}}
    answer = await person.post("backups/import_record", body)
    assert answer.fault[1:] == (400, f"Invalid input received: {message}")
    assert json.loads(answer.text)
