"""The alerts about one volume: its backups, and the proofs that they can be restored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cinderblock.api.duration import from_timedelta
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.observability.alert import Alert, AlertLimits, AlertName, Subject, alert_since
from cinderblock.observability.volume_metrics import VolumeMetrics


def of_volume(volume: VolumeMetrics, limits: AlertLimits, now: float) -> Iterator[Alert]:
    """Yield the alerts about a volume whose conditions are true.

    Args:
        volume: the times of its backups.
        limits: the limits of the rules.
        now: the present, in seconds since 1970.
    """
    if volume.has_failed:
        yield _failed(volume)
    if volume.is_incomplete:
        yield _incomplete(volume)
    yield from _stale(volume, limits, now)


def _stale(volume: VolumeMetrics, limits: AlertLimits, now: float) -> Iterator[Alert]:
    """Yield the alerts about times that are too long ago."""
    subject = _subject(volume)
    good = volume.last_success if volume.last_success is not None else volume.first_request
    if good is not None and now - good > limits.backup_age:
        yield alert_since(
            AlertName.VOLUME_BACKUP_STALE,
            subject,
            good + limits.backup_age,
            f"Volume {subject} has no good backup that is newer than {_duration(limits.backup_age)}.",
            f"Find out why its last VolumeBackups failed, or why none was created: {_get(volume, 'volumebackups')}",
        )
    verified, limit = volume.last_verified, limits.verification_age
    if verified is not None and now - verified > limit:
        yield alert_since(
            AlertName.VOLUME_VERIFICATION_STALE,
            subject,
            verified + limit,
            f"No backup of volume {subject} was verified for {_duration(limit)}.",
            f"Find out why its BackupVerifications fail, or why none was created: {_get(volume, 'bver')}",
        )
    since = volume.protected_since
    if limits.requires_verification and verified is None and since is not None and now - since > limit:
        yield alert_since(
            AlertName.VOLUME_NEVER_VERIFIED,
            subject,
            since + limit,
            f"No existing backup of volume {subject} is verified.",
            f"Create BackupVerifications for it, or find out why they fail: {_get(volume, 'bver')}",
        )
    drilled = volume.last_levels.get(VerificationLevel.RESTORE, volume.drills_since)
    if limits.drill_age is not None and drilled is not None and now - drilled > limits.drill_age:
        yield alert_since(
            AlertName.VOLUME_DRILL_STALE,
            subject,
            drilled + limits.drill_age,
            f"No backup of volume {subject} was restored in a drill for {_duration(limits.drill_age)}.",
            f"Find out why its drills fail, or why none was created: {_get(volume, 'bver')}",
        )


def _failed(volume: VolumeMetrics) -> Alert:
    cause = f": {volume.fail_reason}" if volume.fail_reason else "."
    return alert_since(
        AlertName.VOLUME_BACKUP_FAILED,
        _subject(volume),
        volume.last_failure or 0.0,
        f"The last backup of volume {_subject(volume)} failed{cause}",
        f"kubectl -n {volume.namespace} describe volumebackup {volume.failed_backup}",
    )


def _incomplete(volume: VolumeMetrics) -> Alert:
    return alert_since(
        AlertName.VOLUME_BACKUP_INCOMPLETE,
        _subject(volume),
        volume.last_incomplete or 0.0,
        f"The last backup of volume {_subject(volume)} lacks files that could not be read.",
        f"The condition Complete of the VolumeBackup names some of them: {_get(volume, 'volumebackups')}",
    )


def _subject(volume: VolumeMetrics) -> Subject:
    return Subject("PersistentVolumeClaim", volume.namespace, volume.name)


def _get(volume: VolumeMetrics, resource: str) -> str:
    return f"kubectl -n {volume.namespace} get {resource}"


def _duration(seconds: float) -> str:
    return from_timedelta(timedelta(seconds=seconds))
