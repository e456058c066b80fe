"""The observed state of a claim whose dataSourceRef names one of our kinds."""

from __future__ import annotations

from dataclasses import dataclass, field

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.populate.choice import Outcome


@dataclass(frozen=True, slots=True)
class ObservedClaim:
    """The observed state of a claim that asks for its content.

    Attributes:
        claim: the claim.
        volume: the PersistentVolume that its spec names.
        storage_class: its StorageClass; None: it names none, or one that does not exist.
        restore: the VolumeRestore with the name of its restore.
        backup: the VolumeBackup that it names, or that has the chosen backup.
        source: the RestoreSource that it names.
        store: the BackupStore of that.
        outcome: the result of the look into the store; None: nobody has looked.
        has_other_backup: whether ``backup`` has the id of the chosen backup, and other data.
    """

    claim: PersistentVolumeClaim
    volume: PersistentVolume | None = None
    storage_class: StorageClass | None = None
    restore: VolumeRestore | None = None
    backup: VolumeBackup | None = None
    source: RestoreSource | None = None
    store: StoreLookup = field(default_factory=StoreLookup)
    outcome: Outcome | None = None
    has_other_backup: bool = False

    @property
    def waits_for_node(self) -> bool:
        """Return whether its class binds late and the scheduler has chosen no node yet."""
        is_late = self.storage_class is not None and self.storage_class.binds_late
        return is_late and not self.claim.selected_node
