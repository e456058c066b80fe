"""The operator keeps only those claims of users that ask for their backup, and reconciles them at changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.api import labels
from cinderblock.api.kubernetes import SELECTED_NODE_ANNOTATION
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.kopf_pages import SmallPages
from cinderblock.controller.handlers.kopf_settings import make_settings
from cinderblock.controller.handlers.watch_filter import ReducedWatch
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube import kinds
from cinderblock.kube.reduction import reduce_object

SOURCE = {"apiGroup": "cinderblock.io", "kind": "RestoreSource", "name": "bootstrap"}
OF_OTHERS = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}


def a_claim(name: str, source: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}"}
    wanted = ({"dataSourceRef": source} if source else {}) | spec
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


class Handler:
    """An event handler, and the keys that it adds to the queue."""

    def __init__(self) -> None:
        self.queue = WorkQueue()
        self.handler = EventHandler(self.queue, Acknowledger(self.queue))

    async def keys(self) -> set[str]:
        """Take all due keys. Return their kinds and names."""
        found = set()
        while self.queue.counts()["due"]:
            key: ObjectKey = await self.queue.get()
            await self.queue.done(key)
            found.add(f"{key.kind} {key.name}")
        return found

    async def claim(self, change: str | None, body: dict[str, Any]) -> set[str]:
        """Handle an event about a claim, and return the keys that it added."""
        await self.handler.on_claim({"type": change, "object": body})
        return await self.keys()


async def test_waiting_claim_is_reconciled_at_the_start_and_at_changes() -> None:
    handler, claim = Handler(), a_claim("data", SOURCE)
    for change in (None, "ADDED", "MODIFIED"):
        assert await handler.claim(change, claim) == {"PersistentVolumeClaim data"}


async def test_bound_claim_wakes_its_restore() -> None:
    handler, claim = Handler(), a_claim("data", SOURCE, volumeName="pv-1")
    assert await handler.claim(None, claim) == set()
    assert await handler.claim("MODIFIED", claim) == {"PersistentVolumeClaim data", "VolumeRestore populate-u-data"}


async def test_restore_wakes_its_claim() -> None:
    handler = Handler()
    await handler.claim("ADDED", a_claim("data", SOURCE))
    metadata = {"name": "populate-u-data", "namespace": "shop", "uid": "u-1"}
    owned = metadata | {"labels": {labels.OWNER_UID_LABEL: "u-data"}}
    event = {"type": "DELETED", "object": {"kind": "VolumeRestore", "metadata": owned}}
    await handler.handler.on_custom_resource(event)
    assert "PersistentVolumeClaim data" in await handler.keys()


async def test_changed_source_wakes_the_waiting_claims_of_its_namespace() -> None:
    handler = Handler()
    await handler.claim("ADDED", a_claim("data", SOURCE))
    await handler.claim("ADDED", a_claim("bound", SOURCE, volumeName="pv-1"))
    await handler.claim("ADDED", a_claim("gone", SOURCE))
    await handler.claim("DELETED", a_claim("gone", SOURCE))
    source = {"kind": "RestoreSource", "metadata": {"name": "bootstrap", "namespace": "shop", "generation": 2}}
    await handler.handler.on_source({"type": "MODIFIED", "object": source})
    assert await handler.keys() == {"RestoreSource bootstrap", "PersistentVolumeClaim data"}
    source["metadata"]["namespace"] = "other"
    await handler.handler.on_source({"type": "DELETED", "object": source})
    assert await handler.keys() == set()


class Lines:
    """The content of a watch."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._data = b"".join(json.dumps(event).encode() + b"\n" for event in events)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        yield self._data


async def test_claims_of_others_end_in_the_watch() -> None:
    managed = a_claim("staging")
    managed["metadata"]["labels"] = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}
    found = [a_claim("plain"), a_claim("clone", OF_OTHERS), a_claim("data", SOURCE), managed]
    watch = ReducedWatch(Lines(*({"type": "ADDED", "object": body} for body in found)))  # type: ignore[arg-type]
    lines = [line async for line in watch.iter_chunked(1 << 20)]
    assert [json.loads(line)["object"]["metadata"]["name"] for line in lines] == ["data", "staging"]
    assert json.loads(lines[0])["object"]["spec"]["dataSourceRef"] == SOURCE


async def test_chosen_node_of_a_claim_is_passed_on() -> None:
    """The scheduler tells only by an annotation that a pod needs the claim."""
    chosen = a_claim("data", SOURCE)
    chosen["metadata"]["annotations"] = {SELECTED_NODE_ANNOTATION: "node-1"}
    events = ({"type": "MODIFIED", "object": body} for body in (a_claim("data", SOURCE), chosen, chosen))
    watch = ReducedWatch(Lines(*events))  # type: ignore[arg-type]
    lines = [json.loads(line) async for line in watch.iter_chunked(1 << 20)]
    assert len(lines) == 2
    assert lines[1]["object"]["metadata"]["annotations"] == {SELECTED_NODE_ANNOTATION: "node-1"}


async def _list(_: web.Request) -> web.Response:
    items = [a_claim("plain"), a_claim("data", SOURCE)]
    for item in items:
        del item["kind"], item["apiVersion"]
    return web.json_response({"kind": "PersistentVolumeClaimList", "items": items, "metadata": {}})


async def test_claims_of_others_are_left_out_of_lists() -> None:
    application = web.Application()
    application.router.add_get("/claims", _list)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    try:
        async with (
            aiohttp.ClientSession(middlewares=[SmallPages()]) as session,
            session.get(server.make_url("/claims"), params={"limit": "500"}) as response,
        ):
            page = await response.json()
    finally:
        await server.close()
    assert [item["metadata"]["name"] for item in page["items"]] == ["data"]


@pytest.mark.parametrize("populates", [False, True])
def test_claims_without_our_label_are_watched_only_if_they_are_filled(*, populates: bool) -> None:
    selectors = make_settings(populates=populates).watching.label_selectors
    assert (kinds.PVC.plural in selectors) is not populates
    assert kinds.POD.plural in selectors


def test_lists_keep_the_source_of_a_claim_only_if_it_is_ours() -> None:
    assert reduce_object(kinds.PVC, a_claim("data", SOURCE))["spec"] == {"dataSourceRef": SOURCE}
    assert reduce_object(kinds.PVC, a_claim("clone", OF_OTHERS))["spec"] == {}
    long = SOURCE | {"name": "x" * 100_000}
    assert reduce_object(kinds.PVC, a_claim("hostile", long))["spec"]["dataSourceRef"].keys() == {"apiGroup", "kind"}
