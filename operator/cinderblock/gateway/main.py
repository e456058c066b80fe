"""The gateway process."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, aclosing

from cinderblock.gateway.app import make_app, make_health_app
from cinderblock.gateway.auth import Authenticator, NoAuth, TokenAuth
from cinderblock.gateway.settings import AuthMode, GatewaySettings
from cinderblock.kube.client import connect
from cinderblock.kube.config_source import default_source
from cinderblock.kube.token_clients import TokenClients
from cinderblock.observability import log
from cinderblock.observability.gateway_metrics import GatewayMetrics
from cinderblock.serving.server import running, wait_for_stop

_logger = logging.getLogger(__name__)


def main(settings: GatewaySettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        InvalidInput: no API server is configured, the certificate cannot be read, or the address is in use.
    """
    log.configure("gateway")
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: GatewaySettings) -> None:
    metrics = GatewayMetrics()
    async with AsyncExitStack() as stack:
        authenticator = await stack.enter_async_context(aclosing(await make_authenticator(settings)))
        api = await stack.enter_async_context(running(make_app(authenticator, settings, metrics), settings))
        servers = [api]
        health = settings.of_health_server()
        if health is not None:
            app = make_health_app(authenticator, metrics)
            servers.append(await stack.enter_async_context(running(app, health)))
        _logger.info("Listening", extra={"host": settings.host, "port": api.port})
        await wait_for_stop(servers)
        _logger.info("Received a signal to stop")


async def make_authenticator(settings: GatewaySettings) -> Authenticator:
    """Return the authenticator for the configured mode."""
    if settings.auth is AuthMode.NONE:
        _logger.warning(
            "Authentication is off (--auth=none), for tests only! Every caller has the rights of the gateway itself.",
            extra={"host": settings.host},
        )
        kube = await connect()
        return NoAuth(kube, (await kube.config()).namespace)
    return TokenAuth(TokenClients(default_source(os.environ, needs_token=False)))
