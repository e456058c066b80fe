"""One import of a store: what it has found so far, and what is left to do.

It is only a memory of work. An operator that dies begins another one, which finds what this one has written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, ImportMode
from cinderblock.controller.context import Context
from cinderblock.controller.schedules.gather import parsed_pages
from cinderblock.errors import PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.presence import PresenceWrite, backups_before, missing_imports, presence_writes
from cinderblock.lifecycle.imports.records import KnownBackup, ReadManifest, StoredManifest, UnreadManifest, record_of
from cinderblock.lifecycle.imports.selection import Creation, plan, select
from cinderblock.lifecycle.imports.settings import Settings
from cinderblock.reasons import Reason

MAX_KNOWN: Final = 60_000
"""VolumeBackups of a namespace that an import compares, at about 500 bytes each."""

MAX_AGE: Final = timedelta(hours=1)
"""Age from which a listing counts no more. This process may have lost the Lease, and got it back."""


@dataclass(slots=True)
class ImportRun:
    """One import.

    Attributes:
        began: when it began.
        identity: what it was made for; another one makes it worthless.
        difference: the listing, compared with the VolumeBackups.
        known: VolumeBackups that existed before and after the listing.
        names: names of all VolumeBackups of the namespace.
        full_store: another BackupStore of the same place that is full of marks; empty: there is none.
        is_always: whether the mode is Always.
        before: number of backups before the store lost more than half of them.
        unread: manifests to read.
        read: manifests that were read.
        refused: manifests that cannot be imported.
        creations: VolumeBackups to create; None: not planned yet.
        planned: number of all creations.
        created: number of VolumeBackups that exist by now.
        presence: changes of status.manifestMissing to write.
    """

    began: datetime
    identity: str
    difference: Difference
    known: list[KnownBackup]
    names: list[str]
    full_store: str = ""
    is_always: bool = False
    before: int | None = None
    unread: deque[StoredManifest] = field(default_factory=deque)
    read: list[ReadManifest] = field(default_factory=list)
    refused: list[UnreadManifest] = field(default_factory=list)
    creations: deque[Creation] | None = None
    planned: int = 0
    created: int = 0
    presence: deque[PresenceWrite] = field(default_factory=deque)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.unread and self.creations is not None and not self.creations and not self.presence

    @property
    def imported(self) -> int:
        """Number of imported VolumeBackups whose manifest is there."""
        return self.created + sum(b.is_import and b.uid in self.difference.present for b in self.known)

    @property
    def missing(self) -> int:
        """Number of imported VolumeBackups without a manifest."""
        return len(missing_imports(self.difference, self.known))

    @property
    def may_remove(self) -> bool:
        """Whether the listing is believed if it lacks manifests: the store has not lost most of them."""
        return (
            self.is_always and not self.difference.is_too_large and self.before is None and self.difference.backups > 0
        )

    def compare(self, store: BackupStore, settings: Settings) -> None:
        """Find out what is to be done, after the listing."""
        inventory, difference = store.status.inventory, self.difference
        self.is_always = settings.mode is ImportMode.ALWAYS
        self.before = backups_before(difference, inventory, self.known) if self.is_always else None
        may_judge = not difference.is_too_large
        self.presence.extend(
            presence_writes(difference, self.known, settings, inventory, self.began, may_remove=self.may_remove)
            if may_judge
            else ()
        )
        self.refused.extend(difference.refused)
        self.unread.extend(difference.new if may_judge else ())

    def is_valid(self, identity: str, now: datetime) -> bool:
        """Return whether the listing still counts: nobody has changed the store, and it is not old."""
        return self.identity == identity and timedelta() <= now - self.began < MAX_AGE

    def add(self, found: ReadManifest | UnreadManifest) -> None:
        """Add a manifest that was read, or that could not be read."""
        if isinstance(found, ReadManifest):
            self.read.append(found)
        else:
            self.refused.append(found)

    def plan(self, store: BackupStore, settings: Settings, *, is_full: bool) -> None:
        """Choose names and order of the VolumeBackups to create, after all manifests were read.

        None is created if the marks of released backups are full: it might be one of them.
        """
        selected = [] if is_full else select(self.read, settings, self.difference, self.began)
        creations, refused = plan(selected, store.namespace, self.names)
        self.creations, self.planned = deque(creations), len(creations)
        self.refused.extend(refused)


async def known_backups(context: Context, store: BackupStore) -> dict[str, KnownBackup]:
    """Return the VolumeBackups of the namespace by UID. Raises PermanentError if there are too many."""
    found: dict[str, KnownBackup] = {}
    async for backup in records_of(context, store):
        found[backup.uid] = backup
        if len(found) > MAX_KNOWN:
            raise PermanentError(
                f"The namespace has more than {MAX_KNOWN} VolumeBackups. Nothing is imported until you delete some",
                reason=Reason.TOO_MANY_OBJECTS,
            )
    return found


async def records_of(context: Context, store: BackupStore) -> AsyncIterator[KnownBackup]:
    """Yield the VolumeBackups of the namespace. One may come twice if the list begins again."""
    async for page in parsed_pages(context, VolumeBackup, kinds.VOLUME_BACKUP, store.namespace):
        for backup in page:
            yield record_of(backup, store)
