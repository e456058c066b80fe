"""Long lists through the gateway: page by page, with the caller's current rights."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP
from tests.support.gateway.cinder_objects import backup, volume
from tests.support.gateway.gateways import READER, ROLE_BINDING, Gateway, Person

pytestmark = pytest.mark.integration

MANY = 620
"""More than one page of the API server, and enough that the tail of a list is cached."""
COLLECTION = ("list", "volumebackups.cinderblock.io")


@pytest.fixture
async def reader(gateway: Gateway, client: KubeClient, namespace: str) -> Person:
    bodies = [
        {"metadata": {"name": f"b-{number:04d}", "namespace": namespace}, "spec": {"volumeId": "v", "name": "x"}}
        for number in range(MANY)
    ]
    for start in range(0, MANY, 20):
        await asyncio.gather(*(client.create(VOLUME_BACKUP, body) for body in bodies[start : start + 20]))
    return await gateway.person(namespace, READER)


async def walked(person: Person, path: str) -> list[str]:
    """Return the ids of all backups, following links as clients do."""
    ids: list[str] = []
    while path:
        answer = (await person.get(path)).json
        ids += [item["id"] for item in answer["backups"]]
        links = answer.get("backups_links")
        path = links[0]["href"].removeprefix(person.url) if links else ""
    return ids


async def test_new_backups_do_not_disturb_reading_a_long_list(
    reader: Person, client: KubeClient, namespace: str
) -> None:
    before = {item["metadata"]["uid"] for item in await client.list(VOLUME_BACKUP, namespace)}
    first = (await reader.get("backups/detail?limit=50")).json
    body = {"metadata": {"name": "new", "namespace": namespace}, "spec": {"volumeId": "v"}}
    await client.create(VOLUME_BACKUP, body)
    ids = [item["id"] for item in first["backups"]]
    ids += await walked(reader, first["backups_links"][0]["href"].removeprefix(reader.url))
    assert len(ids) == len(set(ids))
    assert before <= set(ids)


async def test_revoked_right_ends_the_list_at_the_next_page(reader: Person, client: KubeClient, namespace: str) -> None:
    following = (await reader.get("backups?limit=50")).json["backups_links"][0]["href"].removeprefix(reader.url)
    following = (await reader.get(following)).json["backups_links"][0]["href"].removeprefix(reader.url)
    await client.delete(ROLE_BINDING, f"person-{len(READER)}", namespace)
    codes = set()
    async with asyncio.timeout(30):
        while 403 not in codes:
            codes.add((await reader.get(following)).status)
    assert codes <= {200, 403}


async def test_deleted_backup_is_missing_from_the_next_page(reader: Person, gateway: Gateway, namespace: str) -> None:
    person = await gateway.person(namespace)
    whole = await walked(person, "backups?limit=1000")
    first = (await person.get("backups?limit=50")).json
    answer = await person.post(f"backups/{whole[100]}/action", {"os-force_delete": None})
    assert answer.status == 202
    rest = await walked(person, first["backups_links"][0]["href"].removeprefix(person.url))
    assert rest == [identifier for identifier in whole[50:] if identifier != whole[100]]


async def test_filters_find_backups_with_and_without_a_status(
    gateway: Gateway, client: KubeClient, namespace: str
) -> None:
    person = await gateway.person(namespace)
    database, mail = await volume(client, namespace), await volume(client, namespace, "mail")
    whole = await backup(client, namespace, database, "whole")
    failed = await backup(client, namespace, database, "failed", phase="error", failReason="gone")
    await backup(client, namespace, mail, "other")
    young = (await person.post("backups", {"backup": {"volume_id": database, "name": "young"}})).json["backup"]["id"]

    async def found(query: str, version: str = "3.71") -> set[str]:
        return {item["id"] for item in (await person.get(f"backups?{query}", version=version)).json["backups"]}

    assert await found(f"volume_id={database}") == {whole, failed, young}
    assert await found("status=error") == {failed}
    assert await found("status=creating") == {young}
    assert await found(f"status=available&volume_id={database}") == {whole}
    assert await found("name=young") == {young}
    assert await found("name~=o&status~=avail") == {whole} | await found("name=other")
    assert await found("volume_id=a,status.phase=error") == set()
