"""From the command line to a running gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack, aclosing

from cinderblock.gateway import logs
from cinderblock.gateway.app import make_app, make_health_app
from cinderblock.gateway.auth import Authenticator, NoAuth, TokenAuth
from cinderblock.gateway.server import running
from cinderblock.gateway.settings import HOST, Auth, GatewaySettings
from cinderblock.kube.client import connect
from cinderblock.kube.config_source import default_source
from cinderblock.kube.token_clients import TokenClients
from cinderblock.observability.gateway_metrics import GatewayMetrics

_logger = logging.getLogger(__name__)


def main(settings: GatewaySettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        InvalidInput: there is no API server to talk to, no such certificate, or the address is taken.
    """
    logs.configure()
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: GatewaySettings) -> None:
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        who = await stack.enter_async_context(aclosing(await identification(settings)))
        server = await stack.enter_async_context(running(make_app(who, settings, metrics), settings))
        if settings.health_port is not None:
            inside = GatewaySettings(host=HOST, port=settings.health_port)
            await stack.enter_async_context(running(make_health_app(who, metrics), inside))
        _logger.info("Listening on %s port %s", settings.host, server.port)
        await _wait_for_signal()
        _logger.info("Told to stop")


async def identification(settings: GatewaySettings) -> Authenticator:
    """How callers are told apart."""
    if settings.auth is Auth.NONE:
        _logger.warning(
            "--auth=none: whoever reaches %s has the rights of this process's own credentials. For tests only!",
            settings.host,
        )
        kube = await connect()
        return NoAuth(kube, (await kube.config()).namespace)
    return TokenAuth(TokenClients(default_source(os.environ, needs_token=False)))


async def _wait_for_signal() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
