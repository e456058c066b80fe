"""Workers that take keys from the queue, and the one function that each of them calls: reconcile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cinderblock.controller.request import OWN_KINDS, ObjectKey
from cinderblock.controller.workqueue import URGENT, WorkQueue
from cinderblock.errors import CinderblockError
from cinderblock.observability import log as observability_log

log = logging.getLogger(__name__)

ENQUEUE_RETRY_SECONDS = 5.0
"""Seconds between attempts to list what there is; meanwhile keys that are heard of are worked on."""

ReconcileFunc = Callable[[ObjectKey], Awaitable[float | None]]
"""Brings one object forward; returns the seconds until it wants to be looked at again, or None."""


async def run_worker(queue: WorkQueue, reconcile: ReconcileFunc) -> None:
    """Take keys and reconcile them, for ever. An object that fails comes back later and stops nobody."""
    while True:
        key = await queue.get()
        try:
            with observability_log.object_context(*key):
                requeue_after = await _attempt(queue, reconcile, key)
        except asyncio.CancelledError:
            # Abandoned on the way: whoever works on keys next has to begin with it again.
            await queue.add(key)
            raise
        finally:
            await queue.done(key)
        if requeue_after is not None:
            await queue.add(key, requeue_after)


async def _attempt(queue: WorkQueue, reconcile: ReconcileFunc, key: ObjectKey) -> float | None:
    try:
        requeue_after = await reconcile(key)
    except CinderblockError as error:
        delay = queue.backoff(key)
        log.warning("%s", error.message, extra={"reason": error.reason, "retry_in": round(delay, 1)})
        return delay
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_shutting_down():
            raise
        # A defect of ours must not take the others down with it: it is logged in full, and this object waits. So must
        # not a cancellation that nobody has asked of this worker: a group of tasks takes one for an end in order, and
        # would go on with a worker less.
        delay = queue.backoff(key)
        log.exception("Reconciling raised an unexpected error", extra={"retry_in": round(delay, 1)})
        return delay
    queue.forget(key)
    return requeue_after


def _is_shutting_down() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


ListPending = Callable[[], Awaitable[list[tuple[ObjectKey, bool]]]]
"""Lists every object that wants to be looked at, and whether something is under way with it."""


async def enqueue_all(queue: WorkQueue, list_keys: ListPending) -> None:
    """Put every object into the queue at once; where something is under way comes first. Tries until it succeeds.

    What was heard of before, for hours perhaps while another replica led, is forgotten: the list says it better.
    """
    while True:
        queue.forget_due(OWN_KINDS)
        try:
            keys = await list_keys()
        except CinderblockError as error:
            log.warning("Could not list what there is to take over: %s", error.message)
            await asyncio.sleep(ENQUEUE_RETRY_SECONDS)
            continue
        for key, under_way in keys:
            await queue.add(key, URGENT if under_way else 0.0)
        return


async def resync(queue: WorkQueue, list_keys: ListPending, seconds: float) -> None:
    """Put every object into the queue every ``seconds``, spread over a tenth of that time."""
    while True:
        await asyncio.sleep(seconds)
        try:
            keys = await list_keys()
        except CinderblockError as error:
            log.warning("Resync failed: %s", error.message)
            continue
        for number, (key, _) in enumerate(keys):
            await queue.add(key, seconds / 10 * number / max(1, len(keys)))
