"""The part of a volume's data that level Data reads next: the one that was read least recently.

Parts are read one after the other. So the part after the last one that was read completely is the one that was read
least recently, and a verification that was missed, failed or ended early skips nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import BackupVerification, PartsRead, VerificationLevel, VerificationPhase


def next_part(parts: int, reads: Iterable[PartsRead], now: datetime) -> int:
    """Return the part to read, from 1 to ``parts``.

    If nothing is known about the volume, the date decides. So parts follow one another even if every backup, and with
    it what is known, is replaced before the next verification.
    """
    known = [read for read in reads if read.parts == parts]
    if known:
        return max(known, key=lambda read: (read.last_at, read.last)).last % parts + 1
    return now.astimezone(UTC).date().toordinal() % parts + 1


def read_of_backup(backup: VolumeBackup) -> PartsRead | None:
    """Return which parts a VolumeBackup records as read."""
    summary = backup.own_verification
    return summary.parts if summary is not None else None


def read_of_verification(verification: BackupVerification) -> PartsRead | None:
    """Return which part an earlier verification has read completely; None if it has not."""
    status, phase = verification.status, verification.own_phase
    has_read = phase in (VerificationPhase.VERIFIED, VerificationPhase.DAMAGED) and status.complete
    if not has_read or status.part is None or status.completed_at is None:
        return None
    if verification.spec.level is not VerificationLevel.DATA or status.part > verification.spec.data.parts:
        return None
    return PartsRead(parts=verification.spec.data.parts, last=status.part, last_at=status.completed_at)
