"""A cache of results that have an age, an owner and a limit."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class TtlCache(Generic[V]):
    """Results by key. Each owner has its share, so that no owner makes the cache forget the results of others.

    Args:
        total: maximum number of results.
        per_owner: maximum number of results of one owner. The oldest one makes room.
        clock: returns seconds.
    """

    def __init__(self, total: int, per_owner: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._per_owner = per_owner
        self._clock = clock
        self._results: OrderedDict[str, tuple[float, str, V]] = OrderedDict()
        self._of_owner: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: str) -> V | None:
        """Return a result, or None if there is none or it is too old."""
        found = self._results.get(key)
        if found is None:
            return None
        if self._clock() >= found[0]:
            self.forget(key)
            return None
        return found[2]

    def put(self, key: str, owner: str, value: V, seconds: float) -> None:
        """Keep a result for ``seconds``."""
        self.forget(key)
        held = self._of_owner.get(owner, OrderedDict())
        if len(held) >= self._per_owner:
            self.forget(next(iter(held)))
        while len(self._results) >= self._total:
            most = max(self._of_owner, key=lambda name: len(self._of_owner[name]))
            self.forget(next(iter(self._of_owner[most])))
        self._results[key] = self._clock() + seconds, owner, value
        self._of_owner[owner][key] = None

    def forget(self, key: str) -> None:
        """Forget a result, if there is one."""
        found = self._results.pop(key, None)
        if found is not None:
            held = self._of_owner[found[1]]
            del held[key]
            if not held:
                del self._of_owner[found[1]]
