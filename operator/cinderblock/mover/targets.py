"""The volume that a restore writes: a tree, or a device, which is a tree of one entry."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from cinderblock.datapath.entries import Entry, EntryKind
from cinderblock.device.block import BlockTarget
from cinderblock.device.content import TargetContent
from cinderblock.device.fidelity import assess_target
from cinderblock.device.tree_writer import TreeWriter
from cinderblock.errors import IntegrityError
from cinderblock.model.task import VolumeMode
from cinderblock.mover.sources import PREFETCHED_BYTES, announced


class Target(Protocol):
    """A volume that becomes equal to a backup."""

    def put(self, entry: Entry) -> TargetContent | None:
        """Make the target have the next entry; of a FILE or DEVICE, the content to be filled and finished.

        Raises TargetError; IntegrityError for an entry that cannot be in a backup of such a volume.
        """

    def finish(self) -> None:
        """All contents are finished: complete the rest, and wait until all is stored. Raises TargetError."""

    def warnings(self) -> list[str]:
        """What could not be kept."""


class DeviceTarget:
    """A volume of mode Block. What a larger device holds behind the end of the backup becomes zeros."""

    def __init__(self, path: str) -> None:
        self._path = path

    def put(self, entry: Entry) -> TargetContent | None:
        """See Target."""
        if entry.kind is not EntryKind.DEVICE:
            raise IntegrityError("the backup of a device holds a tree")
        device = BlockTarget(self._path, entry.size)
        if device.capacity > entry.size:
            device.clear(entry.size, device.capacity - entry.size)
        return device

    def finish(self) -> None:
        """See Target: finishing the content was all."""

    def warnings(self) -> list[str]:
        """See Target."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open."""


class TreeTarget:
    """A volume of mode Filesystem."""

    def __init__(self, path: str) -> None:
        fidelity = assess_target(path)
        self._assessed = announced(fidelity)
        self._closing = ExitStack()
        self._writer = self._closing.enter_context(TreeWriter(path, fidelity))

    def put(self, entry: Entry) -> TargetContent | None:
        """See Target."""
        file = self._writer.put(entry)
        if file is not None and not file.is_blank and file.size <= PREFETCHED_BYTES:
            file.prefetch()
        return file

    def finish(self) -> None:
        """See Target."""
        self._writer.finish()

    def warnings(self) -> list[str]:
        """See Target."""
        return [*self._assessed, *self._writer.losses.sentences()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


def open_target(mode: VolumeMode, path: str) -> DeviceTarget | TreeTarget:
    """The volume at ``path``, a context manager. Raises TargetError."""
    return DeviceTarget(path) if mode is VolumeMode.BLOCK else TreeTarget(path)
