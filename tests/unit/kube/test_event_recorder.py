"""Errors of recording an Event, and names of Events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cinderblock.errors import KubeUnavailable
from cinderblock.kube.event_recorder import record_event
from tests.support.cluster.kube_clients import client_of
from tests.support.store.scripted_http import HANG_UP, Asked, Reply

BACKUP: dict[str, Any] = {
    "apiVersion": "cinderblock.io/v1alpha1",
    "kind": "VolumeBackup",
    "metadata": {"name": "nightly", "namespace": "shop", "uid": "u-1"},
}


def refusal(code: int, reason: str = "") -> Reply:
    return Reply(code, json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "no"}))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
async def test_rejected_event_is_only_logged(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of([refusal(code)]) as (client, _):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    (record,) = caplog.records
    assert record.message == "Event was not recorded"
    assert (record.event, record.about) == ("VolumeBusy", "VolumeBackup shop/nightly")  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", [refusal(429), refusal(503), HANG_UP])
async def test_unavailable_api_server_is_an_error(answer: Reply | str) -> None:
    async with client_of([answer]) as (client, _):
        with pytest.raises(KubeUnavailable):
            await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")


async def test_event_that_expires_while_it_is_counted_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of([refusal(409, "AlreadyExists"), refusal(404)]) as (client, server):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    assert [asked.method for asked in server.asked] == ["POST", "GET"]
    assert caplog.text == ""


async def test_count_is_raised_at_the_version_that_was_read() -> None:
    found = {"metadata": {"resourceVersion": "7"}, "series": {"count": 41}}
    answers: list[Reply | str] = [refusal(409, "AlreadyExists"), Reply(200, json.dumps(found)), Reply(200, "{}")]
    async with client_of(answers) as (client, server):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    patch = json.loads(server.asked[2].body)
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert patch["series"]["count"] == 42


async def test_name_depends_on_the_object_and_the_text() -> None:
    names: list[str] = []

    def keep(asked: Asked) -> Reply:
        names.append(json.loads(asked.body)["metadata"]["name"])
        return Reply(201, "{}")

    other = {**BACKUP, "metadata": {**BACKUP["metadata"], "uid": "u-2"}}
    events = ((BACKUP, "A", "x"), (BACKUP, "A", "x"), (BACKUP, "B", "x"), (BACKUP, "A", "y"), (other, "A", "x"))
    async with client_of(keep) as (client, _):
        for regarding, reason, note in events:
            await record_event(client, regarding, "Normal", reason, note, action="Backup")
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert all(name.startswith("nightly.") for name in names)
