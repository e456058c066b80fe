"""kopf as we use it: a process shell and a watcher. No change handlers, no annotations, no finalizers of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from typing_extensions import override

from cinderblock.handlers.watch import CHILD_KINDS, MANAGED_SELECTOR, Watch
from cinderblock.kube.client import KubeClient

LOGIN_MINUTES = 10
"""kopf asks for credentials again this often: bound ServiceAccount tokens are renewed in their file meanwhile."""


class EndlessBackoff:
    """Seconds between attempts to reach the API server: growing to 30, with jitter, without end.

    kopf's own list ends after a minute, and the process with it; a longer brown-out is no reason to start anew.
    """

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            delay = min(30.0, delay * 2)


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: an object copied with another's annotations must be seen as what it is."""

    @override
    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was kept."""
        return None

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
    settings.queueing.idle_timeout = 0.2
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.consistency_timeout = 0
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoff()
    for kind in CHILD_KINDS:
        settings.watching.label_selectors[f"{kind.plural}.{kind.group}" if kind.group else kind.plural] = (
            MANAGED_SELECTOR
        )
    return settings


def make_registry(watch: Watch, kube: KubeClient) -> kopf.OperatorRegistry:
    """A registry with our event handlers and our login."""
    registry = kopf.OperatorRegistry()
    watch.register(registry)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        shown = await kube.credentials()
        return kopf.ConnectionInfo(
            server=shown.server,
            ca_data=shown.ca,
            insecure=shown.insecure,
            token=shown.token,
            certificate_data=shown.certificate,
            private_key_data=shown.private_key,
            proxy_url=shown.proxy,
            default_namespace=shown.namespace,
            expiration=datetime.now(UTC) + timedelta(minutes=LOGIN_MINUTES),
        )

    return registry
