"""Which files an incremental backup does not read again, and what a difference means in a file that it reads.

Stamps are evidence with an age. A snapshot that does not freeze the file system can hold the new stamps of a file and
its old data: write(2) moves ctime at once, the inode reaches the disk with the journal, and the data up to 30 s later.
So a file is taken over only if its stamps are older than what the parent's snapshot may have missed.

Some drivers make the clone of a snapshot by copying files, so that every clone has other inodes, other ctimes, or both.
What may then be trusted is for an administrator to say (`model.store.ChangeDetection`). Only the content is taken over
from the parent; owner, mode, attributes and all stamps are those of the volume as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass

from cinderblock.api.v1alpha1.store import ChangeDetection
from cinderblock.format.entries import Entry, EntryKind

_WORTH_A_HINT = 100
"""Files; fewer are read in no time."""


@dataclass(slots=True)
class ChangeDetector:
    """What is taken as a proof that a file need not be read.

    Attributes:
        detection: what is compared.
        stamped_before_ns: only files of the parent that were stamped before this are taken over, in ns since 1970.
        mtime_alone: whether mtime alone is a file's stamp; otherwise the newer one of ctime and mtime is. This is for
            parents whose ctimes are all new, because a driver has copied the files.
        compares_all: whether all files are read and compared with the parent's.
        doubts_parent: with ``compares_all``, whether the parent may have missed changes of files with newer stamps too.
        in_doubt: files of the parent's size and mtime that had to be read because ctime or inode differ.
        reread: files with data and without a visible change that had to be read because of ``stamped_before_ns``.
    """

    detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    stamped_before_ns: int = 0
    mtime_alone: bool = False
    compares_all: bool = False
    doubts_parent: bool = False
    reread_count: int = 0
    reread: int = 0

    def shows_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Return whether the content need not be read, because the parent has the same.

        Args:
            entry: of the volume.
            before: of the parent, at the same path.
        """
        if self.compares_all or not _may_be_alike(entry, before):
            return False
        if not self._is_alike(entry, before):
            self.reread_count += 1
            return False
        has_settled = self._has_settled(before)
        self.reread += not has_settled and entry.size > 0
        return has_settled

    def hides_changes(self, entry: Entry, before: Entry) -> bool:
        """Return whether content that differs from the parent's would be a change that stamps hide.

        Args:
            entry: the file of the volume, whose content is read.
            before: the file of the parent at the same path.
        """
        return (
            self.compares_all
            and _may_be_alike(entry, before)
            and self._is_alike(entry, before)
            and (self.doubts_parent or self._has_settled(before))
        )

    def _is_alike(self, entry: Entry, before: Entry) -> bool:
        """Return whether ctime and inode are the same as the parent's, as far as the change detection asks for them."""
        asks_all = not self.detection.trusts_timestamps
        if (asks_all or self.detection.compares_inode) and entry.inode != before.inode:
            return False
        return not (asks_all or self.detection.compares_ctime) or entry.ctime_ns == before.ctime_ns

    def _has_settled(self, before: Entry) -> bool:
        stamp = before.mtime_ns if self.mtime_alone else max(before.ctime_ns, before.mtime_ns)
        return stamp < self.stamped_before_ns

    def hint(self, entries: int) -> str | None:
        """What to tell an administrator if more than half of the parent's ``entries`` were read in doubt."""
        if self.reread_count < _WORTH_A_HINT or 2 * self.reread_count < entries:
            return None
        return (
            f"{self.reread_count} files of the same size and mtime as in the parent were read again, since their ctimes"
            " or inodes differ: if the driver clones by copying files, changeDetection of the BackupStore can help"
        )


def _may_be_alike(entry: Entry, before: Entry) -> bool:
    """Return whether both are files of the same size and mtime. Every change detection asks for these."""
    is_file = entry.kind is EntryKind.FILE is before.kind
    return is_file and entry.size == before.size and entry.mtime_ns == before.mtime_ns
