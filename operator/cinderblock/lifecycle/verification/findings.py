"""The findings of one verification, and what they say about each backup of the volume.

`summarize` is idempotent: recording the same finding again changes nothing. So the operator may die at any point
between the end of a mover and the final status of its BackupVerification, and records everything again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cinderblock.api import layout
from cinderblock.api.mover import VerifyReport
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import (
    NAMED_OBJECTS,
    BackupVerification,
    PartsRead,
    VerificationLevel,
    VerificationResult,
    VerificationSummary,
)
from cinderblock.lifecycle.actions import RecordVerification

_ORDER: Final = tuple(VerificationLevel)


@dataclass(frozen=True, slots=True)
class Finding:
    """The findings of a verification that ended with a statement.

    Attributes:
        level: its level.
        at: when the mover ended. Together with the results, it identifies the finding.
        began: when the backup was chosen. Backups that were made later may be missing from what the mover listed.
        backup_id: id in the store of the chosen backup.
        part, parts: the part that was read, at level Data.
        complete: whether the whole part was read.
        damaged: keys of some damaged or missing objects, in the bucket.
        damaged_count: their number.
        affected: ids in the store of some backups that need one of them.
        affected_count: the number of these backups.
        knows_all: whether the mover could read the manifests of all backups of the volume.
    """

    level: VerificationLevel
    at: datetime
    began: datetime
    backup_id: str
    part: int = 1
    parts: int = 1
    complete: bool = True
    damaged: tuple[str, ...] = ()
    damaged_count: int = 0
    affected: frozenset[str] = frozenset()
    affected_count: int = 0
    knows_all: bool = True

    @property
    def names_all_affected(self) -> bool:
        """Return whether every backup that needs a damaged object is named."""
        return self.affected_count <= len(self.affected)


@dataclass(frozen=True, slots=True)
class Subject:
    """A backup of the volume, as far as findings are about it.

    Attributes:
        backup_id: its id in the store.
        manifest_key: key of its manifest.
        existed: whether it was complete when the verification began.
        summary: what is known about it.
    """

    backup_id: str
    manifest_key: str
    existed: bool
    summary: VerificationSummary | None


@dataclass(frozen=True, slots=True)
class Recording:
    """The changes of VolumeBackups that follow from the findings of a mover.

    Attributes:
        finding: the findings; None: the mover reported none.
        changes: the next VolumeBackups whose status.verification changes.
        is_last: whether these are all.
        removed: ids in the store of affected backups that are being deleted. No damage is claimed about them.
    """

    finding: Finding | None
    changes: tuple[RecordVerification, ...] = ()
    is_last: bool = True
    removed: frozenset[str] = field(default_factory=frozenset)


def finding_of(
    verification: BackupVerification, report: VerifyReport, backup_id: str, store: BackupStore, at: datetime
) -> Finding:
    """Return the findings in a mover's report.

    Args:
        verification: the BackupVerification, with the recorded choice.
        report: the report.
        backup_id: id in the store of the chosen backup.
        store: the BackupStore, whose prefix the keys in the report lack.
        at: when the mover ended.
    """
    spec, prefix = verification.spec, store.spec.prefix
    return Finding(
        level=spec.level,
        at=at,
        began=verification.status.started_at or at,
        backup_id=backup_id,
        part=verification.status.part or 1,
        parts=spec.data.parts,
        complete=report.complete,
        damaged=tuple(f"{prefix}/{key}" if prefix else key for key in report.damaged),
        damaged_count=max(report.damaged_count, len(report.damaged)),
        affected=frozenset(report.affected),
        affected_count=max(report.affected_count, len(report.affected)),
        knows_all=report.unreadable_count == 0,
    )


def lost_manifest(verification: BackupVerification, backup: VolumeBackup, backup_id: str, at: datetime) -> Finding:
    """Return the finding that the store has no manifest of the chosen backup. It says nothing about other backups.

    Args:
        verification: the BackupVerification, with the recorded choice.
        backup: the chosen backup.
        backup_id: its id in the store.
        at: when the mover ended.
    """
    return Finding(
        level=VerificationLevel.STRUCTURE,
        at=at,
        began=verification.status.started_at or at,
        backup_id=backup_id,
        damaged=(backup.status.manifest_key or "",),
        damaged_count=1,
        affected=frozenset({backup_id}),
        affected_count=1,
    )


def stored_id(backup: VolumeBackup) -> str | None:
    """Return the id of a backup in the store, from the key of its manifest; None if that is not recorded."""
    key = backup.status.manifest_key
    return layout.recorded_ids(key)[1] if backup.own_phase is not None and key else None


def subject_of(backup: VolumeBackup, finding: Finding) -> Subject | None:
    """Return a backup of the volume as the subject of a finding; None if it is not complete or is being deleted."""
    backup_id, key = stored_id(backup), backup.status.manifest_key
    if backup_id is None or key is None or not backup.is_complete or backup.metadata.is_being_deleted:
        return None
    since = backup.status.completed_at or backup.metadata.creation_timestamp
    return Subject(backup_id, key, since is not None and since <= finding.began, backup.own_verification)


def change_of(backup: VolumeBackup, finding: Finding) -> RecordVerification | None:
    """Return the write that records a finding about a backup; None if the finding changes nothing."""
    subject = subject_of(backup, finding)
    summary = summarize(subject, finding) if subject is not None else None
    if summary is None:
        return None
    summary = summary.model_copy(update={"recorded_for": backup.uid})
    is_known = summary == backup.own_verification
    return None if is_known else RecordVerification(backup.name, backup.metadata.resource_version, summary)


def summarize(subject: Subject, finding: Finding) -> VerificationSummary | None:
    """Return what is known about a backup after a finding; None if the finding says nothing about it."""
    is_chosen = subject.backup_id == finding.backup_id
    if subject.backup_id in finding.affected:
        return _damaged(subject, finding)
    if not is_chosen and not finding.names_all_affected:
        return _doubted(subject, finding)
    if _began_before_damage(subject, finding):
        return None
    if is_chosen:
        return _passed(subject, finding)
    covers_others = finding.level is VerificationLevel.DATA and finding.complete and finding.knows_all
    return _read(subject, finding) if covers_others and subject.existed else None


def _began_before_damage(subject: Subject, finding: Finding) -> bool:
    """Return whether damage was found since the verification began: it may have read the objects before that."""
    known = subject.summary
    since = known.damaged_at if known is not None and known.result is VerificationResult.DAMAGED else None
    return since is not None and finding.began <= since


def _damaged(subject: Subject, finding: Finding) -> VerificationSummary:
    """Return the summary of a backup that needs a damaged object. Damage that was known before stays known."""
    before = subject.summary or VerificationSummary()
    was_damaged = before.result is VerificationResult.DAMAGED
    if was_damaged and before.last_checked_at == finding.at:
        # It is recorded already. Counting objects without names again would add them twice.
        return before
    known, counted = (before.objects, before.damaged_objects or 0) if was_damaged else ([], 0)
    found = [key for key in finding.damaged if key == subject.manifest_key or not _is_manifest(key)]
    objects = list(dict.fromkeys((*known, *found)))
    unnamed = max(0, finding.damaged_count - len(finding.damaged))
    # A new name may belong to an object that was counted without a name. So only the smallest possible number is sure.
    count = max(counted, len(objects), len(found) + unnamed)
    is_new = not was_damaged or count > counted
    levels = [finding.level, *([before.damaged_level] if was_damaged and before.damaged_level else [])]
    parts = _forgotten(before.parts, finding)
    return before.model_copy(
        update={
            "result": VerificationResult.DAMAGED,
            **_NO_LEVEL,
            "last_checked_at": finding.at,
            "coverage": None if parts is None else 0,
            "parts": parts,
            "damaged_at": finding.at if is_new else before.damaged_at,
            "damaged_level": max(levels, key=_ORDER.index),
            "damaged_objects": count,
            "objects": objects[:NAMED_OBJECTS],
            "check_failed_at": before.check_failed_at if finding.damaged_count else finding.at,
        }
    )


def _is_manifest(key: str) -> bool:
    return key.endswith(".manifest")


def _forgotten(parts: PartsRead | None, finding: Finding) -> PartsRead | None:
    """Return the parts of a damaged backup: none is read well. Which part was read last stays known."""
    if finding.level is VerificationLevel.DATA and finding.complete:
        return PartsRead(parts=finding.parts, last=finding.part, last_at=finding.at)
    return parts.model_copy(update={"read": []}) if parts is not None else None


def _doubted(subject: Subject, finding: Finding) -> VerificationSummary | None:
    """Return the summary of a backup that may be one of those that are affected and not named."""
    before = subject.summary
    if before is None or before.result is VerificationResult.DAMAGED:
        return None
    parts = _forgotten(before.parts, finding)
    return before.model_copy(
        update={
            "result": VerificationResult.UNVERIFIED,
            **_NO_LEVEL,
            "coverage": None if parts is None else 0,
            "parts": parts,
        }
    )


def _passed(subject: Subject, finding: Finding) -> VerificationSummary:
    """Return the summary of the chosen backup, in which nothing was found damaged."""
    before = subject.summary or VerificationSummary()
    if finding.level is VerificationLevel.RESTORE:
        return _sound(before, finding, VerificationLevel.RESTORE)
    level = before.level or VerificationLevel.STRUCTURE
    with_level = before.model_copy(update={"level": level, "last_checked_at": finding.at, "structure_at": finding.at})
    read = with_level
    if finding.level is VerificationLevel.DATA and finding.complete:
        read = _with_part(with_level, finding)
    return _judged(read, finding, is_chosen=True, is_manifest_damaged=False)


def _read(subject: Subject, finding: Finding) -> VerificationSummary:
    """Return the summary of another backup of the volume whose packs of one part were read well."""
    before = (subject.summary or VerificationSummary()).model_copy(update={"last_checked_at": finding.at})
    is_manifest_damaged = subject.manifest_key in before.objects
    read = _with_part(before, finding)
    return _judged(read, finding, is_chosen=False, is_manifest_damaged=is_manifest_damaged)


def _with_part(before: VerificationSummary, finding: Finding) -> VerificationSummary:
    """Add a part that was read well. If all parts of another division were read, all parts of this one were."""
    old = before.parts
    if old is not None and old.parts == finding.parts:
        read = {*old.read, finding.part}
    elif old is not None and len(old.read) == old.parts:
        read = set(range(1, finding.parts + 1))
    else:
        read = {finding.part}
    parts = PartsRead(parts=finding.parts, last=finding.part, last_at=finding.at, read=sorted(read))
    return before.model_copy(update={"parts": parts, "coverage": 100 * len(read) // finding.parts})


def _judged(
    summary: VerificationSummary, finding: Finding, *, is_chosen: bool, is_manifest_damaged: bool
) -> VerificationSummary:
    """Return the summary with its result, after parts and level have been updated.

    A damage that level Structure found is gone if the same level passes now. Any other one is gone only when everything
    has been read well since. A damaged manifest can only be judged when its own backup is chosen. A failed check stays
    until level Restore passes.
    """
    has_read = finding.level is VerificationLevel.DATA and finding.complete
    is_full = summary.coverage == 100 and summary.parts is not None and len(summary.parts.read) == summary.parts.parts
    if summary.result is VerificationResult.DAMAGED:
        found_by_structure = summary.damaged_level is VerificationLevel.STRUCTURE
        is_repaired = (has_read and is_full) or (is_chosen and found_by_structure)
        if not is_repaired or is_manifest_damaged:
            return summary.model_copy(update=_NO_LEVEL)
        if summary.check_failed_at is not None:
            # Reading the data shows that they are stored well, and not that they are right.
            return summary.model_copy(update=_NO_LEVEL | _only_failed_check(summary.check_failed_at))
        summary = summary.model_copy(update={"result": VerificationResult.UNVERIFIED} | _NO_DAMAGE)
    if not (has_read and is_full and summary.level is not None):
        return summary
    level = max(summary.level, VerificationLevel.DATA, key=_ORDER.index)
    return _sound(summary, finding, level)


_NO_LEVEL: Final[dict[str, Any]] = dict.fromkeys(("level", "structure_at", "data_at", "restored_at"))
"""The fields about levels that passed, while the result is Damaged or in doubt."""
_NO_DAMAGE: Final[dict[str, Any]] = {
    "damaged_at": None,
    "damaged_level": None,
    "damaged_objects": None,
    "objects": [],
    "check_failed_at": None,
}


def _only_failed_check(at: datetime) -> dict[str, Any]:
    """Return the fields of damage that consists of a failed check alone."""
    found = {"damaged_at": at, "damaged_level": VerificationLevel.RESTORE, "damaged_objects": 0}
    return _NO_DAMAGE | found | {"check_failed_at": at}


def _sound(summary: VerificationSummary, finding: Finding, level: VerificationLevel) -> VerificationSummary:
    found = {"result": VerificationResult.VERIFIED, "level": level}
    passed = "restored_at" if finding.level is VerificationLevel.RESTORE else "data_at"
    times = {"last_verified_at": finding.at, "last_checked_at": finding.at, passed: finding.at}
    return summary.model_copy(update=found | times | _NO_DAMAGE)


def removed_among(finding: Finding, backups: Iterable[VolumeBackup]) -> frozenset[str]:
    """Return the ids of affected backups that are being deleted."""
    deleted = (stored_id(backup) for backup in backups if backup.metadata.is_being_deleted)
    return frozenset(backup_id for backup_id in deleted if backup_id is not None and backup_id in finding.affected)


def is_damage(finding: Finding, removed: Collection[str]) -> bool:
    """Return whether a finding claims a damage. Objects of backups that are being deleted may be gone."""
    if not finding.damaged_count:
        return False
    all_removed = finding.affected_count > 0 and finding.names_all_affected and finding.affected <= set(removed)
    return not all_removed
