"""Write what a mover of copies reports into the status of VolumeBackups. Each write may be repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from cinderblock.api.mover import CopyResult
from cinderblock.api.v1alpha1.backup import BackupCopy, VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, CopyMover
from cinderblock.controller.context import Context
from cinderblock.controller.schedules.gather import parsed_pages
from cinderblock.errors import Conflict, NotFound
from cinderblock.kube import kinds
from cinderblock.lifecycle.copies.record import results_by_id, stored_id, with_result

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
"""Writes of one VolumeBackup that changes at the same time. If all fail, it is copied again, which sends nothing."""


async def record_results(
    context: Context, store: BackupStore, mover: CopyMover, results: Sequence[CopyResult], at: datetime
) -> None:
    """Write the results of a mover into the VolumeBackups of a store.

    Args:
        context: what to write with.
        store: the store of the backups.
        mover: what the status records about the mover: the store that got the copies, and its place.
        results: the results.
        at: when the mover ended.

    Raises what the API server raises if it does not answer.
    """
    if not results:
        return
    by_id, kept = results_by_id(results), [rule.store_name for rule in store.spec.copies]
    fields = f"status.storeName={store.name}"
    async for page in parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, store.namespace, fields=fields):
        for backup in page:
            result = by_id.get(stored_id(backup) or "")
            if result is not None and backup.is_complete:
                await _record(context, backup, partial(with_result, result=result, mover=mover, at=at, kept=kept))


async def _record(
    context: Context, backup: VolumeBackup, change: Callable[[VolumeBackup], list[BackupCopy] | None]
) -> None:
    """Write status.copies of one VolumeBackup. One that is gone needs no record."""
    found: VolumeBackup | None = backup
    for _ in range(_ATTEMPTS):
        if found is None or found.uid != backup.uid:
            return
        copies = change(found)
        if copies is None:
            return
        metadata: dict[str, Any] = {"uid": found.uid, "resourceVersion": found.metadata.resource_version}
        patch = {"metadata": metadata, "status": {"copies": [copy.to_wire() for copy in copies]}}
        try:
            await context.kube.merge_patch(
                kinds.VOLUME_BACKUP, found.name, found.namespace, patch, subresource="status"
            )
        except NotFound:
            return
        except Conflict:
            found = await context.get(VolumeBackup, kinds.VOLUME_BACKUP, backup.name, backup.namespace)
        else:
            return
    log.info("VolumeBackup %s/%s keeps changing, and its copy is recorded later", backup.namespace, backup.name)
