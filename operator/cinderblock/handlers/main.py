"""The operator process from its first line to its last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cinderblock.errors import CinderblockError
from cinderblock.handlers import logs
from cinderblock.handlers.health import Health
from cinderblock.handlers.keys import Key
from cinderblock.handlers.leading import Leading
from cinderblock.handlers.lease import Timing
from cinderblock.handlers.loop import resync, take_over, work
from cinderblock.handlers.metrics import Gauges, MetricsServer
from cinderblock.handlers.noticing import Noticing
from cinderblock.handlers.observe import Eyes
from cinderblock.handlers.overview import Overview
from cinderblock.handlers.pace import Pace
from cinderblock.handlers.queue import WorkQueue
from cinderblock.handlers.reconcile import Reconciler
from cinderblock.handlers.results import timed
from cinderblock.handlers.settled import unsettled
from cinderblock.handlers.stores import Stores
from cinderblock.handlers.watch import Watch
from cinderblock.handlers.watching import Watching
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.settings import OperatorSettings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""How long work under way may take to end before a stop abandons it. Another replica waits for the Lease meanwhile, and
whatever is abandoned is begun again from what the world says."""


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
    """Connect, watch, and act while leading, until a signal comes. Raises what connecting raises."""
    # Calls to a store that does not answer keep a thread for seconds: enough of them for every worker, twice.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * settings.workers, "store"))
    timing = Timing(lease=settings.lease_seconds)
    kube = await connect()
    # Renewals have a connection of their own: they must not stand in line behind anything.
    lease_kube = await connect(call_seconds=timing.call)
    lease_kube.response_counts = kube.response_counts
    namespace = settings.lease_namespace or (await kube.credentials()).namespace
    leading = Leading(lease_kube, namespace, settings.lease_name, timing=timing)
    kube.write_guard = leading.check
    instruments = OperatorMetrics()
    stores = Stores(kube, instruments.store_answered)
    try:
        await _operate(settings, kube, stores, leading, instruments)
    finally:
        stores.close()
        await kube.aclose()
        await lease_kube.aclose()


async def _operate(
    settings: OperatorSettings, kube: KubeClient, stores: Stores, leading: Leading, instruments: OperatorMetrics
) -> None:
    queue = WorkQueue()
    eyes = Eyes(kube, stores, make_policy(settings), instruments=instruments)
    pace = Pace()
    reconcile = timed(Reconciler(eyes, pace), instruments)
    noticing = Noticing(queue)
    watching = Watching(kube, Watch(queue, noticing), lambda: leading.reachable_since)
    overview = Overview(kube)
    gauges = Gauges(kube, queue, overview, settings.max_movers, lambda: leading.is_leading, watching.silence)
    metrics = MetricsServer(settings.metrics_port, instruments, gauges.read)
    health = Health(settings.health_port, queue, watching, leading)

    async def list_keys() -> list[tuple[Key, bool]]:
        keys = await unsettled(eyes)
        pace.know(key for key, _ in keys)
        return keys

    async def act() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(work(queue, reconcile))
            group.create_task(noticing.run(eyes))
            group.create_task(take_over(queue, list_keys))
            group.create_task(resync(queue, list_keys, settings.resync_seconds))

    await health.start()
    await metrics.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leading.run(act)), group.create_task(watching.run())]
            log.info("The operator runs", extra={"identity": leading.identity})
            await asked_to_stop()
            log.info("The operator stops")
            if not await queue.drain(DRAIN_SECONDS):
                log.warning("Work under way is abandoned; who leads next begins with it again")
            for task in tasks:
                task.cancel()
    finally:
        await metrics.stop()
        await overview.aclose()
        await health.stop()


async def asked_to_stop() -> None:
    """Wait for SIGTERM or SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def make_policy(settings: OperatorSettings) -> OperatorPolicy:
    """What decisions need to know of the settings."""
    return OperatorPolicy(
        mover=MoverSettings(
            image=settings.mover_image,
            pull_policy=settings.mover_image_pull_policy,
            pull_secrets=settings.mover_image_pull_secrets,
            limit=settings.max_movers,
            proxies=settings.proxies,
        ),
        release=settings.release,
    )
