"""Watches on a real API server: a stalled one is reopened, and kinds that are installed later are found."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.controller.handlers import watch_manager
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.kube import client as kube_client
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import BACKUP_STORE
from tests.cluster import apiserver, kubeconfigs
from tests.cluster.apiserver import ApiServer
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import FaultyApi, faulty_api

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """Run an API server without the custom resources."""
    with apiserver.running() as running:
        yield running


@pytest.fixture
def api(server: ApiServer) -> Iterator[FaultyApi]:
    """Run a proxy in front of the API server."""
    with faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn minutes into seconds."""
    monkeypatch.setattr(watch_manager, "STALL_SECONDS", 3.0)
    monkeypatch.setattr(watch_manager, "OPENING_SECONDS", 3.0)
    monkeypatch.setattr(watch_manager, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(kube_client, "DISCOVERY_CACHE_SECONDS", 0.5)


@asynccontextmanager
async def _watching(
    server: ApiServer, api: FaultyApi, directory: Path
) -> AsyncIterator[tuple[WatchManager, WorkQueue, KubeClient]]:
    """Watch through the proxy. Yield the manager, its queue, and a client that bypasses the proxy."""
    path = kubeconfigs.write(directory / "kubeconfig", api.url, server.authority, server.token)
    queue, began = WorkQueue(), time.monotonic()
    async with (
        aclosing(await connect(kubeconfig=str(path))) as kube,
        aclosing(await connect(kubeconfig=str(server.kubeconfig))) as administrator,
    ):
        watches = WatchManager(kube, EventHandler(queue, Acknowledger(queue)), lambda: began)
        task = asyncio.create_task(watches.run())
        try:
            yield watches, queue, administrator
        finally:
            task.cancel()
            await asyncio.wait({task})


async def _wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        # The condition has no event to wait for.
        for _ in iter(condition, True):
            await asyncio.sleep(0.05)


async def _wait_for_event(queue: WorkQueue, administrator: KubeClient, name: str) -> None:
    metadata = {"name": name, "namespace": "default"}
    spec = {"credentialsSecretRef": {"name": "absent"}}
    await administrator.create(BACKUP_STORE, {"metadata": metadata, "spec": spec})
    async with asyncio.timeout(60):
        while (key := await queue.get()) != ObjectKey("BackupStore", "default", name):
            await queue.done(key)


async def test_kinds_installed_later_are_watched(server: ApiServer, api: FaultyApi, tmp_path: Path) -> None:
    async with _watching(server, api, tmp_path) as (watches, queue, administrator):
        await _wait_until(lambda: watches.synced)
        for resource in RESOURCES:
            await install(administrator, resource)
        await _wait_until(lambda: watches.starts > 1 and watches.synced)
        await _wait_for_event(queue, administrator, "installed-later")


async def test_stalled_watches_are_reopened(server: ApiServer, api: FaultyApi, tmp_path: Path) -> None:
    async with _watching(server, api, tmp_path) as (watches, queue, administrator):
        for resource in RESOURCES:
            await install(administrator, resource)
        await _wait_until(lambda: watches.synced)
        starts = watches.starts
        api.mute = True
        await _wait_until(lambda: watches.starts > starts)
        api.mute = False
        await _wait_for_event(queue, administrator, "after-the-stall")
