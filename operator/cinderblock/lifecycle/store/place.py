"""Where the objects of a backup are, and whether that place is the present one of its store.

Only those who may change a ClusterBackupStore can move the place of a namespace (spec.formerNamespaces). A backup that
was made in the earlier place is not missing then: nothing is looked for, or deleted, in the new one.
"""

from __future__ import annotations

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import TransientError
from cinderblock.reasons import Reason


def container_of(store: BackupStore, asked: str | None) -> str:
    """Return the bucket of a backup that asks for one.

    A store that namespaces share has one bucket: its credentials may be able to read others, which are not for tenants.
    """
    return store.spec.container if isinstance(store, SharedStore) else asked or store.spec.container


def is_known(store: BackupStore) -> bool:
    """Return whether the place of a store is known. The gateway cannot read the ClusterBackupStore of a BackupStore."""
    return isinstance(store, SharedStore) or not store.is_shared


def misplaced(backup: VolumeBackup, store: BackupStore) -> TransientError | None:
    """Return why the recorded data of a backup is not in the present place of its store; None if it is, or unknown."""
    status = backup.status
    if backup.own_phase is None or status.manifest_key is None or not is_known(store):
        return None
    if layout.stored_ids(status.manifest_key, store.spec.prefix) is None:
        place = f"below prefix {store.spec.prefix!r}"
    elif status.container is not None and status.container != container_of(store, status.container):
        place = f"in container {store.spec.container}"
    else:
        return None
    remedy = "Create a BackupStore with the earlier prefix for it"
    if isinstance(store, SharedStore):
        remedy = f"Ask an administrator to correct spec.formerNamespaces of ClusterBackupStore {store.cluster_store}"
    return TransientError(
        f"The data of backup {backup.name} is not {place}, where BackupStore {store.name} is now. Nothing is read or"
        f" deleted there. {remedy}.",
        reason=Reason.MANIFEST_MISPLACED,
    )
