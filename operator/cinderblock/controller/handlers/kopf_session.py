"""The connection that kopf watches through: it reaches the same server, in the same way, as our own client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import aiohttp
import kopf

from cinderblock.controller.handlers.kopf_pages import SmallPages
from cinderblock.controller.handlers.watch_filter import reduce_watches
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import ssl_context

LOGIN_MINUTES = 10
"""Minutes after which kopf logs in again. Meanwhile bound ServiceAccount tokens are renewed in their file."""


def open_session(config: RestConfig, liveness: WatchLiveness) -> kopf.AiohttpSession:
    """Return a connection for kopf whose watches ``liveness`` observes."""
    expected_name = [_expect_server_name(config.server_name)] if config.server_name else []
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context(config)),
        headers={"Authorization": f"Bearer {config.token}"} if config.token else None,
        proxy=config.proxy,
        trace_configs=[liveness.trace()],
        middlewares=[SmallPages(), reduce_watches, *expected_name],
    )
    return kopf.AiohttpSession(
        server=config.server,
        default_namespace=config.namespace,
        aiohttp_session=session,
        expiration=datetime.now(UTC) + timedelta(minutes=LOGIN_MINUTES),
    )


def _expect_server_name(name: str) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that checks the certificate for ``name``. A session accepts the name only per request."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.server_hostname = name
        return await handler(request)

    return send
