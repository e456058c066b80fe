"""Changes of the status of a VolumeBackup by the report of a mover of copies."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cinderblock.api import layout
from cinderblock.api.mover import CopyResult
from cinderblock.api.v1alpha1.backup import BackupCopy, VolumeBackup
from cinderblock.api.v1alpha1.store import CopyMover
from cinderblock.errors import fail_reason


def results_by_id(results: Iterable[CopyResult]) -> dict[str, CopyResult]:
    """Return the results of a mover by the id of the backup in the store."""
    return {result.backup_id: result for result in results}


def stored_id(backup: VolumeBackup) -> str | None:
    """Return the id of a backup in its store, which may differ from that of an import; None: it has no manifest."""
    key = backup.status.manifest_key
    return layout.recorded_ids(key)[1] if key else None


def with_result(
    backup: VolumeBackup, result: CopyResult, mover: CopyMover, at: datetime, kept: Iterable[str]
) -> list[BackupCopy] | None:
    """Return status.copies of a backup with the result of a mover; None: nothing changes.

    Args:
        backup: the VolumeBackup.
        result: the result.
        mover: the mover, with the name of the store that gets the copies, and its place.
        at: when the mover ended, the same in each repetition.
        kept: names of the stores whose copies stay in the status.
    """
    before, store_name, place = backup.own_copies, mover.store_name, mover.place
    entry = BackupCopy(store_name=store_name, place=place, time=at, locked_until=result.locked_until)
    if result.reason:
        cause = fail_reason(f"{result.reason}: {result.message}")
        made = next((copy for copy in before if (copy.store_name, copy.place) == (store_name, place)), None)
        entry = made if made is not None else BackupCopy(store_name=store_name, place=place)
        entry = entry.model_copy(update={"failed_at": at, "fail_reason": cause})
    known = [copy for copy in before if copy.store_name in set(kept) and copy.store_name != store_name]
    after = sorted([*known, entry], key=lambda copy: copy.store_name)
    return after if after != before else None
