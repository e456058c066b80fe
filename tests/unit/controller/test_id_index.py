"""Many imports share one list of their namespace, and each sees all VolumeBackups that are older than itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.id_index import MAX_NAMESPACES, IdIndex
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import RequestInfo
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

NOW = datetime(2026, 5, 4, tzinfo=UTC)


class World:
    """A namespace, and the lists of it that were read.

    Attributes:
        lists: how many.
        failures: how many lists fail from now on.
    """

    def __init__(self) -> None:
        self.objects = ObjectsInMemory(lambda: NOW)
        self.kube = KubeClient(SimulatedApi(self.objects, lambda how, item: None), observer=self)
        self.index = IdIndex()
        self.lists = self.failures = 0

    async def before(self, info: RequestInfo) -> None:
        """See `Observer`."""
        self.lists += info.verb == "list"
        if self.failures:
            self.failures -= 1
            raise KubeUnavailable("no route to host")
        await asyncio.sleep(0)

    async def after(self, info: RequestInfo, status: int) -> None:
        """See `Observer`."""

    def make(self, name: str, backup_id: str, namespace: str = "shop", **status: str) -> VolumeBackup:
        spec = {"import": {"id": backup_id}}
        made = self.objects.create("VolumeBackup", {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
        assert made is not None
        self.objects.update(made, status=status)
        return VolumeBackup.model_validate(made)

    async def names(self, *backups: VolumeBackup) -> list[list[str]]:
        return list(await asyncio.gather(*(self.index.names(self.kube, backup) for backup in backups)))


async def test_many_imports_share_one_list() -> None:
    world = World()
    backups = [world.make(f"b{number}", f"id-{number % 40}") for number in range(50)]
    found = await world.names(*backups)
    assert found[:11] == [[f"b{number + 40}"] for number in range(10)] + [[]]
    assert world.lists == 1


async def test_import_that_is_newer_than_a_list_reads_another_one() -> None:
    world = World()
    first = world.make("first", "one")
    assert await world.names(first) == [[]]
    second = world.make("second", "one")
    assert await world.names(second) == [["first"]]
    assert world.lists == 2


async def test_import_that_comes_while_a_list_is_read_sees_the_older_ones() -> None:
    world = World()
    first = world.make("first", "one")
    reading = asyncio.create_task(world.index.names(world.kube, first))
    await asyncio.sleep(0)
    later = [world.make(f"later-{number}", "one") for number in range(3)]
    found = await world.names(*later)
    assert await reading in ([], ["later-0", "later-1", "later-2"])
    for number, names in enumerate(found):
        assert {"first", *(f"later-{older}" for older in range(number))} <= set(names)
    assert world.lists <= 2


async def test_dependents_are_found_by_their_parent() -> None:
    world = World()
    parent = world.make("parent", "one")
    world.make("child", "two", id="two", parentId="one")
    assert await world.names(parent) == [["child"]]


async def test_failed_list_is_not_kept() -> None:
    world = World()
    backup = world.make("first", "one")
    world.failures = 1
    with pytest.raises(KubeUnavailable):
        await world.names(backup)
    assert await world.names(backup) == [[]]


async def test_lists_of_few_namespaces_are_kept() -> None:
    world = World()
    for number in range(3 * MAX_NAMESPACES):
        await world.names(world.make("b", "one", f"namespace-{number}"))
    assert len(world.index._lists) <= MAX_NAMESPACES
