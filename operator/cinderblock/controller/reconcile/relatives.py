"""Which operations of a namespace matter to a decision, chosen one by one, so that the others need not be in memory.

A namespace may have any number of operations on one volume. A few of those with the same effect on a decision are
enough. The functions of the decision tell which have an effect.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Final, Generic, TypeVar

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.lifecycle import dependents, volume_lock
from cinderblock.lifecycle.alarms import condition, stats
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import damage, delete, derived, expiry, import_checks
from cinderblock.lifecycle.observed import ExpiredSibling, ObservedBackup, ObservedRestore, OperatorPolicy
from cinderblock.lifecycle.restore import checks as restore_checks

KEPT_OF_A_GROUP: Final = 20
"""Operations that are kept of those with the same effect. Messages name at most ten."""

_RANKS: Final = ("id", "uid", "unfinished id", "failed id", "name")
"""How a VolumeBackup matches a reference, the best first."""

T = TypeVar("T", VolumeBackup, VolumeRestore)


class _Kept(Generic[T]):
    """The operations that are kept, at most KEPT_OF_A_GROUP of each group."""

    def __init__(self) -> None:
        self.by_uid: dict[str, T] = {}
        self._counts: Counter[str] = Counter()

    def add(self, group: str, operation: T) -> None:
        if self._counts[group] < KEPT_OF_A_GROUP:
            self._counts[group] += 1
            self.by_uid[operation.uid] = operation

    def sorted(self, *more: T) -> tuple[T, ...]:
        """Return the operations and some more, each once, by name as the API server lists them."""
        found = self.by_uid | {operation.uid: operation for operation in more}
        return tuple(sorted(found.values(), key=lambda operation: operation.name))


class SiblingsOfBackup:
    """The other VolumeBackups that matter to one.

    Args:
        backup: the VolumeBackup.
        policy: the operator's settings.
        claim: its volume.
        before: the time of the snapshot that it names, which its parent must be older than; None: there is none.
    """

    def __init__(
        self, backup: VolumeBackup, policy: OperatorPolicy, claim: PersistentVolumeClaim | None, before: datetime | None
    ) -> None:
        self._alone = ObservedBackup(backup, policy, claim=claim)
        self._volume_id = claim.uid if claim else backup.status.volume_id
        self._named = VolumeBackupStatus(
            volume_id=self._volume_id, volume_name=claim.name if claim else backup.status.volume_name
        )
        self._before = before
        self._kept: _Kept[VolumeBackup] = _Kept()
        self._parents: dict[tuple[str | None, str | None], VolumeBackup] = {}
        self._damaged: dict[tuple[str | None, str | None], list[VolumeBackup]] = {}
        self._ids: set[str] = set()
        self._children: dict[str, tuple[bool, str]] = {}
        self._history = HistoryOfBackup(backup, self._volume_id)
        self._parent: VolumeBackup | None = None
        self.has_seen_parent = False
        """Whether the recorded parent is among the observed ones. A failed import of its id is not the parent."""

    def observe(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if it matters."""
        backup, claim = self._alone.backup, self._alone.claim
        if other.uid == backup.uid:
            return
        if other.own_phase is not BackupPhase.ERROR:
            self._ids.add(other.backup_id)
        if other.backup_id == backup_checks.recorded_parent_id(self._alone):
            self._observe_parent(other)
        if claim is not None and not backup.has_ended and volume_lock.wait_for_volume(backup, claim, (other,), ()):
            self._kept.add("in the way", other)
        if delete.aliases(replace(self._alone, siblings=(other,))):
            self._kept.add("alias", other)
        parent = dependents.needed_parent_id(other)
        if parent == backup.backup_id:
            self._kept.add("dependent", other)
        elif parent is not None and other.status.volume_id == self._volume_id:
            self._observe_child(parent, other)
        if not backup.has_ended or backup.has_unknown_alarm:
            self._observe_history(other)
        if backup.spec.incremental and not backup.has_ended:
            self._observe_candidate(other)

    def _observe_history(self, other: VolumeBackup) -> None:
        """Keep those with which the backup is compared, and those that are missing among them."""
        self._history.observe(other)
        if condition.has_lost_status(other, self._named):
            self._kept.add("lost status", other)

    def _observe_parent(self, other: VolumeBackup) -> None:
        """Keep the best of the VolumeBackups with the id of the recorded parent."""
        self.has_seen_parent |= other.own_phase is not BackupPhase.ERROR
        known = (self._parent,) if self._parent else ()
        self._parent = backup_checks.recorded_parent(replace(self._alone, siblings=(*known, other)))

    def _observe_child(self, parent: str, child: VolumeBackup) -> None:
        """Remember one child of a parent. An unfinished one counts as a dependent without its manifest."""
        is_unfinished = child.own_phase is BackupPhase.CREATING
        if parent not in self._children or is_unfinished:
            self._children[parent] = (not is_unfinished, child.name)

    def _observe_candidate(self, other: VolumeBackup) -> None:
        """Keep the latest possible parent in each store and container, and what is known about damage."""
        if other.is_damaged:
            self._observe_damaged(other)
            return
        place, instant = (other.status.store_name, other.status.container), other.status.data_timestamp
        is_candidate = other.is_complete and not other.is_alias and not other.metadata.is_being_deleted
        if not is_candidate or instant is None or other.status.volume_id != self._volume_id:
            return
        if self._before is not None and instant >= self._before:
            return
        best = self._parents.get(place)
        if best is None or backup_checks.data_age_key(other) > backup_checks.data_age_key(best):
            self._parents[place] = other

    def _observe_damaged(self, other: VolumeBackup) -> None:
        """Keep what matters about damage in each store and container, the latest damage first."""
        if other.status.volume_id != self._volume_id:
            return
        place = (other.status.store_name, other.status.container)
        known = self._damaged.get(place, [])
        self._damaged[place] = damage.significant((*known, other), KEPT_OF_A_GROUP)

    def orphans(self) -> list[str]:
        """Return the names of backups of the volume whose parent is gone, one for each parent; see `dependents`.

        Unfinished ones come first, because only their statuses show that others must stay.
        """
        mine = self._alone.backup.backup_id
        found = [child for parent, child in self._children.items() if parent not in self._ids and parent != mine]
        return [name for _, name in sorted(found)[:KEPT_OF_A_GROUP]]

    def present_parents(self) -> frozenset[str]:
        """Return the ids of the parents that exist, whether they are kept or not."""
        return frozenset(self._ids & self._children.keys())

    def kept(self) -> tuple[VolumeBackup, ...]:
        """Return the VolumeBackups that matter, except `orphans`."""
        parent = (self._parent,) if self._parent else ()
        damaged = chain.from_iterable(self._damaged.values())
        return self._kept.sorted(*self._parents.values(), *damaged, *parent, *self._history.kept())


