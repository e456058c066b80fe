"""Events on a real API server: repeated ones are counted, and errors are only logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cinderblock.errors import InvalidInput
from cinderblock.kube.client import KubeClient
from cinderblock.kube.event_recorder import NOTE_LIMIT, record_event
from cinderblock.kube.kinds import EVENT, NAMESPACE, PV, VOLUME_BACKUP
from cinderblock.kube.responses import RequestInfo
from tests.support.cluster.kubectl import kubectl

pytestmark = pytest.mark.integration


@pytest.fixture
async def backup(client: KubeClient, namespace: str) -> dict[str, Any]:
    body = {"metadata": {"name": "nightly", "namespace": namespace}, "spec": {"volumeId": "data"}}
    return await client.create(VOLUME_BACKUP, body)


async def test_event_describes_the_object_and_the_cause(
    client: KubeClient, namespace: str, backup: dict[str, Any]
) -> None:
    await record_event(client, backup, "Warning", "VolumeBusy", "Pod web-0 uses the volume", action="Backup")
    (event,) = await client.list(EVENT, namespace)
    assert event["regarding"]["uid"] == backup["metadata"]["uid"]
    assert event["regarding"]["kind"] == "VolumeBackup"
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "VolumeBusy", "Backup")
    assert event["note"] == "Pod web-0 uses the volume"
    assert event["reportingController"] == "cinderblock.io/operator"


async def test_repeated_event_is_counted(client: KubeClient, namespace: str, backup: dict[str, Any]) -> None:
    for _ in range(4):
        await record_event(client, backup, "Normal", "Queued", "5 movers are running", action="Backup")
    (event,) = await client.list(EVENT, namespace)
    assert event["series"]["count"] == 4
    assert event["series"]["lastObservedTime"] > event["eventTime"]


async def test_another_note_or_object_is_another_event(
    client: KubeClient, namespace: str, backup: dict[str, Any]
) -> None:
    await record_event(client, backup, "Normal", "Queued", "5 movers are running", action="Backup")
    await record_event(client, backup, "Normal", "Queued", "6 movers are running", action="Backup")
    await record_event(client, backup, "Warning", "Queued", "6 movers are running", action="Backup")
    again = {**backup, "metadata": {**backup["metadata"], "uid": "another"}}
    await record_event(client, again, "Normal", "Queued", "5 movers are running", action="Backup")
    assert len(await client.list(EVENT, namespace)) == 4


async def test_long_note_is_cut_between_characters(client: KubeClient, namespace: str, backup: dict[str, Any]) -> None:
    await record_event(client, backup, "Normal", "Long", "ü" * 2000, action="Backup")
    (event,) = await client.list(EVENT, namespace)
    assert NOTE_LIMIT - 2 <= len(event["note"].encode()) <= NOTE_LIMIT
    assert set(event["note"]) == {"ü", "…"}


async def test_events_of_an_object_with_a_long_name_differ(client: KubeClient, namespace: str) -> None:
    name = ".".join(["a" * 63] * 3) + "." + "b" * 61
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"volumeId": "data"}}
    backup = await client.create(VOLUME_BACKUP, body)
    await record_event(client, backup, "Normal", "One", "note", action="Backup")
    await record_event(client, backup, "Normal", "Two", "note", action="Backup")
    assert {event["reason"] for event in await client.list(EVENT, namespace)} == {"One", "Two"}


async def test_event_about_a_cluster_scoped_object_is_in_default(client: KubeClient, namespace: str) -> None:
    if await client.get(NAMESPACE, "default") is None:
        await client.create(NAMESPACE, {"metadata": {"name": "default"}})
    volume = {"apiVersion": PV.api_version, "kind": PV.kind, "metadata": {"name": f"pv-{namespace}", "uid": namespace}}
    await record_event(client, volume, "Normal", "Rebound", "note", action="Restore")
    found = [event for event in await client.list(EVENT, "default") if event["regarding"]["uid"] == namespace]
    assert [event["reason"] for event in found] == ["Rebound"]


async def test_kubectl_shows_the_count_of_an_event(
    client: KubeClient, namespace: str, backup: dict[str, Any], kubeconfig: Path
) -> None:
    for _ in range(3):
        await record_event(client, backup, "Warning", "StoreUnreachable", "The endpoint is silent", action="Backup")
    printed = kubectl(kubeconfig, "describe", "vb", "nightly", "-n", namespace).stdout
    (row,) = [line for line in printed.splitlines() if "StoreUnreachable" in line]
    assert "(x3 over" in row
    assert row.endswith("cinderblock.io/operator  The endpoint is silent")


async def test_event_in_a_terminating_namespace_is_only_logged(
    client: KubeClient, namespace: str, backup: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await client.delete(NAMESPACE, namespace, None)
    await record_event(client, backup, "Normal", "Deleted", "note", action="Delete")
    assert await client.list(EVENT, namespace) == []
    (record,) = [record for record in caplog.records if record.message == "Event was not recorded"]
    assert (record.event, record.about) == ("Deleted", f"VolumeBackup {namespace}/nightly")  # type: ignore[attr-defined]


async def test_invalid_event_is_ignored(client: KubeClient, namespace: str, backup: dict[str, Any]) -> None:
    await record_event(client, backup, "Normal", "x" * 129, "note", action="Backup")
    assert await client.list(EVENT, namespace) == []


class BetweenReadAndPatch:
    """Changes the Event after it was read and before it is patched."""

    def __init__(self, other: KubeClient) -> None:
        self._other = other

    async def before(self, call: RequestInfo) -> None:
        if call.verb == "patch" and call.name:
            await self._other.merge_patch(EVENT, call.name, call.namespace, {"metadata": {"labels": {"a": "b"}}})

    async def after(self, call: RequestInfo, status: int) -> None:
        del call, status


async def test_concurrent_counts_do_not_fail(client: KubeClient, namespace: str, backup: dict[str, Any]) -> None:
    await record_event(client, backup, "Normal", "Queued", "note", action="Backup")
    racing = KubeClient(client._transport, observer=BetweenReadAndPatch(client))
    await record_event(racing, backup, "Normal", "Queued", "note", action="Backup")
    (event,) = await client.list(EVENT, namespace)
    assert event["metadata"]["labels"] == {"a": "b"}
    assert "series" not in event


async def test_server_rejects_a_note_above_the_limit(client: KubeClient, namespace: str) -> None:
    body = {
        "metadata": {"name": "long", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "cinderblock.io/operator",
        "reportingInstance": "x",
        "type": "Normal",
        "reason": "Long",
        "action": "Backup",
        "note": "x" * (NOTE_LIMIT + 1),
        "regarding": {"kind": "VolumeBackup", "namespace": namespace, "name": "nightly"},
    }
    with pytest.raises(InvalidInput, match="can have at most 1024 characters"):
        await client.create(EVENT, body)
