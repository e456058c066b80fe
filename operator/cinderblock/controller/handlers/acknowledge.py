"""Tells new backups that they were noticed, when there is so much to do that nobody can look at them soon.

A thousand backups that are asked for at once wait for minutes until the last of them has its turn. Without a status it
would look as if nobody had seen them; Cinder's API answers ``creating`` at once. It is one write more, made only for
those that have waited for a moment already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup

log = logging.getLogger(__name__)

ACKNOWLEDGE_AFTER_SECONDS: Final = 0.5
"""Seconds that a new backup waits before it is told: one that comes alone is looked at within milliseconds."""
PERIOD_SECONDS: Final = 0.25
"""Seconds between two looks at who waits."""
ACKNOWLEDGED_PER_PERIOD: Final = 16
"""Writes at a time, as many as there are workers: while very many backups are being asked for, these come first."""


class Acknowledger:
    """Remembers the new backups that were heard of, until something is known of them.

    Args:
        queue: says which of them wait.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._new: dict[ObjectKey, tuple[float, Mapping[str, Any]]] = {}

    def observe(self, event: Mapping[str, Any]) -> None:
        """An object of ours came, changed or went."""
        body = event["object"]
        if body["kind"] != kinds.VOLUME_BACKUP.kind:
            return
        key = ObjectKey(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        # A new object has a status as well: the definition's default, which says that nothing has been said.
        if event["type"] == "DELETED" or (body.get("status") or {}).get("phase"):
            self._new.pop(key, None)
        else:
            since, _ = self._new.get(key, (asyncio.get_running_loop().time(), None))
            self._new[key] = since, body

    async def run(self, context: Context) -> None:
        """Tell those that wait, for ever."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            while told := self._waiting():
                await asyncio.gather(*(self.acknowledge(context, key) for key in told))

    def _waiting(self) -> list[ObjectKey]:
        """Who has waited for longer than it should, those first that came first; not more than can be told at once."""
        now = asyncio.get_running_loop().time()
        found: list[ObjectKey] = []
        for key, (since, _) in self._new.items():
            if now - since < ACKNOWLEDGE_AFTER_SECONDS or len(found) == ACKNOWLEDGED_PER_PERIOD:
                break
            if self._queue.is_waiting(key):
                found.append(key)
        return found

    async def acknowledge(self, context: Context, key: ObjectKey) -> None:
        """Write it, if the object is new and has not changed since. Whoever looks at it later does not depend on it."""
        _, body = self._new.pop(key, (0.0, None))
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
            log.info("VolumeBackup %s/%s was not told to wait: %s", backup.namespace, backup.name, error.message)
