"""The operator process, from start to exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import EventHandler
from cinderblock.controller.handlers.watch_manager import WatchManager
from cinderblock.controller.healthz import Health
from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.leaderelection.lease import LeaseTimings
from cinderblock.controller.metrics.collector import ClusterCollector
from cinderblock.controller.metrics.server import MetricsServer, SnapshotReader
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import RequeuePolicy
from cinderblock.controller.settings import OperatorSettings
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.webhook.notifier import Notifier
from cinderblock.controller.worker import enqueue_all, resync, run_worker
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.kube.client import KubeClient, ResponseCounts, connect
from cinderblock.kube.reduction import reduce_object
from cinderblock.lifecycle.observed import MoverSettings, OperatorAccount, OperatorPolicy
from cinderblock.observability import log as observability_log
from cinderblock.observability.cloud_event import source_of
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.store.factory import ignores_unsigned_headers
from cinderblock.volume.kernel.allocator import return_freed_memory

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""For how long a stop waits for running reconciliations. Another replica waits for the Lease meanwhile, and repeats
from the observed state what this one interrupts."""


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Run the operator until a signal stops it. Return the exit code: 0, or 1 after an error that was logged."""
    observability_log.configure("operator")
    return_freed_memory()
    try:
        settings = OperatorSettings.from_environment(environment)
        observability_log.configure("operator", logging.getLevelNamesMapping()[settings.log_level.upper()])
        asyncio.run(run(settings))
    except CinderblockError as error:
        log.error("Could not run the operator: %s", error.message, extra={"reason": error.reason})
        return 1
    return 0


async def run(settings: OperatorSettings) -> None:
    """Connect, watch, and act while leading, until a signal comes. Raises what `connect` raises."""
    # A call to a store that does not answer holds a thread for seconds: provide two threads for each worker.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * settings.workers, "store"))
    timings = LeaseTimings(lease_duration=settings.lease_seconds)
    response_counts: ResponseCounts = Counter()
    kube = await connect(response_counts=response_counts, reduce=reduce_object)
    kube.namespaces, kube.skips_unreadable = settings.watch_namespaces, True
    # Renewals have a connection of their own, so that they never wait for other requests.
    lease_kube = await connect(call_seconds=timings.request_timeout, response_counts=response_counts)
    namespace = settings.lease_namespace or (await kube.config()).namespace
    settings = replace(settings, lease_namespace=namespace)
    elector = LeaderElector(lease_kube, namespace, settings.lease_name, timings=timings)
    kube.write_guard = elector.check
    metrics = OperatorMetrics()
    stores = StorePool(
        kube,
        metrics.count_store_request,
        settings.allowed_endpoints,
        ignores_unsigned_headers=ignores_unsigned_headers,
    )
    try:
        await _run_manager(settings, kube, stores, elector, metrics)
    finally:
        stores.close()
        await kube.aclose()
        await lease_kube.aclose()


async def _run_manager(
    settings: OperatorSettings,
    kube: KubeClient,
    stores: StorePool,
    elector: LeaderElector,
    metrics: OperatorMetrics,
) -> None:
    queue = WorkQueue(settings.workers)
    context = Context(kube, stores, make_policy(settings), metrics=metrics, enqueue=queue.add)
    requeue_policy = RequeuePolicy()
    reconciler = Reconciler(context, requeue_policy, Broker(settings.broker_secret))
    acknowledger = Acknowledger(queue)
    handler = EventHandler(queue, acknowledger)
    watches = WatchManager(
        kube,
        handler,
        lambda: elector.reachable_since,
        schedule_kinds=settings.schedule_kinds,
        cluster_stores=settings.cluster_stores,
        populates=settings.populates,
    )
    collector = ClusterCollector(kube, schedule_kinds=settings.schedule_kinds, cluster_stores=settings.cluster_stores)
    snapshots = SnapshotReader(
        kube, queue, collector, settings.max_movers, lambda: elector.is_leading, watches.longest_idle
    )
    metrics_server = MetricsServer(settings.metrics_port, metrics, snapshots.read)
    health = Health(settings.health_port, queue, watches, elector)

    async def read_source() -> str:
        return source_of(await context.cluster.uid(kube), settings.release)

    notifier = Notifier(settings.webhook, collector.state, read_source, metrics) if settings.webhook else None

    async def list_keys() -> list[tuple[ObjectKey, bool]]:
        keys = await list_pending(context)
        requeue_policy.register(key for key, _ in keys)
        return keys

    async def lead() -> None:
        context.admission.reset()
        context.verification_admission.reset()
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(run_worker(queue, reconciler.reconcile))
            group.create_task(acknowledger.run(context))
            group.create_task(enqueue_all(queue, list_keys))
            group.create_task(resync(queue, list_keys, settings.resync_seconds))
            if notifier is not None:
                group.create_task(notifier.run())

    await health.start()
    await metrics_server.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(elector.run(lead)), group.create_task(watches.run())]
            log.info("Operator started", extra={"identity": elector.identity})
            await wait_for_signal()
            log.info("Operator stopping")
            if not await queue.drain(DRAIN_SECONDS):
                log.warning("Reconciliations were interrupted: the next leader repeats them")
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
    """Return the settings that decisions depend on."""
    return OperatorPolicy(
        mover=MoverSettings(
            image=settings.mover_image,
            pull_policy=settings.mover_image_pull_policy,
            pull_secrets=settings.mover_image_pull_secrets,
            limit=settings.max_movers,
            namespace_limit=settings.max_movers_per_namespace,
            verification_limit=settings.max_verifications_per_store,
            proxies=settings.proxies,
            labels=settings.mover_labels,
            annotations=settings.mover_annotations,
            pod_security=settings.mover_pod_security,
            root_requires_opt_in=settings.root_movers_require_opt_in,
            allow_system_priority=settings.allow_system_priority,
            allowed_endpoints=settings.allowed_endpoints,
            broker_url=settings.broker_url,
        ),
        release=settings.release,
        schedule_kinds=settings.schedule_kinds,
        object_limit=settings.max_objects_per_namespace,
        account=OperatorAccount(settings.lease_namespace or "", settings.lease_name),
        cluster_stores=settings.cluster_stores,
        populates=settings.populates,
    )
