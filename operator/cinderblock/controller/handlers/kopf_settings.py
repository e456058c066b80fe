"""Settings that reduce kopf to a watcher: no change handlers, annotations or finalizers of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import kopf
from typing_extensions import override

from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.controller.handlers.event_handler import CHILD_KINDS, MANAGED_SELECTOR
from cinderblock.kube.kinds import PV, PVC


class EndlessBackoff:
    """Seconds between attempts to reach the API server: up to 30, with jitter, without end.

    kopf's own list ends after a minute, and the process with it. A longer outage must not cause a restart.
    """

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            delay = min(30.0, delay * 2)


class NullDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing, so that an object copied together with its annotations is not mistaken for the original."""

    @override
    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return None: nothing is kept."""
        return None

    @override
    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """Return nothing to compare: copying each object took 6 % of the operator's time with very many backups."""
        return kopf.BodyEssence()

    @override
    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep nothing."""


def make_settings(*, populates: bool) -> kopf.OperatorSettings:
    """Return settings that keep kopf from writing to objects and bound its workers.

    Args:
        populates: whether claims of users are watched, which lack our label. `watch_filter` drops most of them.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Watching CRDs and namespaces would need rights that nothing else needs. `WatchManager` finds new kinds.
    settings.scanning.disabled = True
    # kopf would kill the whole process. The liveness probe reports what does not stop.
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
    for kind in (kind for kind in CHILD_KINDS if kind != PVC or not populates):
        settings.watching.label_selectors[f"{kind.plural}.{kind.group}" if kind.group else kind.plural] = (
            MANAGED_SELECTOR
        )
    settings.watching.label_selectors[PV.plural] = RESTORE_LABEL
    return settings
