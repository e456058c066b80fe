"""Read which VolumeBackups the findings of a mover change, a bounded number at a time."""

from __future__ import annotations

from functools import partial
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import choose_store
from cinderblock.controller.reconcile.related import observe_backups
from cinderblock.controller.verifications.choose import is_in_same_place
from cinderblock.kube import kinds
from cinderblock.lifecycle.actions import RecordVerification
from cinderblock.lifecycle.observed import ObservedMover
from cinderblock.lifecycle.verification import outcome
from cinderblock.lifecycle.verification.findings import (
    Finding,
    Recording,
    change_of,
    finding_of,
    lost_manifest,
    removed_among,
    stored_id,
)

MAX_CHANGES: Final = 50
"""VolumeBackups that one reconciliation writes. At 5 ms each, other objects of the worker wait a quarter of a
second. The next reconciliation continues."""


async def read_findings(
    context: Context, verification: BackupVerification, mover: ObservedMover, chosen: VolumeBackup | None
) -> Recording:
    """Return what the findings of a mover that has ended change.

    Args:
        context: what to read with.
        verification: the BackupVerification.
        mover: its mover.
        chosen: the present state of the chosen backup; None: it no longer exists.
    """
    chosen_id = (stored_id(chosen) if chosen is not None else None) or verification.status.backup_id or ""
    finding = await _finding(context, verification, mover, chosen, chosen_id)
    if finding is None:
        return Recording(None)
    known = await _known_changes(context, verification, finding, chosen)
    if known:
        return Recording(finding, known, is_last=False)
    changes = _Changes(finding, chosen)
    if finding.level is VerificationLevel.DATA or finding.affected_count:
        selector = f"status.volumeId={verification.status.volume_id}"
        await observe_backups(context, verification.namespace, [selector], changes.observe)
    elif chosen is not None:
        changes.observe(chosen)
    context.pending_records.keep(verification.uid, changes.others)
    return changes.recording()


async def _known_changes(
    context: Context, verification: BackupVerification, finding: Finding, chosen: VolumeBackup | None
) -> tuple[RecordVerification, ...]:
    """Return the next changes of VolumeBackups that an earlier reconciliation has found; empty: there are none.

    A VolumeBackup whose change fails, or that changes meanwhile, is found when all of them are read at the end.
    """
    while names := context.pending_records.take(verification.uid, MAX_CHANGES):
        get = partial(context.get, VolumeBackup, kinds.VOLUME_BACKUP, namespace=verification.namespace)
        backups = [backup for name in names if (backup := await get(name=name)) is not None]
        known = _Changes(finding, chosen)
        for backup in backups:
            known.observe(backup)
        if found := known.recording().changes:
            return found
    return ()


async def _finding(
    context: Context,
    verification: BackupVerification,
    mover: ObservedMover,
    chosen: VolumeBackup | None,
    chosen_id: str,
) -> Finding | None:
    at = outcome.ended_at(mover) or verification.status.started_at or context.clock()
    if outcome.lacks_manifest(mover):
        is_there = chosen is not None and not chosen.metadata.is_being_deleted
        return lost_manifest(verification, chosen, chosen_id, at) if chosen is not None and is_there else None
    report, store = outcome.report_of(mover), await _store(context, verification)
    return finding_of(verification, report, chosen_id, store, at) if report is not None and store is not None else None


async def _store(context: Context, verification: BackupVerification) -> BackupStore | None:
    mover = verification.status.mover
    name = mover.store_name if mover is not None else None
    return (await choose_store(context, verification.namespace, name)).store if name else None


class _Changes:
    """Collects the changes of VolumeBackups. It keeps the names of those that one reconciliation does not write.

    Attributes:
        others: these names.
    """

    def __init__(self, finding: Finding, chosen: VolumeBackup | None) -> None:
        self._finding = finding
        self._chosen = chosen
        self._changes: list[RecordVerification] = []
        self.others: list[str] = []
        # A backup whose VolumeBackup is gone was deleted, and its objects with it.
        self._removed = frozenset[str]() if chosen is not None else frozenset({finding.backup_id})

    def observe(self, backup: VolumeBackup) -> None:
        if self._chosen is not None and not is_in_same_place(backup, self._chosen):
            return
        self._removed |= removed_among(self._finding, [backup])
        change = change_of(backup, self._finding)
        if change is None:
            return
        if len(self._changes) < MAX_CHANGES:
            self._changes.append(change)
        else:
            self.others.append(backup.name)

    def recording(self) -> Recording:
        return Recording(self._finding, tuple(self._changes), not self.others, self._removed)
