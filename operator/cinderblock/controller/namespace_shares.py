"""How many workers one namespace may hold, and how many keys it may take, so that it holds up no other namespace.

A namespace that is alone uses nearly everything. While others work, it gets a share of the workers, and a rate: the
workers share one processor, so a few of them could still take most of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

RESERVE: Final = 4
"""A namespace always leaves one of this many workers free: it may hold the others for as long as a store is slow."""
SHARE: Final = 8
"""While others work, a namespace holds at most one of this many workers."""
KEYS_PER_SECOND: Final = 15.0
"""Keys that a namespace takes per second while others work. A reconciliation takes about 15 ms of processor time, so
four busy namespaces use one processor. With this rate, a flood of changes in one namespace makes a reconciliation of
another take 1.6 times as long, with 20 per second 2.1 times (`test_namespace_shares`)."""
KEYS_AT_ONCE: Final = 30.0
"""Keys that a namespace takes at once before the rate applies: about three backups from end to end."""
KEY_SECONDS: Final = 0.1
"""A key that a worker holds for longer counts as several: it read large objects, or waits for a slow store."""
MAX_EXTRA_KEYS: Final = 15.0
"""Most additional keys for which a long-held key counts, so that a namespace always takes one a second."""
RECENT_SECONDS: Final = 1.0
"""For how long a namespace counts as working after it took a key: the steps of an operation follow each other."""
ROUNDING: Final = 1e-3
"""Fraction of a key that may be missing: a shorter delay could be too short for the clock to advance."""
PURGE_SECONDS: Final = 10.0
"""Seconds between two searches for namespaces that have been idle. An idle one has its full allowance again."""


@dataclass(slots=True)
class _Use:
    """The keys that a namespace may still take at once, and when it last took one."""

    allowance: float = KEYS_AT_ONCE
    at: float = float("-inf")


@dataclass(slots=True)
class NamespaceShares:
    """The workers that each namespace holds, and the keys that it took. For one event loop.

    Attributes:
        workers: number of workers; None: there are no limits.
    """

    workers: int | None = None
    _held: Counter[str] = field(default_factory=Counter)
    _uses: dict[str, _Use] = field(default_factory=dict)
    _recent: list[tuple[float, str]] = field(default_factory=list)
    """The two namespaces that took a key last, each with the instant."""
    _purged_at: float = 0.0

    def delay(self, namespace: str, now: float, *, others_due: bool) -> float:
        """Return the seconds until a namespace may take a key; infinity: not before it releases one.

        Args:
            namespace: the namespace.
            now: the time.
            others_due: whether keys of other namespaces are due.
        """
        if self.workers is None:
            return 0.0
        held = self._held[namespace]
        if held and held >= self.workers - self.workers // RESERVE:
            return float("inf")
        if not (others_due or self._others_work(namespace, now)):
            return 0.0
        if held >= max(1, self.workers // SHARE):
            return float("inf")
        missing = 1.0 - self._allowance(namespace, now)
        return missing / KEYS_PER_SECOND if missing > ROUNDING else 0.0

    def take(self, namespace: str, now: float) -> None:
        """Take note that a worker took a key of a namespace."""
        self._held[namespace] += 1
        self._uses[namespace] = _Use(self._allowance(namespace, now) - 1.0, now)
        self._recent = [(now, namespace), *(entry for entry in self._recent if entry[1] != namespace)][:2]
        if now - self._purged_at >= PURGE_SECONDS:
            self._purged_at = now
            self._uses = {name: use for name, use in self._uses.items() if self._allowance(name, now) < KEYS_AT_ONCE}

    def release(self, namespace: str, seconds: float) -> None:
        """Take note that a worker released a key of a namespace after it had held it for this many seconds."""
        use = self._uses.get(namespace)
        if use is not None:
            extra = min(MAX_EXTRA_KEYS, max(0.0, seconds / KEY_SECONDS - 1.0))
            use.allowance = max(-KEYS_AT_ONCE, use.allowance - extra)
        self._held[namespace] -= 1
        if self._held[namespace] <= 0:
            del self._held[namespace]

    def _allowance(self, namespace: str, now: float) -> float:
        use = self._uses.get(namespace)
        if use is None:
            return KEYS_AT_ONCE
        return min(KEYS_AT_ONCE, use.allowance + (now - use.at) * KEYS_PER_SECOND)

    def _others_work(self, namespace: str, now: float) -> bool:
        is_recent = any(now - at <= RECENT_SECONDS and name != namespace for at, name in self._recent)
        return is_recent or len(self._held) > (namespace in self._held)
