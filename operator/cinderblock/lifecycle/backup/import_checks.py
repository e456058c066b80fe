"""The rules for adopting a backup that is in the store already, in the order in which they are asked.

Nothing is copied and nothing is written to the store: what the manifest says becomes the status. Messages are Cinder's
where Cinder has words for the case (cinder/backup/api.py ``API.import_record``).
"""

from __future__ import annotations

from cinderblock.api import layout
from cinderblock.errors import SealBroken
from cinderblock.lifecycle import volume_lock
from cinderblock.lifecycle.backup import checks
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Fail, Verdict


def id_is_free(observed: ObservedBackup) -> Verdict:
    """Cinder: ``Backup already exists in database.`` Of two that ask for one id, the older gets it."""
    me = observed.backup
    for other in observed.siblings:
        first = other.spec.import_ is None or volume_lock.own_phase(other) in checks.WHOLE
        older = volume_lock.age_key(other) < volume_lock.age_key(me)
        if other.backup_id == me.backup_id and (first or older):
            return Fail(
                "IdTaken", f"Invalid backup: Backup already exists in database: VolumeBackup {other.name} has its id."
            )
    return None


def manifest_is_below_the_prefix(observed: ObservedBackup) -> Verdict:
    """A store's prefix is a fence: nobody gets at what is beside it through a key of theirs."""
    asked, store = observed.backup.spec.import_, observed.store.store
    if asked is None or asked.manifest is None or store is None:
        return None
    if layout.stored_ids(asked.manifest, store.spec.prefix) is not None:
        return None
    wanted = layout.manifest_key(store.spec.prefix, "<volume id>", "<backup id>")
    return Fail("ManifestMisplaced", f"spec.import.manifest must be {wanted}, below the prefix of the BackupStore.")


def manifest_was_read(observed: ObservedBackup) -> Verdict:
    """A backup cannot be adopted if its manifest is missing, cannot be read, or belongs to another key."""
    if isinstance(observed.manifest_error, SealBroken):
        cause = "Cannot adopt the backup: its store has an encryption Secret, and the backup is not encrypted."
        remedy = "If you made it without encryption yourself, set spec.import.allowUnsealed."
        return Fail("SealBroken", f"{cause} {remedy} {observed.manifest_error.message}")
    if observed.manifest_error is not None:
        return checks.from_error(observed.manifest_error, observed.policy.deadlines)
    if observed.manifest is None:
        return Fail("ManifestMissing", f"The store has no manifest of backup {observed.backup.backup_id}.")
    return None


IMPORT_CHECKS: tuple[checks.Check, ...] = (
    id_is_free,
    checks.store_is_usable,
    manifest_is_below_the_prefix,
    manifest_was_read,
)
