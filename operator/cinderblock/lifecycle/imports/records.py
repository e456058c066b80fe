"""The manifests of a store and the VolumeBackups of a namespace, in the small form that an import keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from sys import intern

from cinderblock.api import labels, layout
from cinderblock.api.v1alpha1.backup import ManifestMissing, VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.imports.names import import_id
from cinderblock.lifecycle.store import place
from cinderblock.reasons import AnyReason


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as a listing shows it.

    Attributes:
        key: its key.
        volume_id: the id of the volume in the key.
        size: its bytes.
        modified: when it was last written; None: not known.
    """

    key: str
    volume_id: str
    size: int = 0
    modified: datetime | None = None

    @property
    def backup_id(self) -> str:
        """The id of the backup in the key."""
        return self.key.rpartition("/")[2].removesuffix(".manifest")

    @property
    def import_id(self) -> str:
        """Id of the VolumeBackup that imports it."""
        return import_id(self.key, self.backup_id)


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """The part of a manifest that an import needs.

    Attributes:
        stored: the manifest.
        data_time: time of its data.
        name, namespace: of the VolumeBackup that it was made for; empty: none.
        volume_name: name of the claim.
        stored_bytes: bytes of the backup in the store.
    """

    stored: StoredManifest
    data_time: datetime
    name: str = ""
    namespace: str = ""
    volume_name: str = ""
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UnreadManifest:
    """A manifest that cannot be imported.

    Attributes:
        stored: the manifest.
        reason, message: why.
    """

    stored: StoredManifest
    reason: AnyReason
    message: str


@dataclass(frozen=True, slots=True)
class KnownBackup:
    """A VolumeBackup of the namespace.

    Attributes:
        name, uid, resource_version: its identity, and the version that was read.
        backup_id: its id.
        manifest: key of its manifest in this store; empty: in another one, or not known.
        has_ended: whether it was made, or failed for good.
        data_time: time of its data; None: not known.
        stored_bytes: bytes of its objects in the store.
        is_import: whether it has spec.import and is in this store.
        may_be_removed: whether it goes when its manifest is gone: the operator made it, and no person has changed its
            policy or holds it.
        is_being_deleted: whether it has a deletionTimestamp.
        missing: what earlier listings of this store lacked.
    """

    name: str
    uid: str
    resource_version: str
    backup_id: str
    manifest: str
    has_ended: bool = True
    data_time: datetime | None = None
    stored_bytes: int = 0
    is_import: bool = False
    may_be_removed: bool = False
    is_being_deleted: bool = False
    missing: ManifestMissing | None = None


def record_of(backup: VolumeBackup, store: BackupStore) -> KnownBackup:
    """Return the record of a VolumeBackup for the import of a store."""
    spec, status = backup.spec, backup.status
    is_own = backup.own_phase is not None
    key = (status.manifest_key if is_own else None) or (spec.import_.manifest if spec.import_ else None) or ""
    container = place.container_of(store, (status.container if is_own else None) or spec.container)
    is_ours = ((status.store_name if is_own else None) or spec.store_name) == store.name
    is_here = is_ours and container == store.spec.container and layout.stored_ids(key, store.spec.prefix) is not None
    is_import = spec.import_ is not None and is_here
    made_by = backup.metadata.annotations.get(labels.IMPORTED_ANNOTATION)
    return KnownBackup(
        name=backup.name,
        uid=backup.uid,
        resource_version=backup.metadata.resource_version,
        backup_id=intern(backup.backup_id),
        manifest=key if is_here else "",
        has_ended=backup.has_ended,
        data_time=status.data_timestamp if is_own else None,
        stored_bytes=(status.stored_bytes or 0) if is_own else 0,
        is_import=is_import,
        may_be_removed=is_import and made_by == store.name and backup.keeps_data and not spec.hold,
        is_being_deleted=backup.metadata.is_being_deleted,
        missing=status.manifest_missing if is_ours else None,
    )
