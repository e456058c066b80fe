"""Memory for lists that a process holds while it answers requests of many callers.

A list of 10,000 objects takes some 100 MiB, so a few at once would end a process with a memory limit. Each request has
an account. Small lists share a few slots, of which one caller gets half. A request that holds more must hold the only
lock for large lists; it never waits for anything else while it has that, so it always ends. Requests that wait for that
lock give their slots back, one of each caller and a few in all, so that large lists hold up no small ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from cinderblock.errors import InvalidInput, KubeUnavailable
from cinderblock.reasons import Reason

SLOTS: Final = 4
"""Requests that may hold a list at the same time; others wait."""
SLOTS_OF_A_CALLER: Final = 2
"""Those of one caller."""
WAITING_WITHOUT_SLOT: Final = 4
"""Requests that wait for the lock for large lists without a slot. Each holds a small list."""
WAIT_WITH_SLOT_SECONDS: Final = 5.0
"""For how long any other request waits for that lock, before it fails. A large list takes a few seconds."""
SMALL_BYTES: Final = 8 << 20
"""Limit of each of them without the lock: a page of 500 backups."""
LARGE_BYTES: Final = 96 << 20
"""Limit of one request: 9000 volumes, or 60,000 backups of which only rows are held."""


@dataclass(slots=True, weakref_slot=True)
class _Caller:
    """A caller, while a request of it is answered.

    Attributes:
        slots: its share of the slots.
        is_waiting: whether a request of it waits for the lock for large lists without a slot.
    """

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS_OF_A_CALLER))
    is_waiting: bool = False


class ListMemory:
    """The slots of one process, and the lock for large lists."""

    def __init__(self, *, slots: int = SLOTS, small: int = SMALL_BYTES, large: int = LARGE_BYTES) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.large_list = asyncio.Lock()
        self.waiting = 0
        self.small_bytes = small
        self.large_bytes = large
        self._callers: WeakValueDictionary[str, _Caller] = WeakValueDictionary()

    @asynccontextmanager
    async def account(self, caller: str = "") -> AsyncIterator[ListAccount]:
        """Return the account of one request, and release everything at its end."""
        account = ListAccount(self, caller)
        try:
            yield account
        finally:
            account.close()

    def caller(self, name: str) -> _Caller:
        """Return what the requests of a caller share."""
        found = self._callers.get(name) or _Caller()
        self._callers[name] = found
        return found


class ListAccount:
    """The memory of one request. Several lists of the request may draw from it at the same time."""

    def __init__(self, memory: ListMemory, caller: str = "") -> None:
        self._memory = memory
        self._caller = memory.caller(caller)
        self._turn = asyncio.Lock()
        self._held = 0
        self._has_slot = False
        self._is_large = False
        self._is_closed = False

    async def hold(self, amount: int) -> None:
        """Add to what the request holds, and wait until that is possible; 0 waits for a slot before the first list.

        Raises:
            InvalidInput: the request would hold more than any request may (reason RequestTooLarge).
            KubeUnavailable: the request has ended meanwhile, or too many large lists are read at the moment.
        """
        self._held += amount
        if self._held > self._memory.large_bytes:
            raise InvalidInput(
                "The list is too large to be held in memory. Use filters, or list with kubectl.",
                reason=Reason.REQUEST_TOO_LARGE,
            )
        async with self._turn:
            if not self._has_slot and not self._is_large:
                await self._take_slot()
            if self._held > self._memory.small_bytes and not self._is_large:
                await self._become_large()
            if self._is_closed:
                self.close()
                raise KubeUnavailable("The request has ended before its list was read")

    async def _take_slot(self) -> None:
        await self._caller.slots.acquire()
        try:
            await self._memory.slots.acquire()
        except BaseException:
            self._caller.slots.release()
            raise
        self._has_slot = True

    async def _become_large(self) -> None:
        """Take the lock for large lists, and give the slot back."""
        memory, caller = self._memory, self._caller
        if not memory.large_list.locked() or (memory.waiting < WAITING_WITHOUT_SLOT and not caller.is_waiting):
            self._give_slot_back()
            memory.waiting, caller.is_waiting = memory.waiting + 1, True
            try:
                await memory.large_list.acquire()
            finally:
                memory.waiting, caller.is_waiting = memory.waiting - 1, False
        else:
            try:
                async with asyncio.timeout(WAIT_WITH_SLOT_SECONDS):
                    await memory.large_list.acquire()
            except TimeoutError:
                message = "Other large lists are being read. Try again in a minute, or use filters."
                raise KubeUnavailable(message) from None
            self._give_slot_back()
        self._is_large = True

    def _give_slot_back(self) -> None:
        if self._has_slot:
            self._memory.slots.release()
            self._caller.slots.release()
        self._has_slot = False

    def close(self) -> None:
        """Release everything. May be repeated; a list of the request that still runs then ends with an error."""
        self._is_closed = True
        self._give_slot_back()
        if self._is_large:
            self._memory.large_list.release()
        self._is_large = False
