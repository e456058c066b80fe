"""The broker process."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import replace
from typing import Final

from cinderblock.broker.app import Services, make_app
from cinderblock.broker.authenticator import Authenticator
from cinderblock.broker.granted_packs import GrantedPacks
from cinderblock.broker.sessions import Sessions
from cinderblock.broker.settings import BrokerSettings
from cinderblock.broker.stores import StoreSecrets
from cinderblock.broker.tls.secret import TlsSecret
from cinderblock.broker.turns import NamespaceTurns
from cinderblock.kube.client import KubeClient, connect
from cinderblock.observability import log
from cinderblock.observability.broker_metrics import BrokerMetrics
from cinderblock.serving.health import make_health_app
from cinderblock.serving.server import RunningServer, running, wait_for_stop

THREADS: Final = 64
"""Threads for calls of S3 servers and token services. Each store has at most one probe and eight calls of its token
service at a time. asyncio's default is four more than the processors: a single service that hangs would hold them."""

_UNREADY = "no certificate yet, or the API server does not answer"

_logger = logging.getLogger(__name__)


def main(settings: BrokerSettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    Raises InvalidInput if no API server is configured, or an address is in use.
    """
    log.configure("broker")
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: BrokerSettings) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "broker"))
    metrics = BrokerMetrics()
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(aclosing(await connect()))
        # Tenants that use all connections to the API server must not make the process look unready.
        probe = await stack.enter_async_context(aclosing(await connect()))
        namespace = (await kube.config()).namespace
        tls = TlsSecret(kube, namespace, settings, on_expiry=metrics.set_certificate_expiry)
        stack.enter_context(closing(tls))

        async def is_ready() -> bool:
            return tls.is_ready and await probe.server_ready()

        servers = []
        health = settings.of_health_server()
        if health is not None:
            app = make_health_app(is_ready, _UNREADY, metrics.render)
            servers.append(await stack.enter_async_context(running(app, health)))
        serving = asyncio.create_task(_serve_with(tls, kube, namespace, settings, metrics))
        servers.append(RunningServer(settings.port, serving))
        try:
            await wait_for_stop(servers)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        _logger.info("Received a signal to stop")


async def _serve_with(
    tls: TlsSecret, kube: KubeClient, namespace: str, settings: BrokerSettings, metrics: BrokerMetrics
) -> None:
    """Wait for a certificate, and then serve until the task is cancelled or the server fails."""
    await tls.wait()
    with_tls = replace(settings, certificate=tls.file, private_key=tls.file)
    services = make_services(kube, namespace, settings)
    with closing(services.stores):
        async with running(make_app(services, with_tls, metrics), with_tls) as server, asyncio.TaskGroup() as tasks:
            tasks.create_task(tls.keep())
            _logger.info("Listening", extra={"host": settings.host, "port": server.port})
            # This task may be cancelled, but the server must finish what it has begun.
            await asyncio.shield(server.task)


def make_services(kube: KubeClient, namespace: str, settings: BrokerSettings) -> Services:
    """Return what the application needs."""
    return Services(
        authenticator=Authenticator(kube, namespace),
        stores=StoreSecrets(kube),
        sessions=Sessions(kube, namespace, settings.service_account),
        turns=NamespaceTurns(settings.requests_per_namespace, settings.unanswered_per_namespace),
        packs=GrantedPacks(),
    )
