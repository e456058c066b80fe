"""Restore some paths of a backup."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from cinderblock.api.losses import Loss
from cinderblock.errors import NotFound
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.reasons import Reason
from cinderblock.restorer.target import Target
from cinderblock.volume.content import TargetContent
from cinderblock.volume.workers.create_pool import CreatePool, SharedMemory


class Selection:
    """Selected paths with everything below them, and the directories that lead there.

    Args:
        paths: relative to the root of the backup, with or without a leading slash or ``./``.
    """

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._selected = {_normalized(path): False for path in paths}
        self._ancestors = {ancestor for path in self._selected for ancestor in _parents(path)}

    def holds(self, entry: Entry) -> bool:
        """Return whether an entry is selected."""
        if entry.path in self._ancestors and entry.kind is EntryKind.DIRECTORY:
            return True
        for path in (*_parents(entry.path), entry.path):
            if path in self._selected:
                self._selected[path] = True
                return True
        return False

    def complete(self, entries: Iterable[Entry]) -> None:
        """Read the entries of a backup, and also select the files that selected hard links lead to.

        Raises NotFound naming a path that the backup does not have.
        """
        links = {entry.target for entry in entries if self.holds(entry) and entry.kind is EntryKind.HARDLINK}
        missing = [path for path, found in self._selected.items() if not found]
        if missing:
            names = ", ".join(path.decode(errors="backslashreplace") for path in missing)
            raise NotFound(f"Cannot restore {names}: the backup has no such path.", reason=Reason.PATH_NOT_FOUND)
        for path in links:
            self._selected.setdefault(path, True)
            self._ancestors.update(_parents(path))


class SelectedTarget:
    """A target that ignores entries that are not selected."""

    def __init__(self, inner: Target, selection: Selection) -> None:
        self._inner = inner
        self._selection = selection

    @property
    def deferred(self) -> deque[Callable[[], None]]:
        """See Target."""
        return self._inner.deferred

    def create_pool(self, processes: int, memory: SharedMemory) -> CreatePool | None:
        """See Target."""
        return self._inner.create_pool(processes, memory)

    def put(self, entry: Entry) -> TargetContent | None:
        """See Target."""
        return self._inner.put(entry) if self._selection.holds(entry) else None

    def add_written(self, count: int) -> None:
        """See Target."""
        self._inner.add_written(count)

    def finish(self) -> None:
        """See Target."""
        self._inner.finish()

    def warnings(self) -> list[str]:
        """See Target."""
        return self._inner.warnings()

    def losses(self) -> list[Loss]:
        """See Target."""
        return self._inner.losses()


def _normalized(path: bytes) -> bytes:
    """Return a path in the form that entries have."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _parents(path: bytes) -> list[bytes]:
    """Return the directories that lead to a path, the root first, without the path itself."""
    if not path:
        return []
    parts = path.split(b"/")
    return [b"/".join(parts[:length]) for length in range(len(parts))]
