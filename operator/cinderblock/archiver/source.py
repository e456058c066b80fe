"""Volumes that a backup reads: a tree, or a device, which is a tree of one entry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.losses import Loss
from cinderblock.api.mover import VolumeMode
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.block.source import BlockSource
from cinderblock.volume.capabilities import assess_source
from cinderblock.volume.content import SourceContent
from cinderblock.volume.metadata_support import Feature
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.reader import PREFETCHED_BYTES, ParentRows, TreeReader, log_unsupported

logger = logging.getLogger(__name__)

_INVISIBLE_FEATURES = {Feature.TRUSTED_ATTRIBUTES: "trusted.* attributes", Feature.ACLS: "NFSv4 ACLs"}
"""Features that a backup cannot read, and so cannot count."""


class OpenedFile(NamedTuple):
    """A file that is open for reading, and its entry at that time."""

    entry: Entry
    content: SourceContent


class Source(Protocol):
    """A volume that is backed up."""

    @property
    def total_bytes(self) -> int:
        """Estimated bytes of the volume, for progress."""

    @property
    def is_synced(self) -> bool:
        """Whether every later change of content moves a timestamp."""

    def begin(self) -> None:
        """Begin the walk in the background, before `entries`."""

    def entries(self, before: ParentRows | None = None, /, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """Return every entry without extents, in order of path. Entries that ``before`` reuses give None, or nothing.

        With ``opens_all`` the caller opens every FILE that is not empty; only then is its entry complete. Raises
        SourceError or SourceChanging.
        """

    def open(self, entry: Entry) -> OpenedFile:
        """Open a FILE or the DEVICE. Several threads may do so.

        Raises SourceError; SourceChanging, with reason `volume.errors.VANISHED` if the file no longer exists.
        """

    @property
    def omissions(self) -> Omissions:
        """Objects that cannot be read and are left out, if that is allowed."""

    def finish(self) -> None:
        """End the reading. Raises SourceError if the volume no longer exists."""

    def warnings(self) -> list[str]:
        """Return the known warnings about metadata that is not kept."""

    def losses(self) -> list[Loss]:
        """Return metadata that is not kept by kind, with counts if they are known."""


class DeviceSource:
    """A volume of mode Block."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.omissions = Omissions()
        with BlockSource(path) as device:
            self._size = device.size

    @property
    def total_bytes(self) -> int:
        """See Source."""
        return self._size

    @property
    def is_synced(self) -> bool:
        """See Source. A backup does not compare timestamps of a device."""
        return True

    def begin(self) -> None:
        """See Source. A device has one entry."""

    def entries(self, *_: ParentRows | None, **__: bool) -> Iterator[Entry | None]:
        """See Source."""
        yield Entry(b"", EntryKind.DEVICE, size=self._size)

    def open(self, entry: Entry) -> OpenedFile:
        """See Source."""
        device = BlockSource(self._path)
        return OpenedFile(entry._replace(size=device.size), device)

    def finish(self) -> None:
        """See Source. A read error has already ended the backup."""

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
        """Do nothing: no file stays open."""


class TreeSource:
    """A volume of mode Filesystem.

    Opening it syncs the file system. While a page of a shared mapping is dirty, further writes to it do not move
    timestamps. After the sync, the next write does.

    Args:
        path: its root.
        unreadable: what to do about files that cannot be read.
    """

    def __init__(self, path: str, unreadable: Unreadable = Unreadable.FAIL) -> None:
        self._support = assess_source(path, unreadable=unreadable)
        self._assessed = log_unsupported(self._support)
        self._resources = ExitStack()
        self._reader = self._resources.enter_context(TreeReader(path, unreadable))
        self._sync_warning = self._reader.sync()
        space = os.statvfs(path)
        self._total = (space.f_blocks - space.f_bfree) * space.f_frsize

    @property
    def total_bytes(self) -> int:
        """See Source."""
        return self._total

    @property
    def is_synced(self) -> bool:
        """See Source."""
        return self._sync_warning is None

    @property
    def omissions(self) -> Omissions:
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

    def open(self, entry: Entry) -> OpenedFile:
        """See Source."""
        file = self._reader.open_file(entry)
        if file.size <= PREFETCHED_BYTES:
            file.prefetch()
        return OpenedFile(file.entry, file)

    def warnings(self) -> list[str]:
        """See Source."""
        overlay = [] if self._support.keeps(Feature.TRUSTED_ATTRIBUTES) else self._reader.whiteouts.summaries()
        sync_warning = [] if self._sync_warning is None else [self._sync_warning]
        return [*sync_warning, *self._assessed, *self._reader.skipped.summaries(), *overlay]

    def losses(self) -> list[Loss]:
        """See Source."""
        support, features = self._support, _INVISIBLE_FEATURES.items()
        invisible = [Loss(what=what) for feature, what in features if not support.keeps(feature)]
        return [*self._reader.skipped.list_losses(), *invisible]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


SourceOpener = Callable[[VolumeMode, str], AbstractContextManager[Source]]
"""Opens a volume of a mode at a path."""


def open_source(mode: VolumeMode, path: str, unreadable: Unreadable = Unreadable.FAIL) -> DeviceSource | TreeSource:
    """Return the volume at ``path``, a context manager. ``unreadable`` applies to trees only. Raises SourceError."""
    return DeviceSource(path) if mode is VolumeMode.BLOCK else TreeSource(path, unreadable)
