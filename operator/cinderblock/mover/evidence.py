"""Which files an incremental does not read again, although not every stamp of theirs is as the parent has it.

Some drivers make the clone of a snapshot by copying files, so that every clone has other inodes, other ctimes, or both.
What may then be trusted is for an administrator to say (`model.store.ChangeDetection`). Only the content is taken over
from the parent; owner, mode, attributes and all stamps are those of the volume as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cinderblock.datapath.entries import Entry, EntryKind
from cinderblock.model.store import ChangeDetection
from cinderblock.model.task import BackupDescription

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCKS_APART = timedelta(minutes=1)
"""How far the clock that stamps files may be from the one that told when the snapshot was taken: more than any clock
that is kept by NTP, and only what was written in this minute is read in vain."""

_WORTH_A_HINT = 100
"""Files; fewer are read in no time."""


@dataclass(slots=True)
class Evidence:
    """What is taken as a proof that a file need not be read.

    Attributes:
        detection: what is compared.
        ctime_before_ns: a file of the parent with an older ctime cannot have changed again under the same ctime.
        mtime_before_ns: the same for mtime, which asks the clock of the cluster: nothing in a copied tree tells when
            the snapshot was taken, its ctimes are younger, and a single mtime in the future would vouch for all others.
        in_doubt: files of the parent's size and mtime that were to be read all the same.
    """

    detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    ctime_before_ns: int = 0
    mtime_before_ns: int = 0
    in_doubt: int = 0

    def shows_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Whether the content is as the parent has it.

        Args:
            entry: of the volume.
            before: of the parent, at the same path.
        """
        is_alike = entry.kind is EntryKind.FILE is before.kind and entry.size == before.size
        if not is_alike or entry.mtime_ns != before.mtime_ns or not self.detection.trusts_stamps:
            return False
        is_proven = self._is_proven(entry, before)
        self.in_doubt += not is_proven
        return is_proven

    def _is_proven(self, entry: Entry, before: Entry) -> bool:
        if self.detection.asks_inode and entry.inode != before.inode:
            return False
        if self.detection.asks_ctime:
            return entry.ctime_ns == before.ctime_ns < self.ctime_before_ns
        return before.mtime_ns < self.mtime_before_ns

    def hint(self, entries: int) -> str | None:
        """What to tell an administrator if more than half of the parent's ``entries`` were read in doubt."""
        if self.in_doubt < _WORTH_A_HINT or 2 * self.in_doubt < entries:
            return None
        return (
            f"{self.in_doubt} files of the same size and mtime as in the parent were read again, since their ctimes "
            "or inodes are others: if the driver clones by copying files, changeDetection of the BackupStore can help"
        )


def mtime_settled_before(parent: BackupDescription) -> int:
    """Files of the parent with an older mtime cannot have changed again under the same mtime, in ns since 1970.

    A driver that copies files takes its time, and may say afterwards when the snapshot was taken: nothing is copied
    before it is asked for.
    """
    return nanoseconds(min(parent.created_at, parent.data_timestamp) - _CLOCKS_APART)


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