class HistoryOfBackup:
    """The earlier backups with which a backup is compared when it becomes available."""

    def __init__(self, backup: VolumeBackup, volume_id: str | None) -> None:
        self._status = backup.status if backup.own_phase else VolumeBackupStatus(volume_id=volume_id)
        self._before = self._status.data_timestamp or backup.metadata.creation_timestamp
        self._recent: list[tuple[datetime, str, VolumeBackup]] = []
        self._full: VolumeBackup | None = None

    def observe(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if it is among the newest, or is the newest full one."""
        instant = other.status.data_timestamp
        if instant is None or not stats.belongs_to_history(other, self._status, self._before):
            return
        heapq.heappush(self._recent, (instant, other.uid, other))
        if len(self._recent) > stats.HISTORY:
            heapq.heappop(self._recent)
        is_newer = self._full is None or backup_checks.data_age_key(other) > backup_checks.data_age_key(self._full)
        if is_newer and not other.status.is_incremental and not other.is_suspicious:
            self._full = other

    def kept(self) -> tuple[VolumeBackup, ...]:
        """Return the VolumeBackups that matter."""
        return (*(backup for _, _, backup in self._recent), *((self._full,) if self._full else ()))


class SiblingsOfExpired:
    """The other VolumeBackups of a volume that matter to an expired one, and the restores of expired ones.

    Observe all VolumeBackups before the restores: one that is being deleted when it is observed gets no new restore.

    Args:
        backup: the expired VolumeBackup.
    """

    def __init__(self, backup: VolumeBackup) -> None:
        self._backup = backup
        self._expired: dict[str, ExpiredSibling] = {}
        self._aliases: dict[str, VolumeBackup] = {}
        self._unfinished: dict[str, VolumeBackup] = {}
        self._restores: dict[str, VolumeRestore] = {}
        self._ids: set[str] = set()

    def observe(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if it matters."""
        if other.uid == self._backup.uid:
            return
        if other.own_phase is not BackupPhase.ERROR:
            self._ids.add(other.backup_id)
        if expiry.is_unfinished(other):
            if other.status.parent_id is not None:
                self._unfinished[other.status.parent_id] = other
        elif len(self._expired) < expiry.MAX_BATCH and expiry.is_ready(other, self._backup):
            self._expired[other.backup_id] = ExpiredSibling(other.backup_id, other.status.manifest_key)
        if other.is_alias and other.status.manifest_key is not None:
            self._aliases[other.status.manifest_key] = other

    def observe_restore(self, restore: VolumeRestore) -> None:
        """Take note of a VolumeRestore, and keep one of each expired backup."""
        backup_id = restore.own_backup_id
        if backup_id is not None and self._is_expired(backup_id):
            self._restores[backup_id] = restore

    def kept(self) -> tuple[VolumeBackup, ...]:
        """Return the VolumeBackups that may hold up expired ones."""
        found = {other.uid: other for group in (self._aliases, self._unfinished) for other in group.values()}
        return tuple(sorted(found.values(), key=lambda other: other.name))

    def expired(self) -> tuple[ExpiredSibling, ...]:
        """Return the other expired VolumeBackups."""
        return tuple(self._expired.values())

    def restores(self) -> tuple[VolumeRestore, ...]:
        """Return the VolumeRestores that matter."""
        return tuple(sorted(self._restores.values(), key=lambda restore: restore.name))

    def present_parents(self) -> frozenset[str]:
        """Return the ids of all VolumeBackups of the volume that have not failed."""
        return frozenset(self._ids)

    def _is_expired(self, backup_id: str) -> bool:
        return backup_id == self._backup.backup_id or backup_id in self._expired


class RelativesOfImport:
    """The other VolumeBackups that matter to an import: those that forbid it to take its id, and its dependents."""

    def __init__(self, backup: VolumeBackup, policy: OperatorPolicy) -> None:
        self._alone = ObservedBackup(backup, policy)
        self._kept: _Kept[VolumeBackup] = _Kept()

    def observe(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if it matters."""
        backup = self._alone.backup
        if other.uid == backup.uid:
            return
        if import_checks.id_is_free(replace(self._alone, siblings=(other,))):
            self._kept.add("has the id", other)
        if dependents.needed_parent_id(other) == backup.backup_id:
            self._kept.add("dependent", other)

    def kept(self) -> tuple[VolumeBackup, ...]:
        """Return the VolumeBackups that matter."""
        return self._kept.sorted()


class NamedBackup:
    """The VolumeBackup that an operation names: the one with the requested id or UID, else the one so named.

    An accepted operation has recorded the id, which no longer stands for a name.

    Args:
        reference: id, UID or name.
        is_recorded: whether it is the recorded id.
    """

    def __init__(self, reference: str, *, is_recorded: bool = False) -> None:
        self.is_recorded = is_recorded
        self.reference = reference
        self.found: VolumeBackup | None = None
        self._rank = len(_RANKS)

    @property
    def is_certain(self) -> bool:
        """Whether no other VolumeBackup can match better."""
        return self._rank <= _RANKS.index("uid")

    def observe(self, backup: VolumeBackup) -> None:
        """Take note of a VolumeBackup, and keep it if it matches better than all before."""
        match = self._match(backup)
        if match is not None and _RANKS.index(match) < self._rank:
            self.found, self._rank = backup, _RANKS.index(match)

    def _match(self, backup: VolumeBackup) -> str | None:
        """Return how a VolumeBackup matches. An import that failed because its id was taken has that id, too."""
        has_id = backup.backup_id == self.reference
        if has_id and backup.is_complete:
            return "id"
        if backup.uid == self.reference and (has_id or not self.is_recorded):
            return "uid"
        if has_id:
            return "failed id" if backup.own_phase is BackupPhase.ERROR else "unfinished id"
        return "name" if backup.name == self.reference and not self.is_recorded else None


class RestoresOfBackup:
    """The VolumeRestores that matter to a VolumeBackup: its own, and those on its volume."""

    def __init__(self, backup: VolumeBackup, claim: PersistentVolumeClaim | None) -> None:
        self._backup = backup
        self._claim = claim
        self._kept: _Kept[VolumeRestore] = _Kept()
        self._newest: VolumeRestore | None = None
        self._last_writer: VolumeRestore | None = None

    def observe(self, restore: VolumeRestore) -> None:
        """Take note of a VolumeRestore, and keep it if it matters."""
        backup, claim = self._backup, self._claim
        if claim is not None and not backup.has_ended and volume_lock.wait_for_volume(backup, claim, (), (restore,)):
            self._kept.add("in the way", restore)
        if claim is not None and not backup.has_ended:
            self._observe_writer(restore, claim.uid)
        if restore.own_backup_id != backup.backup_id:
            return
        if restore.status.phase is RestorePhase.RESTORING:
            self._kept.add("running", restore)
        if self._newest is None or derived.restore_age_key(restore) > derived.restore_age_key(self._newest):
            self._newest = restore

    def _observe_writer(self, restore: VolumeRestore, volume_id: str) -> None:
        """Keep the restore that overwrote the volume last: after it, everything may have changed."""
        before, last = self._backup.status.data_timestamp, self._last_writer
        if not condition.may_have_written(restore, volume_id, before):
            return
        if last is None or condition.last_write(restore) > condition.last_write(last):
            self._last_writer = restore

    def kept(self) -> tuple[VolumeRestore, ...]:
        """Return the VolumeRestores that matter."""
        return self._kept.sorted(*(restore for restore in (self._newest, self._last_writer) if restore))


class ObstaclesOfRestore:
    """The VolumeBackups and other VolumeRestores that a VolumeRestore has to wait for.

    Args:
        restore: the VolumeRestore.
        policy: the operator's settings.
        backup: what it restores.
        target: the existing claim that it overwrites; None: it makes a new one.
    """

    def __init__(
        self,
        restore: VolumeRestore,
        policy: OperatorPolicy,
        backup: VolumeBackup | None,
        target: PersistentVolumeClaim | None,
    ) -> None:
        self._alone = ObservedRestore(restore, policy, backup=backup, target=target)
        self._backups: _Kept[VolumeBackup] = _Kept()
        self._restores: _Kept[VolumeRestore] = _Kept()

    def observe_backup(self, other: VolumeBackup) -> None:
        """Take note of a VolumeBackup."""
        if restore_checks.target_is_not_busy(replace(self._alone, backups=(other,))):
            self._backups.add("in the way", other)

    def observe_restore(self, other: VolumeRestore) -> None:
        """Take note of a VolumeRestore."""
        alone = replace(self._alone, restores=(other,))
        if other.uid == self._alone.restore.uid:
            return
        if restore_checks.target_is_not_busy(alone) or restore_checks.name_is_not_being_made(alone):
            self._restores.add("in the way", other)

    def backups(self) -> tuple[VolumeBackup, ...]:
        """Return the VolumeBackups in the way, and the one to restore."""
        return self._backups.sorted(*((self._alone.backup,) if self._alone.backup else ()))

    def restores(self) -> tuple[VolumeRestore, ...]:
        """Return the VolumeRestores in the way."""
        return self._restores.sorted()
