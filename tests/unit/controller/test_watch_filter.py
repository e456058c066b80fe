"""kopf sees every change that matters, in small events, and no other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._cogs.clients.api import iter_jsonlines

from cinderblock.api import labels
from cinderblock.controller.handlers.watch_filter import reduce_watches

EVENTS = web.AppKey("events", list[bytes])
JUNK = "x" * 240_000


async def _watch(request: web.Request) -> web.StreamResponse:
    """Answer with the events, cut at places where no line ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    content = b"".join(line + b"\n" for line in request.app[EVENTS])
    for start in range(0, len(content), 100_003):
        await response.write(content[start : start + 100_003])
    return response


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    application = web.Application()
    application[EVENTS] = []
    application.router.add_get("/objects", _watch)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    yield server
    await server.close()


async def seen_by_kopf(server: TestServer, *events: Any) -> list[Any]:
    server.app[EVENTS][:] = [json.dumps(event).encode() for event in events]
    async with (
        aiohttp.ClientSession(middlewares=[reduce_watches]) as session,
        session.get(server.make_url("/objects"), params={"watch": "true"}) as response,
    ):
        return [json.loads(line) async for line in iter_jsonlines(response.content)]


def an_object(kind: str, version: int, note: str = "", /, **parts: Any) -> dict[str, Any]:
    metadata = {
        "name": "a",
        "namespace": "shop",
        "uid": "u-1",
        "resourceVersion": str(version),
        "labels": {labels.MANAGED_BY_LABEL: labels.MANAGED_BY, "other": "x"},
        "annotations": {"note": note},
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata} | parts


def modified(kind: str, version: int, note: str = "", /, **parts: Any) -> dict[str, Any]:
    return {"type": "MODIFIED", "object": an_object(kind, version, note, **parts)}


PARTS: dict[str, dict[str, Any]] = {
    "VolumeBackup": {"spec": {"volumeId": "data"}, "status": {"phase": "error"}},
    "VolumeRestore": {"spec": {"backupId": "full"}, "status": {"phase": "restoring"}},
    "BackupStore": {"spec": {"credentialsSecretRef": {"name": "s3"}}},
    "Job": {"spec": {"suspend": True, "template": {"x": "y" * 1000}}},
    "Pod": {"spec": {"nodeName": "n"}, "status": {"phase": "Running"}},
    "PersistentVolumeClaim": {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}},
    "PersistentVolume": {"spec": {"capacity": {"storage": "1Gi"}}},
    "VolumeSnapshot": {"status": {"readyToUse": False}},
}


@pytest.mark.parametrize("kind", [kind for kind in PARTS if kind != "BackupStore"])
async def test_changes_of_annotations_end_here(server: TestServer, kind: str) -> None:
    events = [modified(kind, version, f"{version}{JUNK}", **PARTS[kind]) for version in range(5)]
    seen = await seen_by_kopf(server, *events)
    assert [event["object"]["metadata"]["resourceVersion"] for event in seen] == ["0"]
    assert len(json.dumps(seen)) < 1000
    assert seen[0]["object"]["metadata"]["labels"] == {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}


async def test_only_results_of_verifications_are_passed_on(server: TestServer) -> None:
    """Each verification writes its time into all backups of a volume."""

    def checked(version: int, **found: Any) -> dict[str, Any]:
        parts = PARTS["VolumeBackup"]
        return modified("VolumeBackup", version, **parts | {"status": parts["status"] | {"verification": found}})

    first = checked(1, result="Verified", level="Data", lastVerifiedAt="2026-05-04T12:00:00Z", coverage=100)
    again = checked(2, result="Verified", level="Data", lastVerifiedAt="2026-05-05T12:00:00Z", coverage=100)
    damaged = checked(3, result="Damaged", objects=["packs/v/a/1"], damagedObjects=1)
    more = checked(4, result="Damaged", objects=["packs/v/a/1", "packs/v/b/1"], damagedObjects=2)
    seen = await seen_by_kopf(server, first, again, damaged, more)
    assert [event["object"]["metadata"]["resourceVersion"] for event in seen] == ["1", "3", "4"]


async def test_annotated_store_is_checked_again(server: TestServer) -> None:
    events = [modified("BackupStore", version, f"{version}{JUNK}", **PARTS["BackupStore"]) for version in range(3)]
    seen = await seen_by_kopf(server, *events)
    assert [event["object"]["metadata"]["resourceVersion"] for event in seen] == ["0", "1", "2"]
    assert len(json.dumps(seen)) < 2000


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("VolumeBackup", {"status": {"phase": "available"}}),
    ("VolumeRestore", {"status": {"phase": "error_restoring"}}),
    ("BackupStore", {"status": {"observedGeneration": 2}}),
    ("Job", {"spec": {"suspend": False}}),
    ("Job", {"status": {"succeeded": 1}}),
    ("Pod", {"status": {"phase": "Failed"}}),
    ("PersistentVolumeClaim", {"status": {"phase": "Lost"}}),
    ("PersistentVolume", {"spec": {"claimRef": {"name": "x"}}}),
    ("VolumeSnapshot", {"status": {"readyToUse": True}}),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES)
async def test_changes_that_matter_are_passed_on(server: TestServer, kind: str, change: dict[str, Any]) -> None:
    before, after = modified(kind, 1, **PARTS[kind]), modified(kind, 2, **PARTS[kind] | change)
    marked = modified(kind, 3, **PARTS[kind] | change)
    marked["object"]["metadata"] |= {"deletionTimestamp": "2026-05-04T12:00:00Z"}
    seen = await seen_by_kopf(server, before, after, marked)
    assert [event["object"]["metadata"]["resourceVersion"] for event in seen] == ["1", "2", "3"]


async def test_new_backup_is_passed_on_in_each_version(server: TestServer) -> None:
    events = [modified("VolumeBackup", version, spec={"volumeId": "data"}) for version in range(3)]
    assert len(await seen_by_kopf(server, *events)) == 3


async def test_recreated_object_and_other_lines_are_passed_on(server: TestServer) -> None:
    added = {"type": "ADDED", "object": an_object("Job", 1, **PARTS["Job"])}
    deleted = {"type": "DELETED", "object": an_object("Job", 2, **PARTS["Job"])}
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": "3"}}}
    error = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    seen = await seen_by_kopf(server, added, deleted, added, bookmark, error)
    assert [event["type"] for event in seen] == ["ADDED", "DELETED", "ADDED", "BOOKMARK", "ERROR"]
    assert seen[3:] == [bookmark, error]
