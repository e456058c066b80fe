"""A store whose failures are scripted.

    store = FaultyStore(MemoryStore())
    store.on("put", "packs/").raises(StoreUnreachable("away")).after(3).times(2)
    store.on("put", ".manifest").crashes(done=True)
    store.on("get").flips_a_bit(at=100)

A rule concerns the calls of one operation, optionally only keys that contain a text. It lets the first calls pass
(`after`), changes some (`times`, one by default), and lets the rest pass. If several rules apply, the first one acts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, TypeVar

from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.retention import Retention

Operation = Literal["check", "put", "lock", "get", "list", "delete"]
T = TypeVar("T")


class Crash(BaseException):
    """The death of the process. No code of Cinderblock may handle it."""


class Fault:
    """One rule of the script. Every method returns the rule, so that calls can be chained."""

    def __init__(self, operation: Operation, text: str) -> None:
        self.operation = operation
        self.text = text
        self.error: BaseException | None = None
        self.done = False
        self.partway: int | None = None
        self.seconds = 0.0
        self.change: Callable[[bytes], bytes] = bytes
        self._skipped = 0
        self._left: float = 1

    def raises(self, error: BaseException, *, done: bool = False, partway: int | None = None) -> Fault:
        """Raise an error before the call acts.

        With ``done`` it is raised after the call has acted, so only the response is lost. With ``partway`` it is raised
        after so many objects of a list or a delete.
        """
        self.error, self.done, self.partway = error, done, partway
        return self

    def crashes(self, *, done: bool = False, partway: int | None = None) -> Fault:
        """Die: this and every later call raise Crash, in all threads."""
        return self.raises(Crash(f"crashed at {self.operation} {self.text}"), done=done, partway=partway)

    def truncates(self, to: int) -> Fault:
        """Return only the first bytes of a read."""
        self.change = lambda content: content[:to]
        return self

    def flips_a_bit(self, at: int = 0) -> Fault:
        """Flip one bit of a read, in the byte ``at``; a negative number counts from the end."""

        def flip(content: bytes) -> bytes:
            changed = bytearray(content)
            changed[at] ^= 0x10
            return bytes(changed)

        self.change = flip
        return self

    def delays(self, seconds: float) -> Fault:
        """Delay the call."""
        self.seconds = seconds
        return self

    def after(self, calls: int) -> Fault:
        """Skip so many calls first."""
        self._skipped = calls
        return self

    def times(self, calls: float) -> Fault:
        """Act on so many calls, or on all with infinity."""
        self._left = calls
        return self

    def sees(self, operation: Operation, keys: Iterable[str]) -> bool:
        """Count a call, and return whether to act on it."""
        if operation != self.operation or not any(self.text in key for key in keys):
            return False
        if self._skipped:
            self._skipped -= 1
            return False
        self._left -= 1
        return self._left >= 0


class FaultyStore:
    """A store around a store that fails as scripted. Without a script it does nothing else."""

    def __init__(self, inner: ObjectStore, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner = inner
        self._sleep = sleep
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._crash: BaseException | None = None

    def on(self, operation: Operation, text: str = "") -> Fault:
        """Begin a rule for calls whose key contains ``text`` (list: the prefix; delete: any key)."""
        fault = Fault(operation, text)
        with self._lock:
            self._faults.append(fault)
        return fault

    def check(self) -> None:
        """See ObjectStore."""
        self._call(self._fault("check", [""]), self._inner.check)

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        self._call(self._fault("put", [key]), lambda: self._inner.put(key, body, lock))

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        self._call(self._fault("lock", [key]), lambda: self._inner.set_lock(key, lock))

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        return self._call(self._fault("put", [key]), lambda: self._inner.create(key, body))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        fault = self._fault("get", [key])
        content = self._call(fault, lambda: self._inner.get(key, start, length))
        return fault.change(content) if fault else content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        fault = self._fault("list", [prefix])
        listing = self._call(fault, lambda: self._inner.list(prefix))
        partway = fault.partway if fault else None
        yield from islice(listing, partway)
        if fault and partway is not None:
            self._fail(fault)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        given = [*keys]
        fault = self._fault("delete", given)
        if fault and fault.partway is not None:
            self._inner.delete(given[: fault.partway])
            self._fail(fault)
        self._call(fault, lambda: self._inner.delete(given))

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    def _fault(self, operation: Operation, keys: Iterable[str]) -> Fault | None:
        """Return the rule that acts on this call."""
        with self._lock:
            if self._crash is not None:
                raise self._crash
            acting = [fault for fault in self._faults if fault.sees(operation, keys)]
        return acting[0] if acting else None

    def _call(self, fault: Fault | None, perform: Callable[[], T]) -> T:
        if fault is None:
            return perform()
        if fault.seconds:
            self._sleep(fault.seconds)
        fails = fault.error is not None and fault.partway is None
        if fails and not fault.done:
            self._fail(fault)
        result = perform()
        if fails:
            self._fail(fault)
        return result

    def _fail(self, fault: Fault) -> None:
        assert fault.error is not None
        if isinstance(fault.error, Crash):
            with self._lock:
                self._crash = fault.error
        raise fault.error
