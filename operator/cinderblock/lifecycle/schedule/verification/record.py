"""The part of a BackupVerification that a schedule needs, small enough for tens of thousands of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern

from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel, VerificationPhase


@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """One BackupVerification.

    Attributes:
        namespace, name, uid: its identity.
        resource_version: the version that was read.
        level: its level.
        volume_id: UID of the claim that it was requested for; empty: it was requested for a backup.
        created: when it was created.
        phase: the phase of its own status; None: it has none yet.
        is_being_deleted: whether it has a deletionTimestamp.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    level: VerificationLevel
    volume_id: str
    created: datetime
    phase: VerificationPhase | None
    is_being_deleted: bool = False

    @property
    def has_ended(self) -> bool:
        """Return whether the verification has ended."""
        return self.phase is not None and self.phase.is_final


def record_of_verification(verification: BackupVerification) -> VerificationRecord:
    """Return the record of a BackupVerification. A status that was copied from another object counts as none."""
    metadata, status = verification.metadata, verification.status
    return VerificationRecord(
        namespace=intern(verification.namespace),
        name=verification.name,
        uid=verification.uid,
        resource_version=metadata.resource_version,
        level=verification.spec.level,
        volume_id=intern(verification.spec.volume_id or ""),
        created=metadata.creation_timestamp or datetime.fromtimestamp(0, UTC),
        phase=status.phase if status.id == verification.uid else None,
        is_being_deleted=metadata.is_being_deleted,
    )
