"""Continue a pass of retention that had more actions than one reconciliation executes, without reading all again.

Retention judges each volume for itself. So the next actions need all backups of their volumes, the restores and the
stores of their namespaces, and nothing else. These are read again just before the writes, like in a whole pass.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.apply_retention import CONTINUE_SECONDS, MAX_REMOVALS
from cinderblock.controller.schedules.gather import parsed_pages
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.controller.schedules.retain import is_other, retain
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.retention.judge import Volume, volume_of
from cinderblock.lifecycle.schedule.names import label_of, reference_to
from cinderblock.lifecycle.schedule.retained import Retained

MIN_RECORDS: Final = 10_000
"""Backups from which on a pass is continued. It has read 20 pages of them, and often the same number again. The next
actions need a page for each of their volumes, of which there are at most MAX_REMOVALS."""
CONTINUATION: Final = timedelta(minutes=5)
"""Longest time after a whole pass. It notices what concerns all volumes, such as a backup from the future."""
_VOLUME_ID: Final = re.compile(r"[A-Za-z0-9-]{1,63}")
"""UIDs that have no other meaning in a field selector."""


@dataclass(frozen=True, slots=True)
class WholePass:
    """A pass that has read everything.

    Attributes:
        at: its instant.
        count: number of backups that it has read.
        pause: shortest time until the next one.
    """

    at: datetime
    count: int
    pause: timedelta


@dataclass(frozen=True, slots=True)
class _Left:
    """The rest of a whole pass.

    Attributes:
        uid, generation: of the schedule.
        whole: the whole pass.
        volumes: number of actions left, by volume.
        refused: what the whole pass reported.
    """

    uid: str
    generation: int | None
    whole: WholePass
    volumes: Counter[Volume]
    refused: tuple[str, ...]

    def belongs_to(self, schedule: AnySchedule) -> bool:
        """Return whether the schedule has not changed."""
        return (self.uid, self.generation) == (schedule.uid, schedule.metadata.generation)

    def is_recent(self, now: datetime) -> bool:
        """Return whether the whole pass is so recent that it may be continued."""
        return timedelta(0) <= now - self.whole.at < CONTINUATION

    def next_volumes(self) -> list[Volume]:
        """Return the volumes of the next actions: as many as one reconciliation executes."""
        chosen: list[Volume] = []
        count = 0
        for volume in sorted(self.volumes):
            if count >= MAX_REMOVALS:
                break
            chosen.append(volume)
            count += self.volumes[volume]
        return chosen

    def after(self, chosen: Collection[Volume], found: Retained) -> _Left:
        """Return what is left after a continuation. A refusal or a failure leaves the rest to a whole pass."""
        volumes = Counter({volume: count for volume, count in self.volumes.items() if volume not in chosen})
        volumes.update(found.left)
        return replace(self, volumes=Counter() if found.refused or found.problem is not None else volumes)


@dataclass(slots=True)
class Continuations:
    """The rests of the whole passes of schedules. Without this memory, the next pass reads everything."""

    _left: dict[ObjectKey, _Left] = field(default_factory=dict)

    def forget(self, key: ObjectKey) -> None:
        """Forget what is left of a schedule, so that its next pass reads everything."""
        self._left.pop(key, None)

    def remember(self, key: ObjectKey, schedule: AnySchedule, made: Retained, whole: WholePass) -> bool:
        """Take note of the rest of a whole pass. Return whether there is something to continue.

        There is not if the pass has read few backups, or if something failed.
        """
        self.forget(key)
        volumes = Counter(volume for volume in made.left if _VOLUME_ID.fullmatch(volume[1]))
        if not volumes or whole.count < MIN_RECORDS or made.problem is not None:
            return False
        self._left[key] = _Left(schedule.uid, schedule.metadata.generation, whole, volumes, made.refused or ())
        return True

    async def run(
        self,
        context: Context,
        key: ObjectKey,
        schedule: AnySchedule,
        zone: tzinfo,
        unfinished_runs: frozenset[datetime],
    ) -> Retained | None:
        """Execute the next actions. Return None if a whole pass is needed.

        The numbers of the whole pass stay in the status: they count the actions that are left as executed.

        Raises what the API server raises.
        """
        left, now = self._left.pop(key, None), context.clock()
        if left is None or not left.belongs_to(schedule) or not left.is_recent(now):
            return None
        chosen = left.next_volumes()
        try:
            own, others = await _read(context, schedule, chosen)
        except AccessDenied:
            return None
        if own.overfull or others.overfull:
            return None
        records, known = own.records(), others.records()
        found = await retain(
            context, schedule, zone, records, context.clock(), unfinished_runs=unfinished_runs, others=known
        )
        if found is None:
            return None
        left = left.after(chosen, found)
        seconds = CONTINUE_SECONDS
        if left.volumes and left.is_recent(now + timedelta(seconds=CONTINUE_SECONDS)):
            self._left[key] = left
        else:
            seconds = max(CONTINUE_SECONDS, (left.whole.at + left.whole.pause - now).total_seconds())
        return _shown(schedule, found, left.refused, seconds)


def _shown(schedule: AnySchedule, found: Retained, refused: tuple[str, ...], seconds: float) -> Retained:
    """Return a result with the numbers and the refusals of the whole pass, and the time of the last removal."""
    status = schedule.status.retention
    if status is not None and found.status is not None:
        status = status.model_copy(update={"last_removal_time": found.status.last_removal_time})
    all_refused = (*refused, *found.refused) if found.refused is not None else None
    return Retained(status, all_refused, seconds, found.problem)


async def _read(
    context: Context, schedule: AnySchedule, volumes: Collection[Volume]
) -> tuple[RecordLimit[BackupRecord], RecordLimit[BackupRecord]]:
    """Return the backups of some volumes that the schedule made, and those that it did not make or are unfinished."""
    own: RecordLimit[BackupRecord] = RecordLimit()
    others: RecordLimit[BackupRecord] = RecordLimit()
    reference, label = reference_to(schedule), label_of(schedule.name)
    for volume in volumes:
        pages = parsed_pages(
            context, VolumeBackup, kinds.VOLUME_BACKUP, volume[0], fields=f"status.volumeId={volume[1]}"
        )
        async for page in pages:
            for backup in page:
                record = record_of(backup)
                if volume_of(record) != volume:
                    continue
                if record.schedule == reference and backup.metadata.labels.get(labels.SCHEDULE_LABEL) == label:
                    own.add(record)
                if is_other(schedule, reference, record):
                    others.add(record)
    return own, others
