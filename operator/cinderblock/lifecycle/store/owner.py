"""The owner of a store: what its marker means for this cluster.

A store that this cluster has used before never stops taking backups because of a marker: keys contain UIDs, so two
clusters overwrite nothing of each other. A new store in a place of another cluster is a mistake in most cases.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.owner import RELEASE_PATTERN, OwnerMarker
from cinderblock.api.v1alpha1.store import BackupStore, OwnerState, StoreAccess, StoreOwner
from cinderblock.errors import CinderblockError, StoreReadOnly, TransientError
from cinderblock.lifecycle import conditions
from cinderblock.reasons import Reason

_EPOCH_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class ObservedOwner:
    """The owner of a store, as it was read.

    Attributes:
        cluster: UID of this cluster.
        marker: the marker; None: there is none, or it could not be read.
        error: why it could not be read or written; None: it could.
        has_own_backups: whether VolumeBackups exist that this cluster has made in the store. It counts only for the
            marker of another cluster.
    """

    cluster: str
    marker: OwnerMarker | None = None
    error: CinderblockError | None = None
    has_own_backups: bool = False


def first_marker(cluster: str, release: str, seed: str, now: datetime) -> OwnerMarker:
    """Return the marker of a store without one.

    Args:
        cluster: UID of this cluster.
        release: name of the Helm release.
        seed: text from which the epoch is made; another one gives another epoch.
        now: the present.
    """
    return _marker(cluster, release, _epoch(cluster, seed), now)


def takes_over(store: BackupStore, marker: OwnerMarker, cluster: str) -> bool:
    """Return whether a person wants this cluster to replace a marker. An epoch of the past has no effect."""
    is_writable = store.spec.access is StoreAccess.READ_WRITE
    return is_writable and marker.cluster != cluster and store.spec.take_over == marker.epoch


def next_marker(marker: OwnerMarker, cluster: str, release: str, now: datetime) -> OwnerMarker:
    """Return the marker that replaces the one of another cluster. Its epoch follows from both."""
    return _marker(cluster, release, _epoch(cluster, marker.epoch), now)


def status_of(store: BackupStore, observed: ObservedOwner | None) -> StoreOwner | None:
    """Return status.owner. It stays as it was if the marker was not read."""
    before = store.status.owner
    if observed is None or observed.error is not None:
        return before
    marker = observed.marker
    if marker is None:
        return None
    is_foreign = marker.cluster != observed.cluster
    was_used = before is not None and before.state is not OwnerState.FOREIGN
    state = OwnerState.OWN
    if is_foreign:
        state = OwnerState.DISPUTED if was_used or observed.has_own_backups else OwnerState.FOREIGN
    return StoreOwner(
        cluster=marker.cluster, release=marker.release, since=marker.since, epoch=marker.epoch, state=state
    )


def refusal(store: BackupStore, owner: StoreOwner) -> StoreReadOnly:
    """Return the error of a change of a store that another cluster owns."""
    return StoreReadOnly(
        f"{described(owner)} owns the place of BackupStore {store.name}, so nothing is changed there. To make"
        " backups, create a BackupStore with another prefix. To only read, set spec.access to ReadOnly. If that cluster"
        f" is lost, or no longer uses the place, set spec.takeOver to {owner.epoch!r}."
    )


def held_deletion(store: BackupStore, owner: OwnerMarker | StoreOwner) -> StoreReadOnly:
    """Return the error of the deletion of data that this cluster has not made, in a place of another cluster."""
    return StoreReadOnly(
        f"Cluster {owner.cluster} owns the place of BackupStore {store.name}, and this cluster has only imported the"
        f" backup. Delete it there. Or, if that cluster is lost, set spec.takeOver to {owner.epoch!r}.",
        reason=Reason.FOREIGN_OWNER,
    )


def described(owner: StoreOwner) -> str:
    """Return the owner, for people."""
    release = f", release {owner.release}" if owner.release else ""
    return f"Cluster {owner.cluster}{release}, since {owner.since:%Y-%m-%dT%H:%M:%SZ},"


def with_owner(
    shown: list[Condition], store: BackupStore, observed: ObservedOwner | None, owner: StoreOwner | None, now: datetime
) -> list[Condition]:
    """Return the conditions with ForeignOwner, if another cluster owns a store that this one writes to all the same.

    If this one changes nothing, the condition Ready says so.
    """
    kind, generation = ConditionType.FOREIGN_OWNER, store.metadata.generation
    if store.spec.access is StoreAccess.READ_ONLY or observed is None:
        return conditions.without(shown, kind)
    error = observed.error
    if isinstance(error, TransientError):
        return shown
    if error is not None:
        message = f"The owner of the place is not known, and backups continue. {error.message}"
        return conditions.with_lasting(
            shown, now, generation, kind=kind, status="Unknown", reason=error.reason, message=message
        )
    if owner is None or owner.state is not OwnerState.DISPUTED:
        return conditions.without(shown, kind)
    message = (
        f"{described(owner)} owns the place of BackupStore {store.name}, and this cluster has used it, too. Both"
        " continue, but this one deletes no data of backups that it has only imported. Give each cluster a prefix of"
        " its own. If this one only reads, set spec.access to ReadOnly. If that cluster is lost, set spec.takeOver to"
        f" {owner.epoch!r}."
    )
    return conditions.with_lasting(
        shown, now, generation, kind=kind, status="True", reason=Reason.FOREIGN_OWNER, message=message
    )


def _marker(cluster: str, release: str, epoch: str, now: datetime) -> OwnerMarker:
    """Return a marker. An operator that Helm has not installed may have a name that markers cannot contain."""
    shown = release if RELEASE_PATTERN.fullmatch(release) else ""
    return OwnerMarker(cluster=cluster, release=shown, epoch=epoch, since=now.replace(microsecond=0))


def _epoch(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:_EPOCH_CHARACTERS]
