"""Watches on a real API server: a silent one is opened anew, and types that are installed later are found."""

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
    """An API server that does not know our types at first."""
    with apiserver.running() as running:
        yield running


@pytest.fixture
def line(server: ApiServer) -> Iterator[FaultyApi]:
    """The way to it."""
    with faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes are seconds here."""
    monkeypatch.setattr(watch_manager, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(watch_manager, "OPENING_SECONDS", 3.0)
    monkeypatch.setattr(watch_manager, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(kube_client, "DISCOVERY_CACHE_SECONDS", 0.5)


@asynccontextmanager
async def _watching(
    server: ApiServer, line: FaultyApi, directory: Path
) -> AsyncIterator[tuple[WatchManager, WorkQueue, KubeClient]]:
    """Watches through the line, what they put into the queue, and a client past the line."""
    path = kubeconfigs.write(directory / "kubeconfig", line.url, server.authority, server.token)
    queue, began = WorkQueue(), time.monotonic()
    async with (
        aclosing(await connect(kubeconfig=str(path))) as kube,
        aclosing(await connect(kubeconfig=str(server.kubeconfig))) as administrator,
    ):
        watched = WatchManager(kube, EventHandler(queue, Acknowledger(queue)), lambda: began)
        task = asyncio.create_task(watched.run())
        try:
            yield watched, queue, administrator
        finally:
            task.cancel()
            await asyncio.wait({task})


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        # What is looked at has no event to wait for.
        for _ in iter(what, True):
            await asyncio.sleep(0.05)


async def _hears_of(queue: WorkQueue, administrator: KubeClient, name: str) -> None:
    metadata = {"name": name, "namespace": "default"}
    spec = {"credentialsSecretRef": {"name": "absent"}}
    await administrator.create(BACKUP_STORE, {"metadata": metadata, "spec": spec})
    async with asyncio.timeout(60):
        while (key := await queue.get()) != ObjectKey("BackupStore", "default", name):
            await queue.done(key)


async def test_types_that_are_installed_later_are_watched_then(
    server: ApiServer, line: FaultyApi, tmp_path: Path
) -> None:
    async with _watching(server, line, tmp_path) as (watched, queue, administrator):
        await _until(lambda: watched.synced)
        for resource in RESOURCES:
            await install(administrator, resource)
        await _until(lambda: watched.starts > 1 and watched.synced)
        await _hears_of(queue, administrator, "installed-later")


async def test_watches_that_fall_silent_are_opened_anew(server: ApiServer, line: FaultyApi, tmp_path: Path) -> None:
    async with _watching(server, line, tmp_path) as (watched, queue, administrator):
        for resource in RESOURCES:
            await install(administrator, resource)
        await _until(lambda: watched.synced)
        starts = watched.starts
        line.mute = True
        await _until(lambda: watched.starts > starts)
        line.mute = False
        await _hears_of(queue, administrator, "after-the-silence")
