"""Read what ends the failures of a schedule between its runs: newer backups, deleted volumes, and volumes to select."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.schedule import FailingVolume
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.gather import parsed_pages, read_claims, read_lacking
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup_record import record_of
from cinderblock.lifecycle.schedule import review
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.review import Findings
from cinderblock.lifecycle.schedule.settings import Settings
from cinderblock.lifecycle.schedule.volumes import record_of_claim


class Reviewer:
    """Reviews schedules between their runs. It only remembers when the next review and the next search are due."""

    def __init__(self) -> None:
        self._next: dict[ObjectKey, datetime] = {}
        self._searches: dict[ObjectKey, tuple[datetime, datetime]] = {}
        """The time of the last search for failing volumes without a name, and the earliest time of the next one."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule that no longer exists."""
        self._next.pop(key, None)
        self._searches.pop(key, None)

    async def find(
        self, context: Context, key: ObjectKey, observed: ObservedSchedule, now: datetime, *, readers: asyncio.Semaphore
    ) -> Findings:
        """Return what has changed since the last run, and when the next review is due.

        Raises what the API server raises.
        """
        schedule = observed.schedule
        run = schedule.status.last_run
        if not review.is_needed(schedule, schedule.status, observed.settings):
            self.forget(key)
            return review.NOTHING
        due = self._next.get(key, now)
        if now < due <= now + review.REVIEW:
            return Findings(seconds=(due - now).total_seconds())
        selected = None
        if review.selects_nothing(schedule.status, observed.settings):
            async with readers:
                claims = await read_claims(context, observed)
            selected = sum(observed.settings.selection.selects(claim, now) for claim in claims)
        named = review.failing_volumes(schedule.status)
        settings = observed.settings
        settled = [volume for volume in named if run and await _is_settled(context, settings, volume, run.time, now)]
        lacking = await self._count_lacking(context, key, observed, now, readers) if run else None
        self._next[key] = now + review.REVIEW
        found = frozenset((volume.namespace, volume.volume or "") for volume in settled)
        return Findings(found, lacking, selected)

    async def _count_lacking(
        self, context: Context, key: ObjectKey, observed: ObservedSchedule, now: datetime, readers: asyncio.Semaphore
    ) -> int | None:
        """Return how many volumes that the status does not name lack a backup since the last run; None: not known.

        Nobody has recorded which of them were failing. So the others count that have no newer backup.
        """
        status = observed.schedule.status
        last, earliest = self._searches.get(key, (now, now))
        if status.last_run is None or not review.has_unnamed(status) or last <= now < earliest:
            return None
        try:
            async with readers:
                lacking = await read_lacking(context, observed, status.last_run.time, now)
        except AccessDenied:
            return None
        self._searches[key] = now, now + review.search_interval(lacking.count)
        named = {(volume.namespace, volume.volume) for volume in status.failing}
        return len(lacking.volumes - named) if lacking.volumes is not None else None


async def _is_settled(
    context: Context, settings: Settings, volume: FailingVolume, run: datetime, now: datetime
) -> bool:
    """Return whether a volume is gone or not selected now, or has a backup that is newer than a run.

    It does not matter who made the backup.
    """
    try:
        claim = await context.get(PersistentVolumeClaim, kinds.PVC, volume.volume or "", volume.namespace)
        if claim is None or not _selects(settings, claim, now):
            return True
        fields = f"status.volumeId={claim.uid}"
        pages = parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, volume.namespace, fields=fields)
        async with aclosing(pages) as found:
            async for page in found:
                if any(review.is_newer(record_of(backup), run) for backup in page):
                    return True
    except AccessDenied:
        pass
    return False


def _selects(settings: Settings, claim: PersistentVolumeClaim, now: datetime) -> bool:
    return settings.claims.matches(claim.metadata.labels) and settings.selection.selects(record_of_claim(claim), now)
