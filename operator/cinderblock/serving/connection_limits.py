"""Limit the connections of a server, in total and of one client. Pure: no sockets and no clock.

A server that refuses new connections when it is full can be stopped by anybody who fills it. So the *oldest* connection
that waits for its client makes room for a new one: of the same client if that one has reached its own limit, otherwise
of the client with the most connections. A connection whose request is being handled is never cut off.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol


class Holder(Protocol):
    """A connection, as the limits see it.

    Attributes:
        client: what identifies its client.
        is_trusted: whether the peer is a trusted proxy: it holds the connections of many clients.
    """

    client: str
    is_trusted: bool

    @property
    def waiting_since(self) -> float | None:
        """Since when the connection waits for its client; None while the server works on a request."""

    def abort(self) -> None:
        """Close the connection at once."""


class ConnectionLimits:
    """The connections that a server holds.

    Args:
        total: maximum number of connections.
        per_client: maximum number of one client, unless it is a trusted proxy.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._by_client: defaultdict[str, set[Holder]] = defaultdict(set)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, holder: Holder) -> bool:
        """Count a new connection, after making room for it. Return False if there is no room."""
        own = self._by_client.get(holder.client, set())
        if not holder.is_trusted and len(own) >= self._per_client and not self._make_room(own):
            return False
        if self._count >= self._total and not self._make_room_anywhere():
            return False
        self._by_client[holder.client].add(holder)
        self._count += 1
        return True

    def release(self, holder: Holder) -> None:
        """Forget a connection. May be repeated."""
        held = self._by_client.get(holder.client, set())
        if holder not in held:
            return
        held.remove(holder)
        self._count -= 1
        if not held:
            del self._by_client[holder.client]

    def _make_room_anywhere(self) -> bool:
        """Abort one connection of the client with the most; a trusted proxy comes last."""
        by_size = sorted(self._by_client.values(), key=lambda held: (any(h.is_trusted for h in held), -len(held)))
        return any(self._make_room(held) for held in by_size)

    def _make_room(self, held: set[Holder]) -> bool:
        waiting = [(holder.waiting_since, holder) for holder in held]
        idle = [(since, holder) for since, holder in waiting if since is not None]
        if not idle:
            return False
        _, oldest = min(idle, key=lambda pair: pair[0])
        self.release(oldest)
        oldest.abort()
        return True
