"""Decide which files an incremental backup need not read, and what a difference means in a file that it reads.

A snapshot that does not freeze the file system can hold the new timestamps of a file and its old data. write(2)
changes ctime at once. The inode reaches the disk with the journal, the data up to 30 s later. So a file is reused
only if its timestamps are older than what the parent's snapshot may have missed.

Some drivers clone a snapshot by copying files, so every clone has other inodes, other ctimes, or both. An administrator
then says what can be trusted (`api.v1alpha1.store.ChangeDetection`). Only content is reused from the parent. Owner,
mode, attributes and all timestamps are those of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

from cinderblock.api.v1alpha1.store import ChangeDetection
from cinderblock.format.entries import Entry, EntryKind

_HINT_FILES = 100
"""Files below which no hint is given: they are read quickly."""


@dataclass(slots=True)
class ChangeDetector:
    """The rule that proves a file unchanged, with counts of files that it does not cover.

    Attributes:
        detection: the properties that are compared.
        stamped_before_ns: reuse only files whose timestamps in the parent are older, in ns since 1970.
        mtime_alone: whether only mtime counts, instead of the newer one of ctime and mtime. This is for parents whose
            ctimes are all new, because a driver has copied the files.
        compares_all: whether all files are read and compared with the parent's.
        doubts_parent: with ``compares_all``, whether the parent may also have missed changes of files with newer
            timestamps.
        mismatched_files: files of the same size and mtime that had to be read because ctime or inode differ.
        unsettled_files: files with data and without a visible change that had to be read because of
            ``stamped_before_ns``.
    """

    detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE
    stamped_before_ns: int = 0
    mtime_alone: bool = False
    compares_all: bool = False
    doubts_parent: bool = False
    mismatched_files: int = 0
    unsettled_files: int = 0

    def shows_unchanged(self, entry: Entry, before: Entry) -> bool:
        """Return whether the content need not be read, because it equals the parent's.

        Args:
            entry: of the volume.
            before: of the parent, at the same path.
        """
        if self.compares_all or not _may_be_alike(entry, before):
            return False
        if not self._is_alike(entry, before):
            self.mismatched_files += 1
            return False
        is_settled = self._is_settled(before)
        self.unsettled_files += not is_settled and entry.size > 0
        return is_settled

    def hides_changes(self, entry: Entry, before: Entry, *, lies_in_damage: bool = False) -> bool:
        """Return whether content that differs from the parent's would be a change that timestamps hide.

        Args:
            entry: the file of the volume, whose content is read.
            before: the file of the parent at the same path.
            lies_in_damage: whether the file is only read because it lies in damaged packs.
        """
        return (
            (self.compares_all or lies_in_damage)
            and _may_be_alike(entry, before)
            and self._is_alike(entry, before)
            and (self.doubts_parent or self._is_settled(before))
        )

    def _is_alike(self, entry: Entry, before: Entry) -> bool:
        """Return whether ctime and inode equal the parent's, as far as the change detection compares them."""
        asks_all = not self.detection.trusts_timestamps
        if (asks_all or self.detection.compares_inode) and entry.inode != before.inode:
            return False
        return not (asks_all or self.detection.compares_ctime) or entry.ctime_ns == before.ctime_ns

    def _is_settled(self, before: Entry) -> bool:
        timestamp = before.mtime_ns if self.mtime_alone else max(before.ctime_ns, before.mtime_ns)
        return timestamp < self.stamped_before_ns

    def hint(self, entries: int) -> str | None:
        """Return a hint for an administrator if at least half of the parent's ``entries`` were mismatched."""
        if self.mismatched_files < _HINT_FILES or 2 * self.mismatched_files < entries:
            return None
        return (
            f"{self.mismatched_files} files of the same size and mtime as in the parent were read again, because their"
            " ctimes or inodes differ. If the driver clones by copying files, set changeDetection in the BackupStore."
        )


def _may_be_alike(entry: Entry, before: Entry) -> bool:
    """Return whether both are files of the same size and mtime. Every change detection compares these."""
    is_file = entry.kind is EntryKind.FILE is before.kind
    return is_file and entry.size == before.size and entry.mtime_ns == before.mtime_ns
