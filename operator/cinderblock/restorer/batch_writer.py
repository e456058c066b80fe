"""Windows whose data are there, in order: written here or by other processes; then what waited for them is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from cinderblock.restorer.batch import FileBatch
from cinderblock.restorer.target import Target
from cinderblock.volume.workers.create_pool import CreatePool, CreateTask, SharedMemory, usable_processes

MIN_POOLED_FILES = 1024
"""Small files after which other processes are started: each takes 60 ms to start, as long as making these files."""
MAX_WAITING_BATCHES = 16
"""Windows that wait for one before them, at most."""


class BatchWriter:
    """The last stage of a restore. Used by the thread that puts entries.

    Args:
        target: what is restored.
        memory: holds what was fetched for windows that have a slot; their slots are given back.
    """

    def __init__(self, target: Target, memory: SharedMemory) -> None:
        self._target = target
        self._memory = memory
        self._makers: CreatePool | None = None
        self._is_decided = False
        self._files = 0
        self._waiting: deque[tuple[CreateTask | None, FileBatch]] = deque()

    @property
    def waiting(self) -> int:
        """Windows that were taken and are not finished."""
        return len(self._waiting)

    def take(self, window: FileBatch) -> Iterator[FileBatch]:
        """Take the next window, whose work is done but for writing what is in its slot; windows that are finished now.

        Raises TargetError; TransientError if a process was lost.
        """
        self._waiting.append((None if window.slot is None else self._begin(window), window))
        while self._waiting and (self._is_done(self._waiting[0][0]) or len(self._waiting) > MAX_WAITING_BATCHES):
            yield self.finish_oldest()

    def finish_oldest(self) -> FileBatch:
        """Wait for the oldest window. Raises as `take`."""
        task, window = self._waiting.popleft()
        if task is not None:
            task.wait()
            window.made_elsewhere()
        if window.slot is not None:
            self._memory.free.append(window.slot)
        for action in window.late:
            action()
        return window

    def close(self) -> None:
        """End other processes, when they have done what they were told."""
        if self._makers is not None:
            self._makers.close()

    def _begin(self, window: FileBatch) -> CreateTask | None:
        """Write what is in a window's slot, or have other processes make its new files."""
        orders = window.order_new_files() if self._is_helped() else []
        task = self._makers.make(orders) if orders and self._makers is not None else None
        window.store((chunk, self._memory.view(start, chunk.size)) for chunk, start in window.starts.items())
        self._files += window.files
        return task

    def _is_helped(self) -> bool:
        """Whether there are other processes; they are started when there has been enough to do for them."""
        if self._files >= MIN_POOLED_FILES and not self._is_decided:
            self._is_decided = True
            if processes := usable_processes():
                # Where none can be started (a limit on processes), this one does all of it.
                with suppress(OSError):
                    self._makers = self._target.create_pool(processes, self._memory)
        return self._makers is not None

    @staticmethod
    def _is_done(task: CreateTask | None) -> bool:
        return task is None or task.is_done
