"""Write batches whose data is there, in order, with the help of other processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from cinderblock.restorer.batch import FileBatch
from cinderblock.restorer.target import Target
from cinderblock.volume.workers.create_pool import CreatePool, CreateTask, SharedMemory, usable_processes

MIN_POOLED_FILES = 1024
"""Small files after which other processes start. Starting one takes 60 ms, as long as creating these files."""
MAX_WAITING_BATCHES = 16
"""Most batches that wait for an earlier one."""


class BatchWriter:
    """The last stage of a restore. Used by the thread that puts entries.

    Args:
        target: the volume that is restored.
        memory: holds the chunks of batches with a slot; finished batches return their slots.
    """

    def __init__(self, target: Target, memory: SharedMemory) -> None:
        self._target = target
        self._memory = memory
        self._create_pool: CreatePool | None = None
        self._is_decided = False
        self._files = 0
        self._waiting: deque[tuple[CreateTask | None, FileBatch]] = deque()

    @property
    def waiting(self) -> int:
        """Number of batches that were added and are not finished."""
        return len(self._waiting)

    def add(self, batch: FileBatch) -> Iterator[FileBatch]:
        """Add the next batch, of which only the chunks in its slot must be written. Return batches that are finished.

        Raises TargetError; TransientError if a process died.
        """
        self._waiting.append((None if batch.slot is None else self._begin(batch), batch))
        while self._waiting and (self._is_done(self._waiting[0][0]) or len(self._waiting) > MAX_WAITING_BATCHES):
            yield self.finish_oldest()

    def finish_oldest(self) -> FileBatch:
        """Wait for the oldest batch. Raises what `add` raises."""
        task, batch = self._waiting.popleft()
        if task is not None:
            task.wait()
            batch.finish_delegated()
        if batch.slot is not None:
            self._memory.free.append(batch.slot)
        for action in batch.deferred:
            action()
        return batch

    def close(self) -> None:
        """End the other processes after their work."""
        if self._create_pool is not None:
            self._create_pool.close()

    def _begin(self, batch: FileBatch) -> CreateTask | None:
        """Write the chunks in the slot of a batch, or let other processes create its new files."""
        orders = batch.order_new_files() if self._may_use_pool() else []
        task = self._create_pool.make(orders) if orders and self._create_pool is not None else None
        batch.store((chunk, self._memory.view(start, chunk.size)) for chunk, start in batch.chunk_starts.items())
        self._files += batch.files
        return task

    def _may_use_pool(self) -> bool:
        """Return whether there are other processes. They start once there are enough files."""
        if self._files >= MIN_POOLED_FILES and not self._is_decided:
            self._is_decided = True
            if processes := usable_processes():
                # If no process can start (a limit on processes), this one does all the work.
                with suppress(OSError):
                    self._create_pool = self._target.create_pool(processes, self._memory)
        return self._create_pool is not None

    @staticmethod
    def _is_done(task: CreateTask | None) -> bool:
        return task is None or task.is_done
