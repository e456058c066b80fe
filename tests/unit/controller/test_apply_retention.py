"""The execution of retention on an API server in memory: bounds, order, conflicts, and deaths around each write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.controller.schedules.apply_retention import (
    MAX_FAILURES,
    MAX_REMOVALS,
    MAX_WRITES,
    Applied,
    apply_retention,
    in_turns,
)
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.retention.actions import (
    BackupVersion,
    MarkExpiring,
    RemoveExpired,
    UnmarkExpiring,
    actions_of,
    unmark_all,
)
from tests.support.retention.cluster import MINUTE, RetentionLoop, make_backup, read
from tests.support.retention.records import DAY, NOW, a_record, rules
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi, _refusal
from tests.support.simulation.simulation import Faults
from tests.support.store.faults import Crash

KEEP_ONE = rules(keep_last=1)


class Api(SimulatedApi):
    """An API server that refuses the writes in some namespaces.

    Attributes:
        refusing: these namespaces.
        refusal: the answer there.
        before_deletion: runs before a deletion arrives.
    """

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: NOW - 90 * DAY), lambda *_: None)
        self.refusing: set[str] = set()
        self.refusal = _refusal(403, "Forbidden", "denied")
        self.before_deletion: Callable[[], object] = lambda: None

    async def round_trip(self, request: Request) -> Response:
        if request.method != "GET" and any(f"/namespaces/{name}/" in request.path for name in self.refusing):
            return self.refusal
        if request.method == "DELETE":
            self.before_deletion()
        return await super().round_trip(request)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def kube(api: Api) -> KubeClient:
    return KubeClient(api)


async def backups(kube: KubeClient, count: int, namespace: str = "shop") -> None:
    """Create backups of consecutive days; ``b-0`` is the newest."""
    for number in range(count):
        await make_backup(kube, namespace, f"b-{number}", NOW - (number + 1) * DAY)


async def names(loop: RetentionLoop) -> set[str]:
    """Return the names of the backups that exist."""
    return {record.name for record in await loop.records()}


async def test_expired_backups_are_marked_and_then_deleted(kube: KubeClient) -> None:
    await backups(kube, 3)
    loop = RetentionLoop(kube, KEEP_ONE)
    assert await loop.apply(NOW) == Applied(written=2)
    assert {record.name for record in await loop.records() if record.expires_at == NOW} == {"b-1", "b-2"}
    assert loop.last_removal is None
    assert await loop.apply(NOW + MINUTE) == Applied(removed=2)
    assert await names(loop) == {"b-0"}
    assert await loop.apply(NOW + 2 * MINUTE) == Applied()
    assert loop.last_removal == NOW + MINUTE


async def test_mark_of_a_kept_backup_is_removed(kube: KubeClient) -> None:
    await backups(kube, 2)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    loop.retention = rules(keep_last=2)
    assert await loop.apply(NOW + MINUTE) == Applied(written=1)
    assert all(record.expires_at is None for record in await loop.records())


async def test_hold_that_comes_before_the_deletion_wins(kube: KubeClient, api: Api) -> None:
    await backups(kube, 2)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    found = api.objects.get("VolumeBackup", "b-1", "shop")
    assert found is not None
    api.before_deletion = lambda: api.objects.update(found, spec=found["spec"] | {"hold": True})
    assert await loop.apply(NOW + MINUTE) == Applied(is_complete=False)
    api.before_deletion = lambda: None
    assert await loop.apply(NOW + 2 * MINUTE) == Applied(written=1)
    assert await names(loop) == {"b-0", "b-1"}


@pytest.mark.parametrize("change", ["gone", "replaced", "deleting", "error"])
async def test_backup_stays_if_the_newer_one_is_not_there_any_more(kube: KubeClient, api: Api, change: str) -> None:
    await backups(kube, 2)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    actions = actions_of(await loop.plan(NOW + MINUTE))
    newest = api.objects.get("VolumeBackup", "b-0", "shop")
    assert newest is not None
    match change:
        case "error":
            api.objects.update(newest, status=newest["status"] | {"phase": "error"})
        case "deleting":
            api.objects.update(newest, metadata=newest["metadata"] | {"finalizers": ["x"]})
            api.objects.delete(newest)
        case _:
            api.objects.delete(newest)
    if change == "replaced":
        await make_backup(kube, "shop", "b-0", NOW)
    assert await apply_retention(kube, actions) == Applied(is_complete=False)
    assert await read(kube, "shop", "b-1") is not None


SUSPICIOUS = {"type": "Suspicious", "message": "-", "lastTransitionTime": "2026-05-04T12:00:00Z"}
FAULTS: list[dict[str, Any]] = [
    {"phase": "error_restoring"},
    {"unreadableFiles": 1},
    {"verification": "Damaged"},
    {"conditions": [SUSPICIOUS | {"status": "True", "reason": "VolumeEmpty"}]},
    {"conditions": [SUSPICIOUS | {"status": "Unknown", "reason": "NotCompared"}]},
]


def change_status(api: Api, name: str, **changes: Any) -> None:
    """Change the status of a backup."""
    found = api.objects.get("VolumeBackup", name, "shop")
    assert found is not None
    if "verification" in changes:
        changes["verification"] = {"result": changes["verification"], "recordedFor": found["metadata"]["uid"]}
    api.objects.update(found, status=found["status"] | changes)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_backup_stays_if_a_fault_of_the_newer_one_was_found_meanwhile(
    kube: KubeClient, api: Api, fault: dict[str, Any]
) -> None:
    await backups(kube, 2)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    actions = actions_of(await loop.plan(NOW + MINUTE))
    change_status(api, "b-0", **fault)
    assert await apply_retention(kube, actions) == Applied(is_complete=False)
    assert await read(kube, "shop", "b-1") is not None


async def test_other_change_of_the_newer_backup_does_not_matter(kube: KubeClient, api: Api) -> None:
    await backups(kube, 2)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    actions = actions_of(await loop.plan(NOW + MINUTE))
    change_status(api, "b-0", objectCount=7)
    assert await apply_retention(kube, actions) == Applied(removed=1)


async def test_fault_that_was_judged_does_not_matter(kube: KubeClient, api: Api) -> None:
    await backups(kube, 2)
    for name in ("b-0", "b-1"):
        change_status(api, name, verification="Damaged")
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    assert await loop.apply(NOW + MINUTE) == Applied(removed=1)


async def test_writes_of_one_call_are_bounded(kube: KubeClient) -> None:
    count = 2 * MAX_WRITES + 2
    await backups(kube, count)
    loop, removed = RetentionLoop(kube, KEEP_ONE), 0
    assert await loop.apply(NOW) == Applied(written=MAX_WRITES, is_complete=False)
    assert await loop.apply(NOW) == Applied(written=MAX_WRITES, is_complete=False)
    assert await loop.apply(NOW) == Applied(written=1)
    while not (applied := await loop.apply(NOW + MINUTE)).is_complete:
        assert applied.removed == MAX_REMOVALS
        removed += applied.removed
    assert removed + applied.removed == count - 1


async def test_namespaces_take_turns(kube: KubeClient) -> None:
    await backups(kube, MAX_WRITES + 10, "large")
    await backups(kube, 5, "small")
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    marked = [record.namespace for record in await loop.records() if record.expires_at is not None]
    assert marked.count("small") == 4


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (403, "Forbidden", "admission webhook denied the request"),
        (422, "Invalid", "the policy says no"),
        (500, "InternalError", 'failed calling webhook "w.example.org": context deadline exceeded'),
    ],
)
async def test_namespace_that_refuses_does_not_stop_the_others(
    kube: KubeClient, api: Api, code: int, reason: str, message: str
) -> None:
    api.refusal = _refusal(code, reason, message)
    await backups(kube, 40, "shop")
    await backups(kube, 3, "demo")
    loop = RetentionLoop(kube, KEEP_ONE)
    api.refusing = {"shop"}
    applied = await loop.apply(NOW)
    assert (applied.written, applied.removed, applied.is_complete) == (2, 0, True)
    assert len(applied.refused) == 1
    assert message in applied.refused[0]


async def test_namespace_in_which_a_write_fails_does_not_stop_the_others(kube: KubeClient, api: Api) -> None:
    api.refusal = _refusal(500, "InternalError", "etcd is damaged")
    await backups(kube, 4, "shop")
    await backups(kube, 3, "demo")
    api.refusing = {"shop"}
    applied = await RetentionLoop(kube, KEEP_ONE).apply(NOW)
    assert (applied.written, applied.refused, applied.is_complete) == (2, (), False)
    assert len(applied.failed) == 1
    assert "etcd is damaged" in applied.failed[0]


async def test_server_that_does_not_answer_ends_the_call(kube: KubeClient, api: Api) -> None:
    api.refusal = _refusal(500, "InternalError", "no answer")
    namespaces = {f"n-{number}" for number in range(5)}
    for namespace in namespaces:
        await backups(kube, 3, namespace)
    api.refusing = namespaces
    faults = Faults()
    kube.observer = faults
    applied = await RetentionLoop(kube, KEEP_ONE).apply(NOW)
    assert len(applied.failed) == len(faults.log) == MAX_FAILURES
    assert not applied.is_complete


async def test_backup_that_is_gone_needs_nothing(kube: KubeClient, api: Api) -> None:
    version = BackupVersion("shop", "gone", "u-1", "7")
    actions = (UnmarkExpiring(version), MarkExpiring(version, NOW), RemoveExpired(version, None))
    assert (await apply_retention(kube, actions)).is_complete


def _run(work: Callable[[KubeClient, Api], Coroutine[Any, Any, None]]) -> None:
    api = Api()
    asyncio.run(work(KubeClient(api), api))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", range(7))
def test_death_around_any_write_ends_in_the_same_state(at: int, done: bool) -> None:
    """Four marks and three deletions; the mark of a backup that is held later is removed."""

    async def scenario(kube: KubeClient, api: Api) -> None:
        await backups(kube, 5)
        loop = RetentionLoop(kube, rules(keep_last=1, grace="24h"))
        faults = Faults()
        faults.plan(at, Crash("scripted"), done=done)
        kube.observer = faults
        removed_at: dict[str, datetime] = {}
        for hour in range(60):
            now, before = NOW + hour * timedelta(hours=1), await names(loop)
            if hour == 12:
                kube.observer, observer = None, kube.observer
                found = api.objects.get("VolumeBackup", "b-2", "shop")
                assert found is not None
                api.objects.update(found, spec=found["spec"] | {"hold": True})
                kube.observer = observer
            with contextlib.suppress(Crash):
                await loop.apply(now)
            removed_at |= dict.fromkeys(before - await names(loop), now)
        assert await names(loop) == {"b-0", "b-2"}
        assert min(removed_at.values()) >= NOW + DAY
        assert all(record.expires_at is None for record in await loop.records())

    _run(scenario)


async def test_all_marks_are_removed_except_of_what_is_going(kube: KubeClient) -> None:
    await backups(kube, 3)
    loop = RetentionLoop(kube, KEEP_ONE)
    await loop.apply(NOW)
    assert await apply_retention(kube, unmark_all(await loop.records())) == Applied(2)
    assert all(record.expires_at is None for record in await loop.records())
    assert unmark_all([a_record(expires_at=NOW, is_being_deleted=True), a_record()]) == ()


def test_writes_that_keep_come_before_those_that_remove() -> None:
    def version(namespace: str, name: str) -> BackupVersion:
        return BackupVersion(namespace, name, name, "7")

    removal, mark = RemoveExpired(version("a", "r"), None), MarkExpiring(version("a", "m"), NOW)
    unmarks = [UnmarkExpiring(version("a", "1")), UnmarkExpiring(version("a", "2")), UnmarkExpiring(version("b", "3"))]
    assert in_turns([removal, mark, *unmarks]) == [unmarks[0], unmarks[2], unmarks[1], mark, removal]
