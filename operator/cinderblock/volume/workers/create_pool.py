"""A pool of processes that create small files for a restore, and the shared memory that passes them the bytes."""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection

from typing_extensions import override

from cinderblock.errors import TargetError, TransientError
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.metadata_support import MetadataLosses
from cinderblock.volume.workers import process as workers_process
from cinderblock.volume.workers.create_worker import STRICT, CreateOrder, CreateResult

MAX_PROCESSES = 2
"""Most processes, each of 15 MiB. Measured with 124,000 new files on 2 processors: 8.2 to 9.0 s without, 7.4 to 7.7 s
with one, 7.5 to 7.8 s with two. On an ext4 from which as many files had just been removed: 36 s without, 16 s with
two."""


class SharedMemory(Closeable):
    """Memory shared with other processes, in slots of equal size. The kernel allocates it on the first write.

    Attributes:
        descriptor: gives other processes access to the memory.
        free: numbers of unused slots.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self._slot_bytes = slot_bytes
        self.free = list(range(slots))
        self.descriptor = os.memfd_create("cinderblock", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, slots * slot_bytes)
        self._view = memoryview(mmap.mmap(self.descriptor, slots * slot_bytes))

    def start_of(self, slot: int) -> int:
        """Return the start of a slot."""
        return slot * self._slot_bytes

    def view(self, start: int, length: int) -> memoryview:
        """Return a view of a part of the memory."""
        return self._view[start : start + length]

    @override
    def close(self) -> None:
        """Release the memory, except for views that are still in use. May be repeated."""
        self._view = memoryview(b"")
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class CreateTask:
    """Orders that a process is executing or has executed."""

    def __init__(self, process: _Process, losses: MetadataLosses) -> None:
        self._process = process
        self._losses = losses
        self.result: CreateResult | None = None

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once."""
        return self.result is not None or self._process.has_result()

    def wait(self) -> None:
        """Wait until all files are created, and count the metadata that could not be kept.

        Raises TargetError if a file could not be created; TransientError if the process has ended.
        """
        while self.result is None:
            self._process.take_result()
        message, lost = self.result
        self._losses.add(lost)
        if message is not None:
            raise TargetError(message)


def usable_processes() -> int:
    """Return how many processes to start. One processor is reserved for the reader of the manifest."""
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)) - 1)


class CreatePool(Closeable):
    """Processes that create files. Only one thread may use the pool.

    Raises OSError if a process cannot be started.

    Args:
        count: number of processes.
        root: descriptor of the volume's root.
        memory: contains the bytes of the files.
        losses: counts metadata that cannot be kept.
    """

    def __init__(self, count: int, root: int, memory: SharedMemory, losses: MetadataLosses) -> None:
        self._losses = losses
        arguments = [STRICT if losses.is_strict else "BestEffort", *(feature.name for feature in losses.lacking)]
        self._processes: list[_Process] = []
        try:
            for _ in range(count):
                self._processes.append(_Process(root, memory.descriptor, arguments))
        except OSError:
            self.close()
            raise

    def make(self, orders: Sequence[CreateOrder]) -> CreateTask:
        """Send orders to the process with the fewest tasks. Raises TransientError if it has ended."""
        process = min(self._processes, key=lambda process: len(process.tasks))
        task = CreateTask(process, self._losses)
        process.submit(task, orders)
        return task

    @override
    def close(self) -> None:
        """Wait until all orders are executed, and end the processes. May be repeated."""
        for process in self._processes:
            process.stop()


class _Process:
    """One process of the pool.

    Attributes:
        tasks: tasks without a result, in order.
    """

    def __init__(self, root: int, memory: int, arguments: Sequence[str]) -> None:
        parent_end, child_end = socket.socketpair()
        with parent_end, child_end:
            descriptors = (child_end.fileno(), root, memory)
            self._child = workers_process.spawn("cinderblock.volume.workers.create_worker", descriptors, arguments)
            self._connection = Connection(parent_end.detach())
        self.tasks: deque[CreateTask] = deque()

    def submit(self, task: CreateTask, orders: Sequence[CreateOrder]) -> None:
        """Send orders. This waits while the process has more of them than fit into the socket."""
        try:
            self._connection.send(orders)
        except OSError as error:
            raise self._worker_died() from error
        self.tasks.append(task)

    def has_result(self) -> bool:
        """Return whether a result is available, or the process has ended."""
        return self._connection.poll()

    def take_result(self) -> None:
        """Wait for the result of the oldest task."""
        try:
            result: CreateResult = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._worker_died() from error
        self.tasks.popleft().result = result

    def stop(self) -> None:
        """End the process, and wait for it."""
        if not self._connection.closed:
            self._connection.close()
        self._child.wait()

    def _worker_died(self) -> TransientError:
        self.stop()
        return workers_process.worker_died(self._child, "create small files")
