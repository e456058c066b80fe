"""Which stored backup a claim gets that asks through a RestoreSource. The store decides, never custom resources.

A new cluster has no VolumeBackups, and during an import it has too few. An empty volume in place of a backup looks like
lost data, so everything that leaves a doubt is `CannotTell`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from typing_extensions import override

from cinderblock.api.duration import from_timedelta, parse_long_duration
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.restore_source import RestoreSource, Selection
from cinderblock.lifecycle.imports.records import ReadManifest, StoredManifest, UnreadManifest
from cinderblock.reasons import AnyReason, Reason

Found = ReadManifest | UnreadManifest


@dataclass(frozen=True, slots=True)
class Wanted:
    """The volume whose backups count, as manifests record it.

    Attributes:
        namespace, name: of the backed up claim.
        volume_id: its UID; None: any.
    """

    namespace: str
    name: str
    volume_id: str | None = None

    def may_be(self, volume_id: str) -> bool:
        """Return whether backups with this volume id in their key may count."""
        return self.volume_id is None or self.volume_id == volume_id

    def matches(self, manifest: ReadManifest) -> bool:
        """Return whether a backup counts."""
        if self.volume_id is not None:
            return manifest.stored.volume_id == self.volume_id
        return (manifest.namespace, manifest.volume_name) == (self.namespace, self.name)

    def may_mean(self, manifest: ReadManifest) -> bool:
        """Return whether a readable manifest leaves open which claim it is of. The format does not demand the names."""
        return self.volume_id is None and not (manifest.namespace and manifest.volume_name)

    @override
    def __str__(self) -> str:
        """Return the volume for a message."""
        return f"volume {self.volume_id}" if self.volume_id is not None else f"claim {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backup that the claim gets."""

    manifest: ReadManifest


@dataclass(frozen=True, slots=True)
class NoBackup:
    """The store proves that it holds no backup of the volume.

    Attributes:
        message: what was looked for.
        stored: number of backups of other volumes.
    """

    message: str
    stored: int


@dataclass(frozen=True, slots=True)
class CannotTell:
    """Nothing is proven, or no backup fits the selection: the claim waits.

    Attributes:
        reason, message: why.
    """

    reason: AnyReason
    message: str


@dataclass(frozen=True, slots=True)
class Looking:
    """The look into the store has not ended.

    Attributes:
        message: how far it is, without numbers that change often: it becomes an Event.
        requeue_after: seconds until it continues.
    """

    message: str
    requeue_after: float = 0.0


Outcome = Chosen | NoBackup | CannotTell | Looking


def wanted_by(claim: PersistentVolumeClaim, source: RestoreSource) -> Wanted:
    """Return the volume whose backups a claim gets from a RestoreSource."""
    volume = source.spec.volume
    return Wanted(volume.namespace or claim.namespace, volume.name or claim.name, volume.id)


def samples(listed: Iterable[StoredManifest]) -> dict[str, list[StoredManifest]]:
    """Return the manifests by volume id, of each volume the last written one first.

    All backups of a volume record the same claim, so one readable manifest tells whether the volume counts.
    """
    by_volume: dict[str, list[StoredManifest]] = {}
    for stored in listed:
        by_volume.setdefault(stored.volume_id, []).append(stored)
    for manifests in by_volume.values():
        manifests.sort(key=lambda stored: (stored.modified is not None, stored.modified, stored.key), reverse=True)
    return by_volume


def choose(found: Sequence[Found], stored: int, wanted: Wanted, select: Selection, now: datetime) -> Outcome:
    """Return the backup that a claim gets.

    Args:
        found: manifests of all volumes that may count: all of a volume that counts or of which none can be read, and
            at least one of each other volume.
        stored: number of all manifests in the store.
        wanted: the volume.
        select: which of its backups.
        now: the present.
    """
    readable = [manifest for manifest in found if isinstance(manifest, ReadManifest)]
    others = {manifest.stored.volume_id for manifest in readable if not wanted.matches(manifest)}
    unread = [manifest for manifest in found if isinstance(manifest, UnreadManifest)]
    doubtful = [manifest for manifest in unread if manifest.stored.volume_id not in others]
    newest_first = sorted(filter(wanted.matches, readable), key=_age, reverse=True)
    if not newest_first:
        nameless = [manifest for manifest in readable if wanted.may_mean(manifest)]
        return _nameless(nameless, wanted) if nameless else _nothing(doubtful, stored, wanted)
    eligible = [m for m in newest_first if select.as_of is None or m.data_time <= select.as_of]
    if len(eligible) <= select.offset:
        return CannotTell(Reason.NO_BACKUP, _too_few(newest_first, eligible, wanted, select))
    chosen = eligible[select.offset]
    hidden = [manifest for manifest in doubtful if _may_be_newer(manifest, chosen)]
    if hidden:
        return CannotTell(Reason.CANNOT_TELL, f"A newer backup of {wanted} may exist. {_unreadable(hidden)}")
    if select.max_age is not None and now - chosen.data_time > parse_long_duration(select.max_age):
        age = from_timedelta(now - chosen.data_time)
        message = f"The data of backup {chosen.stored.backup_id} of {wanted} is {age} old, more than {select.max_age}."
        return CannotTell(Reason.DATA_TOO_OLD, f"{message} {_REMEDY}")
    return Chosen(chosen)


_REMEDY = "If the claim shall get a certain backup, create it again with the VolumeBackup in its dataSourceRef."


def _nothing(doubtful: Sequence[UnreadManifest], stored: int, wanted: Wanted) -> Outcome:
    if doubtful:
        return CannotTell(Reason.CANNOT_TELL, f"A backup of {wanted} may exist. {_unreadable(doubtful)}")
    return NoBackup(f"The store holds no backup of {wanted}, and {stored} backups of other volumes.", stored)


def _nameless(manifests: Sequence[ReadManifest], wanted: Wanted) -> CannotTell:
    first = min(manifests, key=lambda manifest: manifest.stored.key)
    cause = f"{len(manifests)} manifests do not record their claim, for example {first.stored.key}"
    return CannotTell(Reason.CANNOT_TELL, f"A backup of {wanted} may exist: {cause}. {_REMEDY}")


def _too_few(
    newest_first: Sequence[ReadManifest], eligible: Sequence[ReadManifest], wanted: Wanted, select: Selection
) -> str:
    if not eligible:
        oldest = newest_first[-1].data_time
        return f"All backups of {wanted} are newer than select.asOf: the oldest is of {oldest:%Y-%m-%dT%H:%M:%SZ}."
    return f"{wanted} has {len(eligible)} backups to choose from, too few for select.offset {select.offset}."


def _may_be_newer(manifest: UnreadManifest, chosen: ReadManifest) -> bool:
    """Return whether an unreadable manifest may hold newer data. It was written after the time of its data."""
    return manifest.stored.modified is None or manifest.stored.modified >= chosen.data_time


def _unreadable(manifests: Sequence[UnreadManifest]) -> str:
    first = min(manifests, key=lambda manifest: manifest.stored.key)
    return f"{len(manifests)} manifests cannot be read, for example {first.stored.key}: {first.message} {_REMEDY}"


def _age(manifest: ReadManifest) -> tuple[datetime, str]:
    return manifest.data_time, manifest.stored.backup_id
