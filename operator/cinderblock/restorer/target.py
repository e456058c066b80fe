"""Volumes that a restore writes: a tree, or a device, which is a tree of one entry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.losses import Loss
from cinderblock.api.mover import VolumeMode
from cinderblock.errors import IntegrityError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.block.target import BlockTarget
from cinderblock.volume.capabilities import assess_target
from cinderblock.volume.content import TargetContent
from cinderblock.volume.tree.reader import PREFETCHED_BYTES, log_unsupported
from cinderblock.volume.tree.target_file import TargetFile
from cinderblock.volume.tree.writer import TreeWriter
from cinderblock.volume.workers.create_pool import CreatePool, SharedMemory


class Target(Protocol):
    """A volume that becomes equal to a backup."""

    @property
    def deferred(self) -> deque[Callable[[], None]]:
        """Actions that must wait until all earlier contents are finished, in order.

        The caller that removes one performs it. `finish` performs the others.
        """

    def create_pool(self, processes: int, memory: SharedMemory) -> CreatePool | None:
        """Return processes that create new files from ``memory``; None for a device. See TreeWriter."""

    def put(self, entry: Entry) -> TargetContent | None:
        """Create the next entry. For a FILE or DEVICE, return the content to fill and finish.

        Raises TargetError; IntegrityError for an entry that cannot be in a backup of such a volume.
        """

    def add_written(self, count: int) -> None:
        """Count bytes of contents that are finished."""

    def finish(self) -> None:
        """Complete the volume after all contents, and wait until everything is on disk. Raises TargetError."""

    def warnings(self) -> list[str]:
        """Return warnings about metadata that could not be restored."""

    def losses(self) -> list[Loss]:
        """Return metadata that could not be restored by kind, with counts and examples."""


class DeviceTarget:
    """A volume of mode Block. A larger device gets zeros after the end of the backup."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.deferred: deque[Callable[[], None]] = deque()

    def create_pool(self, _: int, __: SharedMemory) -> CreatePool | None:
        """See Target."""
        return None

    def put(self, entry: Entry) -> TargetContent | None:
        """See Target."""
        if entry.kind is not EntryKind.DEVICE:
            raise IntegrityError("Cannot restore the backup: it is of a device and holds a tree.")
        device = BlockTarget(self._path, entry.size)
        if device.capacity > entry.size:
            device.clear(entry.size, device.capacity - entry.size)
        return device

    def add_written(self, count: int) -> None:
        """See Target. A device counts its own written bytes."""

    def finish(self) -> None:
        """See Target. Finishing the content has completed the device."""

    def warnings(self) -> list[str]:
        """See Target."""
        return []

    def losses(self) -> list[Loss]:
        """See Target."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: no file stays open."""


class TreeTarget:
    """A volume of mode Filesystem.

    Args:
        path: its root.
        fidelity: what to do about losses that appear during the restore.
    """

    def __init__(self, path: str, fidelity: Fidelity = Fidelity.STRICT) -> None:
        assessed = assess_target(path)
        self._assessed = log_unsupported(assessed)
        self._resources = ExitStack()
        writer = TreeWriter(path, assessed, is_strict=fidelity is Fidelity.STRICT, defers=True)
        self._writer = self._resources.enter_context(writer)

    @property
    def deferred(self) -> deque[Callable[[], None]]:
        """See Target."""
        return self._writer.deferred

    def create_pool(self, processes: int, memory: SharedMemory) -> CreatePool | None:
        """See Target."""
        return self._writer.create_pool(processes, memory)

    def put(self, entry: Entry) -> TargetContent | None:
        """See Target."""
        file = self._writer.put(entry)
        if isinstance(file, TargetFile) and not file.is_blank and file.size <= PREFETCHED_BYTES:
            file.prefetch()
        return file

    def add_written(self, count: int) -> None:
        """See Target."""
        self._writer.add_written(count)

    def finish(self) -> None:
        """See Target."""
        self._writer.finish()

    def warnings(self) -> list[str]:
        """See Target."""
        return [*self._assessed, *self._writer.losses.summaries()]

    def losses(self) -> list[Loss]:
        """See Target."""
        return self._writer.losses.list_losses()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


def open_target(mode: VolumeMode, path: str, fidelity: Fidelity = Fidelity.STRICT) -> DeviceTarget | TreeTarget:
    """Return the volume at ``path``, a context manager. Raises TargetError."""
    return DeviceTarget(path) if mode is VolumeMode.BLOCK else TreeTarget(path, fidelity)
