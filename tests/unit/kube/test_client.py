"""The client's verbs against scripted responses: pages, missing types, observers, counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest

from cinderblock.errors import AccessDenied, Conflict, InvalidInput, KubeUnavailable, NotFound
from cinderblock.kube.client import LISTS_AT_ONCE, PAGE_BYTES, PAGE_LIMIT, KubeClient
from cinderblock.kube.kinds import JOB, POD, PV, VOLUME_BACKUP, VOLUME_SNAPSHOT
from cinderblock.kube.page_limits import PAGE_SHRINK
from cinderblock.kube.reduction import reduce_object
from cinderblock.kube.responses import RequestInfo, Response
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import Request, RoundTripper
from tests.support.cluster.kube_clients import client_of
from tests.support.store.scripted_http import HANG_UP, Reply, Script, ScriptedServer


class Connect(Protocol):
    async def __call__(self, script: Script) -> tuple[KubeClient, ScriptedServer]: ...


@pytest.fixture
async def connected() -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def to(script: Script) -> tuple[KubeClient, ScriptedServer]:
            return await stack.enter_async_context(client_of(script))

        yield to


def reply(status: int = 200, **body: Any) -> Reply:
    return Reply(status, json.dumps(body))


def page(names: list[str], token: str = "") -> Reply:
    items = [{"metadata": {"name": name, "managedFields": [{}]}} for name in names]
    return reply(items=items, metadata={"continue": token})


async def test_list_is_read_page_by_page(connected: Connect) -> None:
    client, server = await connected([page(["a", "b"], "more"), page(["c"])])
    items = await client.list(JOB, "shop", labels="app=x", fields="status.phase!=Done")
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    selectors = {"limit": str(PAGE_LIMIT), "labelSelector": "app=x", "fieldSelector": "status.phase!=Done"}
    assert [asked.query for asked in server.asked] == [selectors, {**selectors, "continue": "more"}]
    assert {asked.path for asked in server.asked} == {"/apis/batch/v1/namespaces/shop/jobs"}


async def test_first_objects_of_a_list_are_one_page(connected: Connect) -> None:
    client, server = await connected([page(["a", "b"], "more"), page(["c"])])
    first, remaining = await client.list_first(JOB, "shop", 2, fields="status.phase=Done")
    assert ([item["metadata"]["name"] for item in first], remaining) == (["a", "b"], 1)
    assert (await client.list_first(JOB, "shop", 2))[1] == 0
    assert server.asked[0].query == {"limit": "2", "fieldSelector": "status.phase=Done"}


def large(names: list[str], token: str = "") -> Reply:
    """Return a page with more bytes than a client accepts."""
    items = [{"metadata": {"name": name, "annotations": {"x": "y" * PAGE_BYTES}}} for name in names]
    return reply(items=items, metadata={"continue": token})


async def test_page_that_is_too_large_is_read_again_with_fewer_objects(connected: Connect) -> None:
    client, server = await connected([page(["a"], "1"), large(["b"]), page(["b"], "2"), page(["c"])])
    assert [item["metadata"]["name"] for item in await client.list(JOB)] == ["a", "b", "c"]
    small = PAGE_LIMIT // PAGE_SHRINK
    assert [asked.query["limit"] for asked in server.asked] == ["500", "500", str(small), str(2 * small)]
    assert [asked.query.get("continue") for asked in server.asked] == [None, "1", "1", "2"]


async def test_single_object_is_read_however_large_it_is(connected: Connect) -> None:
    client, server = await connected([large(["a"])] * 5)
    (found,), remaining = await client.list_first(JOB, "shop", 100)
    assert (found["metadata"]["name"], remaining) == ("a", 0)
    assert [asked.query["limit"] for asked in server.asked] == ["100", "12", "1"]


async def test_next_list_begins_with_the_limit_that_was_needed(connected: Connect) -> None:
    client, server = await connected([large(["a"]), *[page(["a"])] * 7])
    for _ in range(6):
        await client.list_first(JOB, "shop", 100)
    await client.list_first(JOB, "other", 100)
    assert [asked.query["limit"] for asked in server.asked[:7]] == ["100", "12", "12", "24", "48", "96", "100"]


async def test_limit_that_was_needed_is_remembered_for_each_selector(connected: Connect) -> None:
    client, server = await connected([large(["a"]), *[page(["a"])] * 3])
    for fields in ("status.phase!=Failed", "status.phase!=Failed", "status.phase=Failed"):
        await client.list(JOB, "shop", fields=fields)
    small = str(PAGE_LIMIT // PAGE_SHRINK)
    assert [asked.query["limit"] for asked in server.asked] == ["500", small, small, "500"]


async def test_list_that_expires_again_and_again_fails(connected: Connect) -> None:
    script = [answer for _ in range(20) for answer in (page(["a"], "old"), reply(410))]
    client, _ = await connected(script)
    with pytest.raises(KubeUnavailable, match="expired"):
        await client.list(PV)


async def test_items_of_a_list_have_a_type_and_no_managed_fields(connected: Connect) -> None:
    client, _ = await connected([page(["a"])])
    assert await client.list(JOB) == [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}}]


async def test_null_list_is_empty(connected: Connect) -> None:
    client, _ = await connected([reply(items=None, metadata={})])
    assert await client.list(JOB) == []


async def test_list_that_expires_is_read_again_in_one_page(connected: Connect) -> None:
    client, server = await connected([page(["a"], "old"), reply(410), page(["b", "a"])])
    assert [item["metadata"]["name"] for item in await client.list(PV)] == ["b", "a"]
    assert [asked.query.get("limit") for asked in server.asked] == [str(PAGE_LIMIT), str(PAGE_LIMIT), "0"]
    assert "continue" not in server.asked[2].query


async def test_list_of_a_type_that_is_not_served_is_an_error(connected: Connect) -> None:
    client, _ = await connected([Reply(404, "404 page not found")])
    with pytest.raises(
        NotFound, match=r"Cannot list volumesnapshots\.snapshot\.storage\.k8s\.io: the API server does not serve it"
    ):
        await client.list(VOLUME_SNAPSHOT)


async def test_missing_object_is_none(connected: Connect) -> None:
    client, _ = await connected([reply(404, kind="Status")])
    assert await client.get(POD, "web", "shop") is None


async def test_served_types_are_cached_for_half_a_minute(connected: Connect) -> None:
    now = 1000.0
    client, server = await connected([Reply(404, "404 page not found"), reply(resources=[{"name": "volumesnapshots"}])])
    client._clock = lambda: now
    assert not await client.serves(VOLUME_SNAPSHOT)
    now += 29
    assert not await client.serves(VOLUME_SNAPSHOT)
    assert len(server.asked) == 1
    now += 1
    assert await client.serves(VOLUME_SNAPSHOT)
    assert [asked.path for asked in server.asked] == ["/apis/snapshot.storage.k8s.io/v1"] * 2


async def test_version_may_be_served_without_the_type(connected: Connect) -> None:
    client, _ = await connected([reply(resources=[{"name": "volumesnapshots/status"}, {"name": "others"}])])
    assert not await client.serves(VOLUME_SNAPSHOT)


@pytest.mark.parametrize("answer", [Reply(503), reply(403, kind="Status"), HANG_UP])
async def test_readiness_is_never_an_error(connected: Connect, answer: Reply | str) -> None:
    client, server = await connected([answer])
    assert not await client.server_ready()
    server.script = [Reply(200, "ok")]
    assert await client.server_ready()


async def test_write_names_the_field_manager_and_the_type(connected: Connect) -> None:
    client, server = await connected([reply(201, metadata={"name": "m"})])
    await client.create(JOB, {"metadata": {"name": "m", "namespace": "shop"}, "spec": {}})
    (asked,) = server.asked
    assert asked.query == {"fieldManager": "cinderblock", "fieldValidation": "Strict"}
    assert json.loads(asked.body) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "m", "namespace": "shop"},
        "spec": {},
    }


async def test_object_without_a_namespace_is_not_sent(connected: Connect) -> None:
    client, server = await connected([reply()])
    with pytest.raises(InvalidInput, match="without a namespace"):
        await client.create(JOB, {"metadata": {"name": "m"}})
    assert server.asked == []


async def test_deletion_names_the_uid_and_the_propagation(connected: Connect) -> None:
    client, server = await connected([reply()])
    await client.delete(JOB, "m", "shop", uid="u-1", propagation="Foreground")
    await client.delete(JOB, "m", "shop")
    first, second = (json.loads(asked.body) for asked in server.asked)
    assert first["preconditions"] == {"uid": "u-1"}
    assert first["propagationPolicy"] == "Foreground"
    assert "preconditions" not in second
    assert second["propagationPolicy"] == "Background"


async def test_status_of_an_object_that_keeps_changing_is_a_conflict(connected: Connect) -> None:
    current = reply(metadata={"uid": "u-1", "resourceVersion": "7"})
    client, server = await connected(lambda asked: current if asked.method == "GET" else reply(409, kind="Status"))
    with pytest.raises(Conflict):
        await client.apply_status(VOLUME_BACKUP, "b", "shop", {}, uid="u-1")
    assert [asked.method for asked in server.asked] == ["GET", "PATCH"] * 3


@pytest.mark.parametrize(("status", "text"), [(200, "last line\n"), (400, ""), (404, "")])
async def test_missing_log_is_empty(connected: Connect, status: int, text: str) -> None:
    client, server = await connected([Reply(status, "last line\n")])
    assert await client.pod_log_tail("shop", "web", "mover", lines=3, limit_bytes=100) == text
    assert server.asked[0].path == "/api/v1/namespaces/shop/pods/web/log"
    assert server.asked[0].query == {"container": "mover", "tailLines": "3", "limitBytes": "100"}


class Crash(Exception):
    """Stands for the end of the process."""


class Recorder:
    """Records requests; crashes before or after the one that is given."""

    def __init__(self, crash: str = "") -> None:
        self.lines: list[str] = []
        self._crash = crash

    async def before(self, info: RequestInfo) -> None:
        self._note(f"before {info.describe()}")

    async def after(self, info: RequestInfo, status: int) -> None:
        self._note(f"after {info.describe()}: {status}")

    def _note(self, line: str) -> None:
        self.lines.append(line)
        if self._crash and line.startswith(self._crash):
            raise Crash


async def test_observer_sees_every_request_before_and_after(connected: Connect) -> None:
    client, _ = await connected([reply(404, kind="Status")])
    client.observer = recorder = Recorder()
    await client.get(POD, "web", "shop")
    await client.delete(POD, "web", "shop")
    assert recorder.lines == [
        "before get pods shop/web",
        "after get pods shop/web: 404",
        "before delete pods shop/web",
        "after delete pods shop/web: 404",
    ]


@pytest.mark.parametrize(("crash", "sent"), [("before delete", 0), ("after delete", 1)])
async def test_observer_can_crash_before_and_after_a_write(connected: Connect, crash: str, sent: int) -> None:
    client, server = await connected([reply()])
    client.observer = Recorder(crash)
    with pytest.raises(Crash):
        await client.delete(POD, "web", "shop")
    assert len(server.asked) == sent


async def test_response_of_a_proxy_is_unavailable(connected: Connect) -> None:
    client, _ = await connected([Reply(200, "<html>Log in to the hotel</html>")])
    with pytest.raises(KubeUnavailable, match="not from the API server"):
        await client.list(JOB)


async def test_responses_are_counted_by_request_and_status(connected: Connect) -> None:
    client, _ = await connected([page(["a"]), reply(404, kind="Status"), reply(409, kind="Status"), HANG_UP])
    await client.list(JOB)
    assert await client.get(POD, "web", "shop") is None
    with pytest.raises(Conflict):
        await client.merge_patch(VOLUME_BACKUP, "nightly", "shop", {}, subresource="status")
    with pytest.raises(KubeUnavailable):
        await client.merge_patch(JOB, "mover", "shop", {})
    assert client.response_counts == {
        ("list", "jobs.batch", 200): 1,
        ("get", "pods", 404): 1,
        ("patch", "volumebackups.cinderblock.io/status", 409): 1,
        ("patch", "jobs.batch", 0): 1,
    }


async def test_lists_of_one_namespace_hold_up_no_other() -> None:
    """Many slow lists of large objects are under way in one namespace."""
    waiting = 0

    class SlowNamespace(RoundTripper):
        async def config(self) -> RestConfig:
            return RestConfig("https://api.test")

        async def round_trip(self, request: Request) -> Response:
            nonlocal waiting
            if "/evil/" in request.path:
                waiting += 1
                await asyncio.Event().wait()
            return Response(200, b'{"items": [], "metadata": {}}')

        async def aclose(self) -> None:
            """Do nothing: there are no connections."""

    client = KubeClient(SlowNamespace(), reduce=reduce_object)
    tasks = [asyncio.create_task(client.list(JOB, "evil")) for _ in range(50)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await client.list(JOB, "shop") == []
        assert await client.list(JOB) == []
    assert waiting == LISTS_AT_ONCE
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_pages_of_a_list_of_namespaces_stay_pages(connected: Connect) -> None:
    client, server = await connected([page(["a"], "more"), page(["b"]), page(["c"])])
    client.namespaces = ("one", "two")
    pages = [[item["metadata"]["name"] for item in found or ()] async for found in client.pages(JOB)]
    assert pages == [["a"], ["b"], ["c"]]
    assert [asked.path.split("/")[5] for asked in server.asked] == ["one", "one", "two"]


async def test_expired_list_of_namespaces_begins_again_in_all(connected: Connect) -> None:
    script = [page(["a"]), page(["b"], "old"), reply(410), page(["a"]), page(["b"], "new"), page(["c"])]
    client, _ = await connected(script)
    client.namespaces = ("one", "two")
    assert [item["metadata"]["name"] for item in await client.list(JOB)] == ["a", "b", "c"]


async def test_namespace_that_may_not_be_read_is_skipped_and_named(
    connected: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = await connected([page(["a"]), reply(403), page(["c"]), page(["a"]), page(["b"]), page(["c"])])
    client.namespaces, client.skips_unreadable = ("one", "two", "three"), True
    assert [item["metadata"]["name"] for item in await client.list(JOB)] == ["a", "c"]
    assert client.unreadable == {"two"}
    assert "Namespace two is skipped" in caplog.text
    assert [item["metadata"]["name"] for item in await client.list(JOB)] == ["a", "b", "c"]
    assert not client.unreadable


@pytest.mark.parametrize("statuses", [(403, 403), (200, 401, 401)])
async def test_operator_without_rights_skips_nothing(connected: Connect, statuses: tuple[int, ...]) -> None:
    client, _ = await connected([page(["a"]) if status == 200 else reply(status) for status in statuses])
    client.namespaces, client.skips_unreadable = ("one", "two"), True
    with pytest.raises(AccessDenied):
        await client.list(JOB)


async def test_namespace_that_may_not_be_read_is_an_error_of_a_command(connected: Connect) -> None:
    client, _ = await connected([page(["a"]), reply(403)])
    client.namespaces = ("one", "two")
    with pytest.raises(AccessDenied):
        await client.list(JOB)
