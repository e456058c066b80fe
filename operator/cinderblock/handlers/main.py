"""The operator process from its first line to its last."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import kopf

from cinderblock.errors import CinderblockError
from cinderblock.handlers import logs
from cinderblock.handlers.health import Health
from cinderblock.handlers.keys import RECONCILED, Key
from cinderblock.handlers.loop import resync, work
from cinderblock.handlers.metrics import Gauges, MetricsServer
from cinderblock.handlers.observe import Eyes
from cinderblock.handlers.overview import Overview
from cinderblock.handlers.process import make_registry, make_settings
from cinderblock.handlers.queue import WorkQueue
from cinderblock.handlers.reconcile import Reconciler
from cinderblock.handlers.results import timed
from cinderblock.handlers.stores import Stores
from cinderblock.handlers.watch import Watch
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.worlds import MoverSettings, Policy
from cinderblock.observability.instruments import Instruments
from cinderblock.settings import OperatorSettings

log = logging.getLogger(__name__)


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run the operator until it is told to stop. Returns the exit code: 0, or 1 with a line that says why."""
    logs.configure()
    try:
        settings = OperatorSettings.from_environment(environment)
        logs.configure(logging.getLevelNamesMapping()[settings.log_level.upper()])
        asyncio.run(run(settings))
    except CinderblockError as error:
        log.error("The operator cannot run: %s", error.message)
        return 1
    return 0


async def run(settings: OperatorSettings) -> None:
    """Connect, start the workers, and watch until a signal comes. Raises what connecting raises."""
    # Calls to a store that does not answer keep a thread for seconds: enough of them for every worker, twice.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * settings.workers, "store"))
    kube = await connect()
    instruments = Instruments()
    stores = Stores(kube, instruments.store_answered)
    health = Health(kube, settings.health_port)
    await health.start()
    try:
        await _operate(settings, kube, stores, instruments)
    finally:
        await health.stop()
        stores.close()
        await kube.aclose()


async def _operate(settings: OperatorSettings, kube: KubeClient, stores: Stores, instruments: Instruments) -> None:
    queue = WorkQueue()
    reconcile = timed(Reconciler(Eyes(kube, stores, make_policy(settings), instruments=instruments)), instruments)
    gauges = Gauges(kube, queue, Overview(kube), settings.max_movers)
    metrics = MetricsServer(settings.metrics_port, instruments, gauges.read)

    async def list_keys() -> list[Key]:
        return [
            Key(kind.kind, item["metadata"]["namespace"], item["metadata"]["name"])
            for kind in RECONCILED.values()
            for item in await kube.list(kind)
        ]

    await metrics.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(queue, reconcile)) for _ in range(settings.workers)]
        tasks.append(group.create_task(resync(queue, list_keys, settings.resync_seconds)))
        log.info("The operator runs")
        await kopf.operator(
            registry=make_registry(Watch(queue), kube), settings=make_settings(), clusterwide=True, standalone=True
        )
        log.info("The operator stops")
        for task in tasks:
            task.cancel()
    await metrics.stop()


def make_policy(settings: OperatorSettings) -> Policy:
    """What decisions need to know of the settings."""
    return Policy(
        mover=MoverSettings(
            image=settings.mover_image,
            pull_policy=settings.mover_image_pull_policy,
            pull_secrets=settings.mover_image_pull_secrets,
            limit=settings.max_movers,
        )
    )
