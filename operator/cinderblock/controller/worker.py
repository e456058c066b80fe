"""Workers that take keys from the queue and reconcile them, and the functions that fill the queue from lists."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cinderblock.controller.request import OWN_KINDS, ObjectKey
from cinderblock.controller.requeue import Result
from cinderblock.controller.workqueue import Priority, WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.observability import log as observability_log

log = logging.getLogger(__name__)

ENQUEUE_RETRY_SECONDS = 5.0
"""Seconds between attempts to list all objects. Meanwhile the workers reconcile what events report."""

STORE_START_SECONDS = 0.2
"""Seconds between the first checks of BackupStores after a start. The first check of a store takes 60 to 100 ms of
processor time. All at once, a thousand of them held up new backups for half a minute (`make scale`). A backup checks
its store itself, so it does not wait for this."""

ReconcileFunc = Callable[[ObjectKey], Awaitable[Result]]
"""Moves one object one step forward; see `Reconciler.reconcile`."""


async def run_worker(queue: WorkQueue, reconcile: ReconcileFunc) -> None:
    """Take keys and reconcile them, forever. A key that fails comes back later and stops no other key."""
    while True:
        key = await queue.get()
        try:
            with observability_log.object_context(*key):
                result = await _attempt(queue, reconcile, key)
        except asyncio.CancelledError:
            # The work was interrupted: the next leader's workers must repeat it.
            await queue.add(key)
            raise
        finally:
            await queue.done(key)
        if result.requeue_after is not None:
            await queue.add(key, result.requeue_after, result.priority)


async def _attempt(queue: WorkQueue, reconcile: ReconcileFunc, key: ObjectKey) -> Result:
    try:
        result = await reconcile(key)
    except CinderblockError as error:
        delay = queue.backoff(key)
        log.warning("%s", error.message, extra={"reason": error.reason, "retry_in": round(delay, 1)})
        return Result(delay)
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_shutting_down():
            raise
        # A defect must not stop other objects: log it in full and retry this one later. A cancellation that nobody
        # requested is a defect as well: a TaskGroup would take it for a normal end and continue with one worker less.
        delay = queue.backoff(key)
        log.exception("Reconciling raised an unexpected error", extra={"retry_in": round(delay, 1)})
        return Result(delay)
    queue.forget(key)
    return result


def _is_shutting_down() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


ListPending = Callable[[], Awaitable[list[tuple[ObjectKey, bool]]]]
"""Lists the objects to reconcile, each with whether an operation on it is in progress."""


async def enqueue_all(queue: WorkQueue, list_pending: ListPending) -> None:
    """Add all pending objects to the queue, those in progress first, and BackupStores over a time in proportion.

    Retry until the list succeeds. Due keys that a replica collected while another one led are dropped first: the list
    is newer.
    """
    while True:
        queue.forget_due(OWN_KINDS)
        try:
            pending = await list_pending()
        except CinderblockError as error:
            log.warning("Could not list pending objects: %s", error.message, extra={"reason": error.reason})
            await asyncio.sleep(ENQUEUE_RETRY_SECONDS)
            continue
        stores = 0
        for key, is_in_progress in pending:
            is_store = key.kind == kinds.BACKUP_STORE.kind
            after = stores * STORE_START_SECONDS if is_store else 0.0
            stores += is_store
            await queue.add(key, after, Priority.HIGH if is_in_progress else Priority.NORMAL)
        return


async def resync(queue: WorkQueue, list_pending: ListPending, seconds: float) -> None:
    """Add all pending objects to the queue every ``seconds``, spread over a tenth of that time."""
    while True:
        await asyncio.sleep(seconds)
        try:
            pending = await list_pending()
        except CinderblockError as error:
            log.warning("Could not list objects for the resync: %s", error.message, extra={"reason": error.reason})
            continue
        for number, (key, _) in enumerate(pending):
            await queue.add(key, seconds / 10 * number / max(1, len(pending)))
