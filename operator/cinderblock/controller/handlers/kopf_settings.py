"""kopf as we use it: a process shell and a watcher. No change handlers, no annotations, no finalizers of its own."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import aiohttp
import kopf
from typing_extensions import override

from cinderblock.api import labels as api_labels
from cinderblock.controller.handlers.event_handler import CHILD_KINDS, MANAGED_SELECTOR
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.controller.request import OWN_KINDS
from cinderblock.kube.kinds import PV
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import ssl_context
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL

LOGIN_MINUTES = 10
"""kopf asks for credentials again this often: bound ServiceAccount tokens are renewed in their file meanwhile."""


Login = Callable[..., Awaitable[kopf.AiohttpSession]]
"""Gives kopf a connection."""


class EventSink(Protocol):
    """What is told of events; kopf gives many more keyword arguments than ``event``."""

    async def on_own(self, **arguments: Any) -> None:
        """An object of ours came, changed or went."""

    async def on_child(self, **arguments: Any) -> None:
        """A child came, changed or went."""

    async def on_volume(self, **arguments: Any) -> None:
        """A PersistentVolume that is being handed over came, changed or went."""


class EndlessBackoff:
    """Seconds between attempts to reach the API server: growing to 30, with jitter, without end.

    kopf's own list ends after a minute, and the process with it; a longer brown-out is no reason to start anew.
    """

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            delay = min(30.0, delay * 2)


class NullDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: an object copied with another's annotations must be seen as what it is."""

    @override
    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was kept."""
        return None

    @override
    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """Nothing is compared: copying each object for it took 6 % of the operator's time with very many backups."""
        return kopf.BodyEssence()

    @override
    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep nothing."""


def make_settings() -> kopf.OperatorSettings:
    """Settings that leave out of kopf whatever writes to objects, and what bounds its workers."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Watching CRDs and namespaces would need rights that nothing else here needs; a restart finds new kinds.
    settings.scanning.disabled = True
    # It would kill the process, which is more than kopf's thread. What stops slowly, liveness tells.
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.idle_timeout = 0.2
    settings.persistence.diffbase_storage = NullDiffBase()
    settings.persistence.consistency_timeout = 0
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 1.0
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoff()
    for kind in CHILD_KINDS:
        settings.watching.label_selectors[f"{kind.plural}.{kind.group}" if kind.group else kind.plural] = (
            MANAGED_SELECTOR
        )
    settings.watching.label_selectors[PV.plural] = RESTORE_LABEL
    return settings


def make_registry(watch: EventSink, login: Login) -> kopf.OperatorRegistry:
    """A registry with our event handlers and our login."""
    registry = kopf.OperatorRegistry()
    for kind in OWN_KINDS.values():
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(watch.on_own)
    for kind in CHILD_KINDS:
        labels = {api_labels.MANAGED_BY_LABEL: api_labels.MANAGED_BY}
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, labels=labels)(watch.on_child)
    kopf.on.event(PV.group, PV.version, PV.plural, registry=registry, labels={RESTORE_LABEL: kopf.PRESENT})(
        watch.on_volume
    )
    kopf.on.login(registry=registry)(login)
    return registry


async def open_session(config: RestConfig, liveness: WatchLiveness) -> kopf.AiohttpSession:
    """Return a connection for kopf in the running event loop; ``liveness`` observes its watches."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context(config)),
        headers={"Authorization": f"Bearer {config.token}"} if config.token else None,
        proxy=config.proxy,
        trace_configs=[liveness.trace()],
        middlewares=[_expect_server_name(config.server_name)] if config.server_name else [],
    )
    return kopf.AiohttpSession(
        server=config.server,
        default_namespace=config.namespace,
        aiohttp_session=session,
        expiration=datetime.now(UTC) + timedelta(minutes=LOGIN_MINUTES),
    )


def _expect_server_name(name: str) -> aiohttp.ClientMiddlewareType:
    """Check the server's certificate for ``name``, which a session can only be told with each request."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.server_hostname = name
        return await handler(request)

    return send
