"""Imports and restores that earlier runs, and others, have begun: the state from which a recovery continues."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, KubeClient


@dataclass(slots=True)
class Existing:
    """Objects of one namespace.

    Attributes:
        backups: VolumeBackups by the id of the backup: of several, a complete one, or else one that has not failed.
        restores: the VolumeRestore that creates a claim, by the name of the claim: of several, the newest that has not
            failed.
    """

    backups: dict[str, VolumeBackup] = field(default_factory=dict)
    restores: dict[str, VolumeRestore] = field(default_factory=dict)

    def add_backup(self, body: JsonObject, ids: Collection[str]) -> None:
        """Add a VolumeBackup if it has one of these ids."""
        try:
            backup = VolumeBackup.model_validate(body)
        except ValidationError:
            return
        if backup.backup_id not in ids:
            return
        known = self.backups.get(backup.backup_id)
        if known is None or _state(backup) > _state(known):
            self.backups[backup.backup_id] = backup

    def add_restore(self, body: JsonObject, claims: Collection[str]) -> None:
        """Add a VolumeRestore if it creates one of these claims."""
        try:
            restore = VolumeRestore.model_validate(body)
        except ValidationError:
            return
        name = restore.spec.name
        if name not in claims or name is None or restore.spec.volume_id is not None:
            return
        known = self.restores.get(name)
        if known is None or _rank(restore) > _rank(known):
            self.restores[name] = restore


async def read_existing(kube: KubeClient, namespace: str, ids: Collection[str], claims: Collection[str]) -> Existing:
    """Read a namespace page by page, and keep what concerns these backups and claims."""
    found = Existing()
    async for page in kube.pages(kinds.VOLUME_BACKUP, namespace):
        for body in page or ():
            found.add_backup(body, ids)
    async for page in kube.pages(kinds.VOLUME_RESTORE, namespace):
        for body in page or ():
            found.add_restore(body, claims)
    return found


def _state(backup: VolumeBackup) -> tuple[bool, bool]:
    return backup.is_complete, not backup.has_ended


def _rank(restore: VolumeRestore) -> tuple[bool, float]:
    created = restore.metadata.creation_timestamp
    return restore.own_phase is not RestorePhase.ERROR_RESTORING, created.timestamp() if created else 0.0
