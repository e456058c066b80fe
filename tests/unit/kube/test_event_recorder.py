"""What recording an Event may do to the caller, and how Events are named."""

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
async def test_an_event_that_is_refused_is_logged_and_that_is_all(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of([refusal(code)]) as (client, _):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    assert "Could not record Event VolumeBusy about VolumeBackup shop/nightly" in caplog.text


@pytest.mark.parametrize("answer", [refusal(429), refusal(503), HANG_UP])
async def test_an_api_server_that_is_not_there_is_told_to_the_caller(answer: Reply | str) -> None:
    async with client_of([answer]) as (client, _):
        with pytest.raises(KubeUnavailable):
            await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")


async def test_an_event_that_expires_while_it_is_counted_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of([refusal(409, "AlreadyExists"), refusal(404)]) as (client, server):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    assert [asked.method for asked in server.asked] == ["POST", "GET"]
    assert caplog.text == ""


async def test_a_count_that_the_server_holds_is_raised_by_one_at_the_version_that_was_read() -> None:
    found = {"metadata": {"resourceVersion": "7"}, "series": {"count": 41}}
    answers: list[Reply | str] = [refusal(409, "AlreadyExists"), Reply(200, json.dumps(found)), Reply(200, "{}")]
    async with client_of(answers) as (client, server):
        await record_event(client, BACKUP, "Warning", "VolumeBusy", "In use", action="Backup")
    patch = json.loads(server.asked[2].body)
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert patch["series"]["count"] == 42


async def test_names_tell_apart_what_is_said_and_about_which_object() -> None:
    names: list[str] = []

    def keep(asked: Asked) -> Reply:
        names.append(json.loads(asked.body)["metadata"]["name"])
        return Reply(201, "{}")

    other = {**BACKUP, "metadata": {**BACKUP["metadata"], "uid": "u-2"}}
    said = ((BACKUP, "A", "x"), (BACKUP, "A", "x"), (BACKUP, "B", "x"), (BACKUP, "A", "y"), (other, "A", "x"))
    async with client_of(keep) as (client, _):
        for regarding, reason, note in said:
            await record_event(client, regarding, "Normal", reason, note, action="Backup")
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert all(name.startswith("nightly.") for name in names)
