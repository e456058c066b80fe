"""Find the backup that a verification is about, and what earlier verifications have read of its volume."""

from __future__ import annotations

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import BackupVerification, PartsRead, VerificationLevel
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.gather import find_claim
from cinderblock.controller.reconcile.related import find_backup, observe_backups
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup.checks import data_age_key
from cinderblock.lifecycle.verification.parts import read_of_backup, read_of_verification


async def choose_backup(context: Context, verification: BackupVerification) -> VolumeBackup | None:
    """Return the VolumeBackup of spec.backupId, or the newest available one of spec.volumeId."""
    spec, namespace = verification.spec, verification.namespace
    if spec.backup_id is not None:
        return await find_backup(context, namespace, spec.backup_id)
    return await newest_backup(context, namespace, spec.volume_id or "")


async def newest_backup(context: Context, namespace: str, volume: str) -> VolumeBackup | None:
    """Return the newest available backup of a volume, which may no longer exist.

    Args:
        context: what to read with.
        namespace: the namespace.
        volume: UID or name of the PersistentVolumeClaim.
    """
    claim = await find_claim(context, namespace, volume)
    # Without the claim, only the requests of its backups show its name.
    selectors = [f"status.volumeId={claim.uid}"] if claim else [f"status.volumeId={volume}", f"spec.volumeId={volume}"]
    newest: VolumeBackup | None = None

    def observe(backup: VolumeBackup) -> None:
        nonlocal newest
        is_available = backup.is_complete and not backup.metadata.is_being_deleted
        if is_available and (newest is None or data_age_key(backup) > data_age_key(newest)):
            newest = backup

    await observe_backups(context, namespace, selectors, observe)
    return newest


async def list_reads(context: Context, verification: BackupVerification, backup: VolumeBackup) -> tuple[PartsRead, ...]:
    """Return the latest read of the volume's data that is known, if it was divided into as many parts.

    VolumeBackups record it. If all of them are newer than that, other BackupVerifications may still show it.
    """
    parts, volume_id = verification.spec.data.parts, backup.status.volume_id
    if verification.spec.level is not VerificationLevel.DATA or parts == 1 or volume_id is None:
        return ()
    latest: PartsRead | None = None

    def observe(read: PartsRead | None) -> None:
        nonlocal latest
        if read is not None and read.parts == parts and (latest is None or read.last_at > latest.last_at):
            latest = read

    def observe_backup(other: VolumeBackup) -> None:
        if is_in_same_place(other, backup):
            observe(read_of_backup(other))

    selector = f"status.volumeId={volume_id}"
    await observe_backups(context, verification.namespace, [selector], observe_backup)
    async for page in context.kube.pages(kinds.BACKUP_VERIFICATION, verification.namespace, fields=selector):
        for other in parse_all(BackupVerification, page or []):
            if other.has_own_status:
                observe(read_of_verification(other))
    return (latest,) if latest is not None else ()


def is_in_same_place(one: VolumeBackup, other: VolumeBackup) -> bool:
    """Return whether two backups of a volume are in the same store and bucket."""
    places = [(b.own_phase is not None, b.status.store_name, b.status.container) for b in (one, other)]
    return places[0] == places[1]
