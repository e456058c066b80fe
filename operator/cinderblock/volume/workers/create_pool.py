"""Processes that make small files of a restore (`making`), and the memory by which they get their bytes."""

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
"""Processes at most, each of 15 MiB. Measured with 124,000 new files on 2 processors: 8.2 to 9.0 s without, 7.4 to 7.7
s with one, 7.5 to 7.8 s with two; on an ext4 from which as many files had just been removed 36 s without, 16 s with
two."""


class SharedMemory(Closeable):
    """Memory that other processes see too, in slots of the same size. The kernel gives it out as it is written to.

    Attributes:
        descriptor: for those processes; it stands for the memory.
        free: numbers of slots that nobody uses.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self._slot_bytes = slot_bytes
        self.free = list(range(slots))
        self.descriptor = os.memfd_create("cinderblock", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, slots * slot_bytes)
        self._view = memoryview(mmap.mmap(self.descriptor, slots * slot_bytes))

    def start_of(self, slot: int) -> int:
        """Where a slot begins."""
        return slot * self._slot_bytes

    def view(self, start: int, length: int) -> memoryview:
        """A part of it."""
        return self._view[start : start + length]

    @override
    def close(self) -> None:
        """Give it up; what somebody still has a view of goes with that view. May be repeated."""
        self._view = memoryview(b"")
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class CreateTask:
    """Orders that a process is working on, or has carried out."""

    def __init__(self, process: _Process, losses: MetadataLosses) -> None:
        self._process = process
        self._losses = losses
        self.result: CreateResult | None = None

    @property
    def is_done(self) -> bool:
        """Whether waiting for it would not take long."""
        return self.result is not None or self._process.has_result()

    def wait(self) -> None:
        """Wait until all its files are made, and count what could not be kept.

        Raises TargetError if a file was refused; TransientError if the process has ended.
        """
        while self.result is None:
            self._process.take_result()
        refusal, lost = self.result
        self._losses.add(lost)
        if refusal is not None:
            raise TargetError(refusal)


def usable_processes() -> int:
    """How many processes to start: one processor is for who goes through the manifest."""
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)) - 1)


class CreatePool(Closeable):
    """Some such processes; used by one thread.

    Raises OSError if the kernel starts none.

    Args:
        count: how many processes.
        root: descriptor of the volume's root.
        memory: where the bytes of files are.
        losses: says what cannot be kept, and counts it.
    """

    def __init__(self, count: int, root: int, memory: SharedMemory, losses: MetadataLosses) -> None:
        self._losses = losses
        keeping = [STRICT if losses.is_strict else "BestEffort", *(feature.name for feature in losses.lacking)]
        self._processes: list[_Process] = []
        try:
            for _ in range(count):
                self._processes.append(_Process(root, memory.descriptor, keeping))
        except OSError:
            self.close()
            raise

    def make(self, orders: Sequence[CreateOrder]) -> CreateTask:
        """Have files made, by the process that has the least to do. Raises TransientError if it has ended."""
        process = min(self._processes, key=lambda process: len(process.tasks))
        task = CreateTask(process, self._losses)
        process.submit(task, orders)
        return task

    @override
    def close(self) -> None:
        """Order nothing more, and wait until what was ordered is done. May be repeated."""
        for process in self._processes:
            process.stop()


class _Process:
    """One process.

    Attributes:
        tasks: what it has not answered yet, in order.
    """

    def __init__(self, root: int, memory: int, keeping: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            given = (theirs.fileno(), root, memory)
            self._child = workers_process.spawn("cinderblock.volume.workers.create_worker", given, keeping)
            self._connection = Connection(ours.detach())
        self.tasks: deque[CreateTask] = deque()

    def submit(self, task: CreateTask, orders: Sequence[CreateOrder]) -> None:
        """Send orders; waits while the process has more of them than a socket holds."""
        try:
            self._connection.send(orders)
        except OSError as error:
            raise self._worker_died() from error
        self.tasks.append(task)

    def has_result(self) -> bool:
        """Whether there is an answer to be taken; its end counts too."""
        return self._connection.poll()

    def take_result(self) -> None:
        """Wait for the answer to the oldest task."""
        try:
            answer: CreateResult = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._worker_died() from error
        self.tasks.popleft().result = answer

    def stop(self) -> None:
        """Tell it to end, and wait for that."""
        if not self._connection.closed:
            self._connection.close()
        self._child.wait()

    def _worker_died(self) -> TransientError:
        self.stop()
        return workers_process.worker_died(self._child, "writes small files")
