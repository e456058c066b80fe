"""Repeat calls of a store that failed for a while."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from cinderblock.errors import StoreUnreachable
from cinderblock.format.range_reader import Buffer
from cinderblock.lifecycle.store.container_rules import LifecycleRule, ObjectLockRule, Versioning
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.deadline import remaining_seconds
from cinderblock.store.retention import ObjectState, Retention, Versions

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to repeat a call.

    Attributes:
        attempts: most attempts at one call.
        first_delay: longest wait after the first failure, in seconds. It doubles with every failure.
        max_delay: longest wait, in seconds, unless the server asks for more.
        total: seconds after the first attempt in which another one may begin. One attempt may take longer.
        read_timeout: seconds that one attempt waits for a response; None: the default of the store.
        seconds_per_call: seconds of one attempt at one request in total; None: by its size.
        check_attempts: the same as ``attempts``, for `ObjectStore.check`, which begins a run.
        check_total: the same as ``total``, for `ObjectStore.check`.
    """

    attempts: int = 10
    first_delay: float = 0.5
    max_delay: float = 30.0
    total: float = 300.0
    read_timeout: float | None = None
    seconds_per_call: float | None = None
    check_attempts: int = 3
    check_total: float = 10.0

    @property
    def for_checks(self) -> RetryPolicy:
        """The policy of checks."""
        return replace(self, attempts=self.check_attempts, total=self.check_total)


MOVER_RETRIES: Final = RetryPolicy(check_attempts=10, check_total=60.0)
"""For movers: servers restart, the network of a node may come late, and hours of work are at stake. A run begins with a
check of one minute, which survives a restart and reports a wrong address soon."""
BROKERED_RETRIES: Final = RetryPolicy(attempts=100, max_delay=15.0, total=330.0, check_attempts=40, check_total=120.0)
"""For movers that need the broker for each request: it may take five minutes to restart. A refused connection takes no
time, so the seconds must end the attempts and not their number: on average, 50 attempts take 330 s."""
CLI_RETRIES: Final = RetryPolicy()
"""For long runs of the command line: like a mover, but the first check reports a wrong address at once."""
OPERATOR_RETRIES: Final = RetryPolicy(
    attempts=3, first_delay=0.25, max_delay=2.0, total=10.0, read_timeout=10.0, seconds_per_call=30.0
)
"""For short commands, and for the operator, which tries again later."""


@dataclass(frozen=True, slots=True)
class RetryClock:
    """Clock, sleep and random numbers, which tests replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform


def repeat(call: Callable[[], T], policy: RetryPolicy = MOVER_RETRIES, clock: RetryClock = RetryClock()) -> T:
    """Return what a call returns. Repeat it while it raises StoreUnreachable.

    Raises StoreUnreachable with the number of attempts after the last one, and other errors at once.
    """
    attempts = _Attempts(policy, clock)
    while True:
        try:
            return call()
        except StoreUnreachable as error:
            attempts.wait_after(error)


class RetryingStore:
    """A store around a store that repeats calls that raise StoreUnreachable. It raises other errors at once."""

    def __init__(
        self, inner: ObjectStore, policy: RetryPolicy = MOVER_RETRIES, clock: RetryClock = RetryClock()
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._clock = clock

    def check(self) -> None:
        """See ObjectStore. A check is repeated for a shorter time than other calls."""
        self._repeat(self._inner.check, self._policy.for_checks)

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        self._repeat(partial(self._inner.put, key, body, lock), self._policy)

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        self._repeat(partial(self._inner.set_lock, key, lock), self._policy)

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        return self._repeat(partial(self._inner.create, key, body), self._policy)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._repeat(partial(self._inner.get, key, start, length), self._policy)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. A listing that breaks off restarts, and skips what the caller already has."""
        last_key = ""
        attempts = _Attempts(self._policy, self._clock)
        while True:
            try:
                for item in self._inner.list(prefix):
                    if item.key > last_key:
                        yield item
                        last_key = item.key
                        attempts.restart()
            except StoreUnreachable as error:
                attempts.wait_after(error)
            else:
                return

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore. Each batch is repeated alone, because ``keys`` can be read only once."""
        remaining = iter(keys)
        while batch := [*islice(remaining, DELETE_BATCH_KEYS)]:
            self._repeat(partial(self._inner.delete, batch), self._policy)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return RetryingRetention(self._inner.retention, partial(self._repeat, policy=self._policy))

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    def _repeat(self, call: Callable[[], T], policy: RetryPolicy) -> T:
        return repeat(call, policy, self._clock)


class RetryingRetention:
    """A Retention that wraps another one and repeats the calls about objects.

    Nothing depends on the rules of the container, so a call for one of them is not worth a wait.
    """

    def __init__(self, inner: Retention, repeat: Callable[[Callable[[], Any]], Any]) -> None:
        self._inner = inner
        self._repeat = repeat

    def versioning(self) -> Versioning:
        """See Retention."""
        return self._inner.versioning()

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        return self._inner.object_lock()

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        return self._inner.lifecycle()

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """See Retention."""
        found: Versions = self._repeat(partial(self._inner.versions, prefix, limit))
        return found

    def inspect(self, key: str, /) -> ObjectState:
        """See Retention."""
        found: ObjectState = self._repeat(partial(self._inner.inspect, key))
        return found


class _Attempts:
    """Attempts at one call."""

    def __init__(self, policy: RetryPolicy, clock: RetryClock) -> None:
        self._policy = policy
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Count from the beginning, after progress."""
        self._failures = 0
        self._began = self._clock.now()

    def wait_after(self, error: StoreUnreachable) -> None:
        """Wait before the next attempt. Raises StoreUnreachable with the number of attempts if there is none."""
        self._failures += 1
        spent = self._clock.now() - self._began
        delay = self._delay(error)
        left = min(self._policy.total - spent, remaining_seconds())
        if self._failures >= self._policy.attempts or delay > left:
            times = "once" if self._failures == 1 else f"{self._failures} times"
            message = f"{error.message.removesuffix('.')} (tried {times} in {spent:.0f} s)"
            raise type(error)(message, reason=error.reason) from error
        log.warning("Attempt %d of a store call failed, retrying in %.1f s: %s", self._failures, delay, error.message)
        self._clock.sleep(delay)

    def _delay(self, error: StoreUnreachable) -> float:
        """Return a delay with full jitter: uniform between zero and a bound that doubles.

        So many movers do not come back together (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog
        2015). The delay that the server asks for is added.
        """
        bound = min(self._policy.first_delay * 2 ** (self._failures - 1), self._policy.max_delay)
        return (error.retry_after or 0.0) + self._clock.uniform(0.0, bound)
