"""Events cross from kopf's thread to the main loop: all of them, in order, and kopf never waits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from cinderblock.controller.handlers.event_bridge import EventBridge


class RecordingSink:
    """Records events and the thread that delivered them. It can block, and it fails at the event "poison"."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any, threading.Thread]] = []
        self.last_event: Any = None
        self.has_ended = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def _record(self, method: str, event: Any) -> None:
        await self.may_go_on.wait()
        event = event["object"]["metadata"]["name"]
        if event == "poison":
            raise ZeroDivisionError
        self.received.append((method, event, threading.current_thread()))
        if event == self.last_event:
            self.has_ended.set()

    async def on_custom_resource(self, event: Any) -> None:
        await self._record("custom resource", event)

    async def on_child(self, event: Any) -> None:
        await self._record("child", event)

    async def on_persistent_volume(self, event: Any) -> None:
        await self._record("persistent volume", event)


async def _put(bridge: EventBridge, events: list[Any]) -> None:
    for number, name in enumerate(events):
        event = {"type": "MODIFIED", "object": {"kind": "Pod", "metadata": {"name": name}}}
        await (bridge.on_custom_resource, bridge.on_child, bridge.on_persistent_volume)[number % 3](event)


async def _deliver(sink: RecordingSink, events: list[Any], *, is_blocked: bool = False) -> None:
    """Put events into a bridge in another thread, and wait until the sink has received the last one."""
    sink.last_event, bridge = events[-1], EventBridge(sink)
    running = asyncio.create_task(bridge.run())
    if is_blocked:
        sink.may_go_on.clear()
    async with asyncio.timeout(10):
        await asyncio.to_thread(asyncio.run, _put(bridge, events))
        sink.may_go_on.set()
        await sink.has_ended.wait()
    running.cancel()


async def test_all_events_arrive_in_order_in_the_main_thread() -> None:
    sink = RecordingSink()
    await _deliver(sink, list(range(500)))
    assert [event for _, event, _ in sink.received] == list(range(500))
    assert [method for method, _, _ in sink.received[:4]] == [
        "custom resource",
        "child",
        "persistent volume",
        "custom resource",
    ]
    assert {thread for _, _, thread in sink.received} == {threading.current_thread()}


async def test_kopf_does_not_wait_for_the_sink() -> None:
    sink = RecordingSink()
    await _deliver(sink, [1, 2, 3], is_blocked=True)
    assert [event for _, event, _ in sink.received] == [1, 2, 3]


async def test_event_that_cannot_be_handled_stops_no_other() -> None:
    sink = RecordingSink()
    await _deliver(sink, [1, "poison", 3])
    assert [event for _, event, _ in sink.received] == [1, 3]


async def test_large_object_is_reduced_before_it_waits() -> None:
    """Anybody can give an object 256 KiB of annotations, and change it as often as the API server allows."""
    bridge = EventBridge(RecordingSink())
    metadata = {"name": "a", "annotations": {"note": "x" * 250_000}, "managedFields": [{"x": "y" * 1000}]}
    spec, status = {"volumeId": "data", "import": {"id": "b"}}, {"phase": "available"}
    for kind in ("VolumeBackup", "Job"):
        body = {"kind": kind, "metadata": metadata, "spec": spec, "status": status}
        await bridge.on_custom_resource({"type": None, "object": body})
    await asyncio.sleep(0)
    (_, backup), (_, job) = bridge._events.get_nowait(), bridge._events.get_nowait()
    assert (backup["object"]["spec"], backup["object"]["status"]) == (spec, status)
    assert len(str(backup)) < 1000
    assert set(job["object"]) == {"apiVersion", "kind", "metadata"}
