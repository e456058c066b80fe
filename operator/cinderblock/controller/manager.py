"""The operator process from its first line to its last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.healthz import Health
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.leaderelection.lease import LeaseTimings
from cinderblock.controller.metrics.collector import ClusterCollector
from cinderblock.controller.metrics.recorder import instrumented
from cinderblock.controller.metrics.server import MetricsServer, SnapshotReader
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import RequeuePolicy
from cinderblock.controller.settings import OperatorSettings
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.worker import enqueue_all, resync, run_worker
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.observability import log as observability_log
from cinderblock.observability.operator_metrics import OperatorMetrics

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""How long work under way may take to end before a stop abandons it. Another replica waits for the Lease meanwhile, and
whatever is abandoned is begun again from what the world says."""


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run the operator until it is told to stop. Returns the exit code: 0, or 1 with a line that says why."""
    observability_log.configure()
    try:
        settings = OperatorSettings.from_environment(environment)
        observability_log.configure(logging.getLevelNamesMapping()[settings.log_level.upper()])
        asyncio.run(run(settings))
    except CinderblockError as error:
        log.error("The operator cannot run: %s", error.message)
        return 1
    return 0


async def run(settings: OperatorSettings) -> None:
    """Connect, watch, and act while leading, until a signal comes. Raises what connecting raises."""
    # Calls to a store that does not answer keep a thread for seconds: enough of them for every worker, twice.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * settings.workers, "store"))
    timing = LeaseTimings(lease_duration=settings.lease_seconds)
    kube = await connect()
    # Renewals have a connection of their own: they must not stand in line behind anything.
    lease_kube = await connect(call_seconds=timing.call, response_counts=kube.response_counts)
    namespace = settings.lease_namespace or (await kube.config()).namespace
    leading = LeaderElector(lease_kube, namespace, settings.lease_name, timing=timing)
    kube.write_guard = leading.check
    metrics = OperatorMetrics()
    stores = StorePool(kube, metrics.count_store_request)
    try:
        await _run_manager(settings, kube, stores, leading, metrics)
    finally:
        stores.close()
        await kube.aclose()
        await lease_kube.aclose()


async def _run_manager(
    settings: OperatorSettings,
    kube: KubeClient,
    stores: StorePool,
    leading: LeaderElector,
    metrics: OperatorMetrics,
) -> None:
    queue = WorkQueue()
    context = Context(kube, stores, make_policy(settings), metrics=metrics)
    requeue_policy = RequeuePolicy()
    reconcile = instrumented(Reconciler(context, requeue_policy), metrics)
    acknowledger = Acknowledger(queue)
    watching = WatchManager(kube, EventHandler(queue, acknowledger), lambda: leading.reachable_since)
    collector = ClusterCollector(kube)
    gauges = SnapshotReader(
        kube, queue, collector, settings.max_movers, lambda: leading.is_leading, watching.longest_idle
    )
    metrics_server = MetricsServer(settings.metrics_port, metrics, gauges.read)
    health = Health(settings.health_port, queue, watching, leading)

    async def list_keys() -> list[tuple[ObjectKey, bool]]:
        keys = await list_pending(context)
        requeue_policy.register(key for key, _ in keys)
        return keys

    async def act() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(run_worker(queue, reconcile))
            group.create_task(acknowledger.run(context))
            group.create_task(enqueue_all(queue, list_keys))
            group.create_task(resync(queue, list_keys, settings.resync_seconds))

    await health.start()
    await metrics_server.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leading.run(act)), group.create_task(watching.run())]
            log.info("The operator runs", extra={"identity": leading.identity})
            await wait_for_signal()
            log.info("The operator stops")
            if not await queue.drain(DRAIN_SECONDS):
                log.warning("Work under way is abandoned; who leads next begins with it again")
            for task in tasks:
                task.cancel()
    finally:
        await metrics_server.stop()
        await collector.aclose()
        await health.stop()


async def wait_for_signal() -> None:
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
