"""Acknowledges new VolumeBackups that must wait, because the workers have too much to do.

A thousand backups created together wait minutes for the last one's turn. Without a status they would look unnoticed,
while Cinder's API answers ``creating`` at once. This is the only status written outside of the reconciler: once, for an
object that has none yet, and only over the version that was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile, zip_longest
from typing import Any, Final

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.context import Context
from cinderblock.controller.handlers.event_bridge import Event
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup

log = logging.getLogger(__name__)

ACKNOWLEDGE_AFTER_SECONDS: Final = 0.5
"""Seconds that a new backup waits before it is acknowledged. A single backup is reconciled within milliseconds."""
PERIOD_SECONDS: Final = 0.25
"""Seconds between two searches for waiting backups."""
ACKNOWLEDGED_PER_PERIOD: Final = 16
"""Concurrent writes, as many as there are workers: while very many backups are created, these have priority."""
KEPT_PER_NAMESPACE: Final = 1000
"""New backups of a namespace that are kept until they are acknowledged. Others get a status when they are reconciled.
One has up to 70 KiB of names and metadata."""


class Acknowledger:
    """Remembers new VolumeBackups until they have a status.

    Args:
        queue: tells which of them wait.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._new: dict[str, dict[ObjectKey, tuple[float, Mapping[str, Any]]]] = {}
        """By namespace, each with the instant and the object, oldest first."""

    def observe(self, event: Event) -> None:
        """Take note of an event about a custom resource."""
        body = event["object"]
        if body["kind"] != kinds.VOLUME_BACKUP.kind:
            return
        key = ObjectKey(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        # A new object has a status, too: the default of the definition, without a phase.
        if event["type"] == "DELETED" or (body.get("status") or {}).get("phase"):
            self._pop(key)
            return
        new = self._new.setdefault(key.namespace, {})
        if key in new or len(new) < KEPT_PER_NAMESPACE:
            since, _ = new.get(key, (asyncio.get_running_loop().time(), None))
            new[key] = since, body

    async def run(self, context: Context) -> None:
        """Acknowledge waiting backups, forever."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            while keys := self._waiting():
                await asyncio.gather(*(self.acknowledge(context, key) for key in keys))

    def _waiting(self) -> list[ObjectKey]:
        """Return the backups that have waited too long, and not more than may be written at once.

        Namespaces take turns, and the oldest backup of a namespace comes first.
        """
        turns = (self._waiting_in(new) for new in self._new.values())
        in_turns = (key for turn in zip_longest(*turns) for key in turn if key is not None)
        return list(islice(in_turns, ACKNOWLEDGED_PER_PERIOD))

    def _waiting_in(self, new: Mapping[ObjectKey, tuple[float, Mapping[str, Any]]]) -> Iterator[ObjectKey]:
        now = asyncio.get_running_loop().time()
        old = takewhile(lambda entry: now - entry[1][0] >= ACKNOWLEDGE_AFTER_SECONDS, new.items())
        return (key for key, _ in old if self._queue.is_waiting(key))

    def _pop(self, key: ObjectKey) -> Mapping[str, Any] | None:
        new = self._new.get(key.namespace, {})
        _, body = new.pop(key, (0.0, None))
        if not new:
            self._new.pop(key.namespace, None)
        return body

    async def acknowledge(self, context: Context, key: ObjectKey) -> None:
        """Write the first status of a backup, if it is new and has not changed. A failure is only logged."""
        body = self._pop(key)
        if body is None:
            return
        try:
            backup = VolumeBackup.model_validate(body)
        except ValidationError:
            return
        waiting = self._queue.counts()["due"]
        status = backup_decide.acknowledge(ObservedBackup(backup, context.policy), waiting, context.clock())
        if status is None:
            return
        try:
            await context.kube.apply_status(
                kinds.VOLUME_BACKUP,
                backup.name,
                backup.namespace,
                status.to_wire(),
                uid=backup.uid,
                resource_version=backup.metadata.resource_version,
            )
        except CinderblockError as error:
            log.info("Could not acknowledge VolumeBackup %s/%s: %s", backup.namespace, backup.name, error.message)
