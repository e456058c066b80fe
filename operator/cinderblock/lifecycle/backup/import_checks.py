"""The checks before a backup is imported that the store already holds, in the order in which they apply.

Nothing is copied, and nothing is written to the store: the status is taken from the manifest. Messages are Cinder's
where Cinder has a message for the case (cinder/backup/api.py ``API.import_record``).
"""

from __future__ import annotations

from cinderblock.api import layout
from cinderblock.errors import SealBroken
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Fail, Verdict
from cinderblock.reasons import Reason


def id_is_free(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Backup already exists in database.`` Of two VolumeBackups with one id, the older gets it."""
    me = observed.backup
    for other in observed.siblings:
        has_id = other.spec.import_ is None or other.is_complete
        is_older = volume_lock.age_key(other) < volume_lock.age_key(me)
        if other.backup_id == me.backup_id and (has_id or is_older):
            message = f"Invalid backup: Backup already exists in database: VolumeBackup {other.name} has its id."
            return Fail(Reason.ID_TAKEN, message)
    return None


def manifest_is_below_the_prefix(observed: ObservedBackup) -> Verdict:
    """The manifest is below the prefix of the store, so that a key gives no access to other data in the container."""
    source, store = observed.backup.spec.import_, observed.store.store
    if source is None or source.manifest is None or store is None:
        return None
    if layout.stored_ids(source.manifest, store.spec.prefix) is not None:
        return None
    pattern = layout.manifest_key(store.spec.prefix, "<volume id>", "<backup id>")
    message = f"spec.import.manifest must be {pattern}, below the prefix of the BackupStore."
    return Fail(Reason.MANIFEST_MISPLACED, message)


def manifest_was_read(observed: ObservedBackup) -> Verdict:
    """The manifest exists, can be read, and belongs to the backup."""
    if isinstance(observed.manifest_error, SealBroken):
        cause = "Cannot import the backup: its store has an encryption Secret, and the backup is not encrypted."
        remedy = "If you made it without encryption yourself, set spec.import.allowUnsealed."
        return Fail(Reason.SEAL_BROKEN, f"{cause} {remedy} {observed.manifest_error.message}")
    if observed.manifest_error is not None:
        return checks.from_error(observed.manifest_error, observed.policy.deadlines)
    if observed.manifest is None:
        message = f"Cannot import backup {observed.backup.backup_id}: the store has no manifest of it. Check the id."
        return Fail(Reason.MANIFEST_MISSING, message)
    return None


IMPORT_CHECKS: tuple[checks.Check, ...] = (
    id_is_free,
    checks.store_is_usable,
    manifest_is_below_the_prefix,
    manifest_was_read,
)
