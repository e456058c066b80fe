"""Where the objects of a backup are, and whether that place is the present one of its store.

Only those who may change a ClusterBackupStore can move the place of a namespace (spec.formerNamespaces), or lead all
namespaces to another server. A backup that was made in the earlier place is not missing then: nothing is looked for, or
deleted, in the new one.
"""

from __future__ import annotations

import hashlib

from cinderblock.api import layout
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import TransientError
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason


def container_of(store: BackupStore, asked: str | None) -> str:
    """Return the bucket of a backup that asks for one.

    A store that namespaces share has one bucket: its credentials may be able to read others, which are not for tenants.
    """
    return store.spec.container if isinstance(store, SharedStore) else asked or store.spec.container


def place_id(store: BackupStore) -> str | None:
    """Return a digest of server and bucket of a shared store; None for a store of the namespace itself.

    A ClusterBackupStore that is created again with the same settings has the same place, so its UID does not count.
    The region decides only without an endpoint: with one, it is a word in signatures.
    """
    if not isinstance(store, SharedStore):
        return None
    return hashlib.sha256(f"{_server(store)}\n{store.spec.container}".encode()).hexdigest()[:16]


def _server(store: BackupStore) -> str:
    endpoint = store.spec.endpoint_url
    return endpoint.rstrip("/") if endpoint is not None else f"region {store.spec.region}"


def holds_container(store: BackupStore, other: BackupStore, container: str) -> bool:
    """Return whether a store has its objects in this bucket of another store, below the same prefix.

    Two names of one server count as two servers: nobody can tell them apart from a copy of the bucket.
    """
    here = _server(store), store.spec.container, store.spec.prefix
    return here == (_server(other), container, other.spec.prefix)


def is_known(store: BackupStore) -> bool:
    """Return whether the place of a store is known. The gateway cannot read the ClusterBackupStore of a BackupStore."""
    return isinstance(store, SharedStore) or not store.is_shared


def moved(store: SharedStore, backups: tuple[str, ...]) -> Fail:
    """Return why a shared store takes no new backups: some of the namespace are in another place of it."""
    listed = ", ".join(sorted(backups)[:3])
    return Fail(
        Reason.MANIFEST_MISPLACED,
        f"BackupStore {store.name} takes no new backups: the data of VolumeBackups is not in the place that it has now"
        f" ({listed}). {_remedy(store)}.",
    )


def unknown(backup: VolumeBackup, store: SharedStore) -> TransientError:
    """Return that a lost status does not say in which of two places of a shared store a backup was made."""
    return TransientError(
        f"The data of backup {backup.name} may be in another place of BackupStore {store.name}: its status was lost,"
        f" and the namespace continues an earlier one. Nothing is deleted. {_remedy(store)}.",
        reason=Reason.MANIFEST_MISPLACED,
    )


def _remedy(store: SharedStore) -> str:
    return (
        f"Ask an administrator, who finds the remedy in the condition Ready of ClusterBackupStore {store.cluster_store}"
    )


def misplaced(backup: VolumeBackup, store: BackupStore) -> TransientError | None:
    """Return why the recorded data of a backup is not in the present place of its store; None if it is, or unknown."""
    status = backup.status
    if backup.own_phase is None or status.manifest_key is None or not is_known(store):
        return None
    if layout.stored_ids(status.manifest_key, store.spec.prefix) is None:
        place = f"below prefix {store.spec.prefix!r}"
    elif status.container is not None and status.container != container_of(store, status.container):
        place = f"in container {store.spec.container}"
    elif _is_elsewhere(status.store_place, store):
        place = "on the server"
    else:
        return None
    remedy = "Create a BackupStore with the earlier prefix for it"
    if isinstance(store, SharedStore):
        remedy = _remedy(store)
    return TransientError(
        f"The data of backup {backup.name} is not {place}, where BackupStore {store.name} is now. Nothing is read or"
        f" deleted there. {remedy}.",
        reason=Reason.MANIFEST_MISPLACED,
    )


def _is_elsewhere(recorded: str | None, store: BackupStore) -> bool:
    """Return whether a backup was made on another server, whose objects are not known to be on the present one."""
    if recorded is None or not isinstance(store, SharedStore):
        return False
    return recorded != place_id(store) and recorded not in store.moved_from
