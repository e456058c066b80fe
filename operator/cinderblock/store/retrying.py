"""Tries again what may be tried again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from cinderblock.errors import StoreUnreachable
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import BATCH, ObjectInfo, ObjectStore

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to try.

    Attributes:
        attempts: times that a call is tried, at most.
        first_delay: longest wait after the first failure, in seconds; it doubles with every failure.
        longest_delay: longest wait that is chosen here, in seconds; a server may ask for more.
        total: seconds from the first attempt after which none is begun. One attempt may take longer.
        answer: seconds that one attempt waits for an answer; None: as long as the store thinks right.
        check_attempts: the same as ``attempts``, for `ObjectStore.check`, with which a run begins.
        check_total: the same as ``total``, likewise.
    """

    attempts: int = 10
    first_delay: float = 0.5
    longest_delay: float = 30.0
    total: float = 300.0
    answer: float | None = None
    check_attempts: int = 3
    check_total: float = 10.0

    @property
    def of_checks(self) -> RetryPolicy:
        """How long to try a check."""
        return replace(self, attempts=self.check_attempts, total=self.check_total)


MOVER_RETRIES: Final = RetryPolicy(check_attempts=10, check_total=60.0)
"""For movers: a server may restart, a node's network may come late, and hours of work are at stake. At the beginning
nothing is yet: then an address that does not answer at all is told within a minute, and a restart is sat out."""
CLI_RETRIES: Final = RetryPolicy()
"""For a person who starts a long run: as patient once it goes, but an address that is wrong is told at once."""
OPERATOR_RETRIES: Final = RetryPolicy(attempts=3, first_delay=0.25, longest_delay=2.0, total=10.0, answer=10.0)
"""For whoever waits for an answer: a person, or the operator, which asks again later."""


@dataclass(frozen=True, slots=True)
class RetryClock:
    """Clock, sleep and dice, which tests replace."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform


class RetryingStore:
    """A store around a store that repeats calls that raise StoreUnreachable, and raises everything else at once."""

    def __init__(
        self, inner: ObjectStore, patience: RetryPolicy = MOVER_RETRIES, chance: RetryClock = RetryClock()
    ) -> None:
        self._inner = inner
        self._patience = patience
        self._chance = chance

    def check(self) -> None:
        """See ObjectStore. Tried for a shorter time than anything else: who checks wants to know."""
        self._repeat(self._inner.check, self._patience.of_checks)

    def put(self, key: str, body: Buffer) -> None:
        """See ObjectStore."""
        self._repeat(partial(self._inner.put, key, body), self._patience)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._repeat(partial(self._inner.get, key, start, length), self._patience)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. A listing that breaks off is begun again, and what has been given already is passed over."""
        done = ""
        trial = _Attempts(self._patience, self._chance)
        while True:
            try:
                for item in self._inner.list(prefix):
                    if item.key > done:
                        yield item
                        done = item.key
                        trial.restart()
            except StoreUnreachable as error:
                trial.wait_after(error)
            else:
                return

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore. Repeated batch by batch, because the keys can be read only once."""
        todo = iter(keys)
        while batch := [*islice(todo, BATCH)]:
            self._repeat(partial(self._inner.delete, batch), self._patience)

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    def _repeat(self, call: Callable[[], T], patience: RetryPolicy) -> T:
        trial = _Attempts(patience, self._chance)
        while True:
            try:
                return call()
            except StoreUnreachable as error:
                trial.wait_after(error)


class _Attempts:
    """The attempts at one call."""

    def __init__(self, patience: RetryPolicy, chance: RetryClock) -> None:
        self._patience = patience
        self._chance = chance
        self.restart()

    def restart(self) -> None:
        """Something has been achieved: count anew."""
        self._failures = 0
        self._began = self._chance.clock()

    def wait_after(self, error: StoreUnreachable) -> None:
        """Wait before the next attempt. Raises StoreUnreachable, saying what was tried, if there is to be none."""
        self._failures += 1
        spent = self._chance.clock() - self._began
        delay = self._delay(error)
        if self._failures >= self._patience.attempts or spent + delay > self._patience.total:
            times = "once" if self._failures == 1 else f"{self._failures} times"
            raise StoreUnreachable(f"{error.message} (tried {times} in {spent:.0f} s)", reason=error.reason) from error
        log.warning("%s; attempt %d follows in %.1f s", error.message, self._failures + 1, delay)
        self._chance.sleep(delay)

    def _delay(self, error: StoreUnreachable) -> float:
        """Full jitter: uniform between nothing and a bound that doubles, so that many movers do not come back together
        (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015). What the server asks for comes on top.
        """
        bound = min(self._patience.first_delay * 2 ** (self._failures - 1), self._patience.longest_delay)
        return (error.retry_after or 0.0) + self._chance.uniform(0.0, bound)
