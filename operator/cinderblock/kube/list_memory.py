"""Memory for lists that a process holds while it answers requests of many callers.

A list of 10,000 objects takes some 100 MiB, so a few at once would end a process with a memory limit. Each request has
an account. Small lists share a few slots. A request that holds more must hold the only lock for large lists; it never
waits for anything else while it has that, so it always ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cinderblock.errors import InvalidInput, KubeUnavailable
from cinderblock.reasons import Reason

SLOTS: Final = 4
"""Requests that may hold a list at the same time; others wait."""
SMALL_BYTES: Final = 8 << 20
"""Limit of each of them without the lock: a page of 500 backups."""
LARGE_BYTES: Final = 96 << 20
"""Limit of one request: 9000 volumes, or 60,000 backups of which only rows are held."""


class ListMemory:
    """The slots of one process, and the lock for large lists."""

    def __init__(self, *, slots: int = SLOTS, small: int = SMALL_BYTES, large: int = LARGE_BYTES) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.large_list = asyncio.Lock()
        self.small_bytes = small
        self.large_bytes = large

    @asynccontextmanager
    async def account(self) -> AsyncIterator[ListAccount]:
        """Return the account of one request, and release everything at its end."""
        account = ListAccount(self)
        try:
            yield account
        finally:
            account.close()


class ListAccount:
    """The memory of one request. Several lists of the request may draw from it at the same time."""

    def __init__(self, memory: ListMemory) -> None:
        self._memory = memory
        self._turn = asyncio.Lock()
        self._held = 0
        self._has_slot = False
        self._is_large = False
        self._is_closed = False

    async def hold(self, amount: int) -> None:
        """Add to what the request holds, and wait until that is possible; 0 waits for a slot before the first list.

        Raises:
            InvalidInput: the request would hold more than any request may (reason RequestTooLarge).
            KubeUnavailable: the request has ended meanwhile.
        """
        self._held += amount
        if self._held > self._memory.large_bytes:
            raise InvalidInput(
                "The list is too large to be held in memory. Use filters, or list with kubectl.",
                reason=Reason.REQUEST_TOO_LARGE,
            )
        async with self._turn:
            if not self._has_slot:
                await self._memory.slots.acquire()
                self._has_slot = True
            if self._held > self._memory.small_bytes and not self._is_large:
                await self._memory.large_list.acquire()
                self._is_large = True
            if self._is_closed:
                self.close()
                raise KubeUnavailable("The request has ended before its list was read")

    def close(self) -> None:
        """Release everything. May be repeated; a list of the request that still runs then ends with an error."""
        self._is_closed = True
        if self._has_slot:
            self._memory.slots.release()
        if self._is_large:
            self._memory.large_list.release()
        self._has_slot = self._is_large = False
