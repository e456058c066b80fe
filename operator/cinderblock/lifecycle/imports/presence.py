"""Mark and remove imported VolumeBackups whose manifest is not in the store any more.

A listing may be wrong: of another bucket, of a copy that is not complete, or of a server that has just started. So a
VolumeBackup is removed only after two listings that lack its manifest, and not if too much is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cinderblock.api.v1alpha1.backup import ManifestMissing
from cinderblock.api.v1alpha1.store import SHORTEST_IMPORT_INTERVAL, ImportMode, Inventory
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.records import KnownBackup
from cinderblock.lifecycle.imports.settings import Settings


@dataclass(frozen=True, slots=True)
class PresenceWrite:
    """A change of status.manifestMissing of a VolumeBackup.

    Attributes:
        backup: the VolumeBackup.
        missing: the value to write; None removes the field. With ``removing``, the VolumeBackup is deleted, too.
    """

    backup: KnownBackup
    missing: ManifestMissing | None


def backups_before(difference: Difference, inventory: Inventory | None, known: Sequence[KnownBackup]) -> int | None:
    """Return how many backups the store held before it lost more than half of them; None: it did not.

    Until at least half of them are there again, the number stays. Without an earlier inventory, the imported backups
    are those that the store held. They count as well while a loss lasts: a listing of another bucket may be long.
    """
    imports = sum(backup.is_import and not backup.is_being_deleted for backup in known)
    has_lost_imports = len(missing_imports(difference, known)) * 2 > imports
    if inventory is None:
        return imports if has_lost_imports else None
    before = inventory.backups if inventory.backups_before is None else inventory.backups_before
    is_lasting = inventory.backups_before is not None and has_lost_imports
    return before if difference.backups * 2 < before or is_lasting else None


def missing_imports(difference: Difference, known: Iterable[KnownBackup]) -> list[KnownBackup]:
    """Return the imported VolumeBackups whose manifest a listing lacks."""
    return [
        backup
        for backup in known
        if backup.is_import and not backup.is_being_deleted and backup.uid not in difference.present
    ]


def presence_writes(
    difference: Difference,
    known: Iterable[KnownBackup],
    settings: Settings,
    inventory: Inventory | None,
    began: datetime,
    *,
    may_remove: bool,
) -> list[PresenceWrite]:
    """Return the changes that a listing leads to.

    Args:
        difference: the listing, compared with the VolumeBackups.
        known: the VolumeBackups, as they were before the listing.
        settings: of the import. Only mode Always takes note of missing manifests, because only it lists again.
        inventory: the result of the last complete import; None: there is none.
        began: when this import began.
        may_remove: whether the listing is believed if it lacks manifests.
    """
    writes = []
    for backup in known:
        if backup.is_being_deleted or not (backup.is_import or backup.missing):
            continue
        missing = _missing(backup, difference, settings, inventory, began, may_remove=may_remove)
        if missing != backup.missing or (missing is not None and missing.removing):
            writes.append(PresenceWrite(backup, missing))
    return writes


def _missing(
    backup: KnownBackup,
    difference: Difference,
    settings: Settings,
    inventory: Inventory | None,
    began: datetime,
    *,
    may_remove: bool,
) -> ManifestMissing | None:
    """Return the value of status.manifestMissing that a listing leads to."""
    before = backup.missing
    if backup.uid in difference.present or settings.mode is not ImportMode.ALWAYS or not backup.is_import:
        return None
    if not may_remove:
        return ManifestMissing(since=before.since) if before is not None else None
    if before is None:
        return ManifestMissing(since=began)
    # The import that first lacked it is complete, so this is another listing. A change of spec.import lists again at
    # once, but a server that has just started may lack the same manifests some seconds later.
    is_complete = inventory is not None and before.since <= inventory.time
    is_second = is_complete and began - before.since >= SHORTEST_IMPORT_INTERVAL
    return ManifestMissing(since=before.since, removing=backup.may_be_removed and is_second)
