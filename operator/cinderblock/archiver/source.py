"""The volume that a backup reads: a tree, or a device, which is a tree of one entry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from cinderblock.api.losses import Loss, Unreadable
from cinderblock.api.mover import VolumeMode
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.block.source import BlockSource
from cinderblock.volume.capabilities import assess_source
from cinderblock.volume.content import SourceContent
from cinderblock.volume.metadata_support import Feature
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.reader import PREFETCHED_BYTES, ParentRows, TreeReader, log_unsupported

logger = logging.getLogger(__name__)

_UNSEEN = {Feature.TRUSTED_ATTRIBUTES: "trusted.* attributes", Feature.ACLS: "NFSv4 ACLs"}
"""Features that a backup cannot see, and so cannot count."""


class Opened(NamedTuple):
    """A file that is open for reading, and its entry as of the opening."""

    entry: Entry
    content: SourceContent


class Source(Protocol):
    """A volume to be backed up."""

    @property
    def total_bytes(self) -> int:
        """About how many bytes there are to deal with, for progress."""

    @property
    def is_synced(self) -> bool:
        """Whether every later change of content moves a stamp."""

    def begin(self) -> None:
        """Begin to look for entries, which will be asked for in a moment."""

    def entries(self, before: ParentRows | None = None, /, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """Every entry without extents, in order of path, but for what ``before`` takes over; None now and then.

        With ``opens_all``, whoever asks opens every FILE that is not empty: only then its entry is complete. Raises
        SourceError or SourceChanging.
        """

    def open(self, entry: Entry) -> Opened:
        """Open a FILE or the DEVICE; several threads may do so.

        Raises SourceError; SourceChanging, with reason `volume.errors.VANISHED` if there is no such file any more.
        """

    @property
    def gaps(self) -> Omissions:
        """What cannot be read and is left out, if that is allowed."""

    def finish(self) -> None:
        """End the reading. Raises SourceError if the volume no longer exists."""

    def warnings(self) -> list[str]:
        """What is not kept, as far as it is known by now."""

    def losses(self) -> list[Loss]:
        """Return the same by kind, with counts if they are known."""


class DeviceSource:
    """A volume of mode Block."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.gaps = Omissions()
        with BlockSource(path) as device:
            self._size = device.size

    @property
    def total_bytes(self) -> int:
        """See Source."""
        return self._size

    @property
    def is_synced(self) -> bool:
        """See Source. No backup trusts stamps of a device."""
        return True

    def begin(self) -> None:
        """See Source. There is one entry."""

    def entries(self, *_: ParentRows | None, **__: bool) -> Iterator[Entry | None]:
        """See Source."""
        yield Entry(b"", EntryKind.DEVICE, size=self._size)

    def open(self, entry: Entry) -> Opened:
        """See Source."""
        device = BlockSource(self._path)
        return Opened(entry._replace(size=device.size), device)

    def finish(self) -> None:
        """See Source. What cannot be read has ended the backup."""

    def warnings(self) -> list[str]:
        """See Source."""
        return []

    def losses(self) -> list[Loss]:
        """See Source."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open."""


class TreeSource:
    """A volume of mode Filesystem.

    Opening it syncs its file system. As long as a page of a shared mapping is dirty, further stores to it move no
    stamp; after the sync, the next store does.

    Args:
        path: its root.
        unreadable: what to do about what cannot be read.
    """

    def __init__(self, path: str, unreadable: Unreadable = Unreadable.FAIL) -> None:
        self._lacking = assess_source(path, unreadable=unreadable)
        self._assessed = log_unsupported(self._lacking)
        self._closing = ExitStack()
        self._reader = self._closing.enter_context(TreeReader(path, unreadable))
        self._unsynced = self._reader.sync()
        space = os.statvfs(path)
        self._total = (space.f_blocks - space.f_bfree) * space.f_frsize

    @property
    def total_bytes(self) -> int:
        """See Source."""
        return self._total

    @property
    def is_synced(self) -> bool:
        """See Source."""
        return self._unsynced is None

    @property
    def gaps(self) -> Omissions:
        """See Source."""
        return self._reader.omissions

    def begin(self) -> None:
        """See Source."""
        self._reader.begin_walk()

    def finish(self) -> None:
        """See Source."""
        self._reader.finish()

    def entries(self, before: ParentRows | None = None, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """See Source."""
        return self._reader.walk_since(before, opens_all=opens_all)

    def open(self, entry: Entry) -> Opened:
        """See Source."""
        file = self._reader.open_file(entry)
        if file.size <= PREFETCHED_BYTES:
            file.prefetch()
        return Opened(file.entry, file)

    def warnings(self) -> list[str]:
        """See Source."""
        overlay = [] if self._lacking.keeps(Feature.TRUSTED_ATTRIBUTES) else self._reader.whiteouts.summaries()
        unsynced = [] if self._unsynced is None else [self._unsynced]
        return [*unsynced, *self._assessed, *self._reader.skipped.summaries(), *overlay]

    def losses(self) -> list[Loss]:
        """See Source."""
        unseen = [Loss(what=what) for feature, what in _UNSEEN.items() if not self._lacking.keeps(feature)]
        return [*self._reader.skipped.list_losses(), *unseen]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


SourceOpener = Callable[[VolumeMode, str], AbstractContextManager[Source]]
"""Opens a volume of a mode at a path."""


def open_source(mode: VolumeMode, path: str, unreadable: Unreadable = Unreadable.FAIL) -> DeviceSource | TreeSource:
    """The volume at ``path``, a context manager. Nothing of a device is left out. Raises SourceError."""
    return DeviceSource(path) if mode is VolumeMode.BLOCK else TreeSource(path, unreadable)
