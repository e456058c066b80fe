"""Checks of stores that namespaces share: a thousand BackupStores of one ClusterBackupStore share one check."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from cinderblock.errors import CinderblockError, PermanentError, StoreBusy
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore

CHECK_SECONDS: Final = 20.0
"""For how long a successful check counts: less than the shortest time between two checks of one BackupStore."""
FAILED_SECONDS: Final = 5.0
"""For how long a failed check counts."""
SIGNING_SECONDS: Final = 3600.0
"""For how long it counts that the server refused a header that the signature does not cover. That depends on its
software only, and costs several requests."""

Call = Callable[[Callable[[], object]], Awaitable[object]]
"""Runs a function that uses the store, in a thread, with the limits of the store."""
ServerIgnores = Callable[[], bool]
"""Returns whether the server ignores headers that the signature of a request does not cover."""


class _Result(NamedTuple):
    """The error of a check, and until when it counts by the loop's clock."""

    until: float
    error: CinderblockError | None


class SharedChecks:
    """The latest check of each open store. For one event loop."""

    def __init__(self) -> None:
        self._checks: WeakKeyDictionary[ObjectStore, asyncio.Task[_Result]] = WeakKeyDictionary()
        self._signing: WeakKeyDictionary[ObjectStore, float] = WeakKeyDictionary()
        """Until when it counts that a server refused such a header."""

    async def check(self, opened: ObjectStore, call: Call, server_ignores: ServerIgnores | None) -> None:
        """Raise what is wrong with a store, as the latest check found it. Callers share a check that runs.

        Args:
            opened: the store.
            call: runs functions that use it.
            server_ignores: asks the server about unsigned headers; None: movers send no requests that others sign.
        """
        task = self._checks.get(opened)
        if task is None or _has_expired(task):
            task = self._checks[opened] = asyncio.create_task(self._run(opened, call, server_ignores))
        error = (await asyncio.shield(task)).error
        if error is not None:
            # A copy has no traceback, which would keep what the callers have read.
            raise copy.copy(error)

    async def _run(self, opened: ObjectStore, call: Call, server_ignores: ServerIgnores | None) -> _Result:
        clock = asyncio.get_running_loop().time
        try:
            await call(opened.check)
            if server_ignores is not None and self._signing.get(opened, 0.0) <= clock():
                if await call(server_ignores):
                    raise _unsigned_headers_accepted()
                self._signing[opened] = clock() + SIGNING_SECONDS
        except StoreBusy as error:
            # Nobody has asked the store: the next caller does.
            return _Result(clock(), copy.copy(error))
        except CinderblockError as error:
            return _Result(clock() + FAILED_SECONDS, copy.copy(error))
        return _Result(clock() + CHECK_SECONDS, None)


def _has_expired(task: asyncio.Task[_Result]) -> bool:
    if not task.done():
        return False
    is_known = not task.cancelled() and task.exception() is None
    return not is_known or task.result().until <= asyncio.get_running_loop().time()


def _unsigned_headers_accepted() -> PermanentError:
    return PermanentError(
        "The S3 server accepts headers that the signature of a request does not cover. A mover could add some to a"
        " request that the broker has signed, and copy objects of other namespaces. Use another server, or"
        " spec.moverAccess.mode SessionCredentials of the ClusterBackupStore.",
        reason=Reason.UNSIGNED_HEADERS_ACCEPTED,
    )
