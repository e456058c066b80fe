"""Whether BackupGrants let another namespace restore a backup.

A grant counts for the namespaces that its status records by their UIDs. So a namespace that somebody creates with
a freed name gets nothing that its earlier owner was granted. Only the operator writes that status.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.backup_grant import BackupGrant
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import selector


class GrantState(Enum):
    """Whether a restore of a backup of another namespace is permitted."""

    NONE = auto()
    """No grant permits it."""
    PENDING = auto()
    """The operator has not accepted the present spec of a grant that permits it."""
    GRANTED = auto()
    """A grant permits it."""


def names_namespace(grant: BackupGrant, target: Object) -> bool:
    """Return whether a grant names a namespace, whichever namespace has that name now."""
    return not grant.metadata.is_being_deleted and target.name in grant.spec.to.namespaces


def applies_to(grant: BackupGrant, target: Object) -> bool:
    """Return whether a grant counts for this very namespace."""
    recorded = {(namespace.name, namespace.uid) for namespace in grant.status.namespaces}
    return names_namespace(grant, target) and grant.has_current_status and (target.name, target.uid) in recorded


def is_pending(grant: BackupGrant, target: Object) -> bool:
    """Return whether the operator has yet to find out which namespace a grant names."""
    recorded = {namespace.name for namespace in grant.status.namespaces} if grant.has_current_status else set()
    return names_namespace(grant, target) and target.name not in recorded


def covers(grant: BackupGrant, backup: VolumeBackup) -> bool:
    """Return whether a grant selects a backup of its namespace. A selector that is wrong or empty selects none."""
    if grant.namespace != backup.namespace:
        return False
    chosen = grant.spec.backups
    if chosen.all or backup.name in chosen.names:
        return True
    try:
        parsed = selector.parse(chosen.selector or {}, "spec.backups.selector")
    except InvalidInput:
        return False
    return bool(parsed.requirements) and parsed.matches(backup.metadata.labels)


def state_of(grants: Iterable[BackupGrant], target: Object, backup: VolumeBackup | None) -> GrantState:
    """Return whether grants of a namespace permit a restore.

    Args:
        grants: of the namespace of the backup.
        target: the namespace of the restore.
        backup: the backup; None: there is none.
    """
    pending = False
    for grant in grants:
        if backup is not None and covers(grant, backup) and applies_to(grant, target):
            return GrantState.GRANTED
        pending = pending or is_pending(grant, target)
    return GrantState.PENDING if pending else GrantState.NONE
