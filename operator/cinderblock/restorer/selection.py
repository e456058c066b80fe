"""Some paths of a backup, and not the rest."""

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
    """Paths that are wanted, each with all that is below it, and the directories that lead there.

    Args:
        paths: as a person writes them: relative to the root of the backup, with or without a slash or ``./`` in front.
    """

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._wanted = {_normalized(path): False for path in paths}
        self._leading = {leading for path in self._wanted for leading in _leading(path)}

    def holds(self, entry: Entry) -> bool:
        """Whether an entry is to be restored."""
        if entry.path in self._leading and entry.kind is EntryKind.DIRECTORY:
            return True
        for path in (*_leading(entry.path), entry.path):
            if path in self._wanted:
                self._wanted[path] = True
                return True
        return False

    def complete(self, entries: Iterable[Entry]) -> None:
        """Look through a backup: a hard link that is wanted makes the file wanted that it is a link to.

        Raises NotFound naming a path that the backup does not have.
        """
        links = {entry.target for entry in entries if self.holds(entry) and entry.kind is EntryKind.HARDLINK}
        missing = [path for path, found in self._wanted.items() if not found]
        if missing:
            names = ", ".join(path.decode(errors="backslashreplace") for path in missing)
            raise NotFound(f"The backup does not have {names}", reason=Reason.PATH_NOT_FOUND)
        for path in links:
            self._wanted.setdefault(path, True)
            self._leading.update(_leading(path))


class SelectedTarget:
    """A target that takes only what is selected."""

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
    """A path as entries have it."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _leading(path: bytes) -> list[bytes]:
    """The directories that lead to a path, the root first; not the path itself."""
    if not path:
        return []
    parts = path.split(b"/")
    return [b"/".join(parts[:length]) for length in range(len(parts))]
