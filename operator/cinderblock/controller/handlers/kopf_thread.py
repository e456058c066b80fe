"""kopf in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Collection, Coroutine
from typing import Any

import aiohttp
import kopf

from cinderblock.controller.handlers.event_bridge import EventSink
from cinderblock.controller.handlers.kopf_session import open_session
from cinderblock.controller.handlers.kopf_settings import make_settings
from cinderblock.controller.handlers.registry import (
    add_cluster_stores,
    add_populator,
    add_schedules,
    make_registry,
)
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.controller.request import SCHEDULE_KINDS
from cinderblock.kube.client import KubeClient

log = logging.getLogger(__name__)

FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS = 1.0, 30.0
"""Seconds before kopf is restarted after an error, doubling."""

CANCEL_ATTEMPTS, CANCEL_WAIT_SECONDS = 20, 0.25
"""Number of attempts to cancel kopf's remaining tasks, and the seconds in between."""

STOP_SECONDS = 10.0
"""For how long to wait for the thread's end: twice what cancelling takes at most. The kubelet kills after 30 s."""


class KopfThread:
    """One run of kopf.

    Attributes:
        end_reason: why the run ended, for a log line.
    """

    def __init__(
        self,
        sink: EventSink,
        kube: KubeClient,
        liveness: WatchLiveness,
        *,
        schedule_kinds: Collection[str] = frozenset(SCHEDULE_KINDS),
        cluster_stores: bool = True,
        populates: bool = True,
    ) -> None:
        self.end_reason = "kopf has stopped"
        self._sink = sink
        self._kube = kube
        self._liveness = liveness
        self._schedule_kinds = schedule_kinds
        self._cluster_stores = cluster_stores
        self._populates = populates
        self._main_loop = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_stopping = False
        self._ended = asyncio.Event()
        self._sessions: list[aiohttp.ClientSession] = []
        self._logged_in_at = float("-inf")
        self._login_delay = 0.0
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def ended(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the end of the thread. Return whether it has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Stop the thread, and wait for its end. A thread that hangs is abandoned: it ends with the process."""
        self._is_stopping = True
        if self._loop is not None and self._stop is not None:
            # The loop may be closed already, if kopf ended by itself a moment ago.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        if not await self.ended(STOP_SECONDS):
            log.warning("kopf did not stop in time", extra={"seconds": STOP_SECONDS})

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._operate())
        except Exception as error:  # noqa: BLE001 - kopf is restarted whatever ended it; this is the reason to log
            self.end_reason = f"{type(error).__name__}: {error}"
        finally:
            self._clean_up(loop)

    def _clean_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """End kopf's tasks and close the loop. Whatever fails here, report the end, so that kopf is restarted."""
        loop.set_exception_handler(_log_at_debug)
        try:
            loop.run_until_complete(self._end_tasks())
        except Exception as error:  # noqa: BLE001 - nothing of this run is needed any more
            log.warning("Could not clean up after kopf: %s", type(error).__name__)
        finally:
            loop.close()
            # The main loop is closed if the process ends while this thread was abandoned.
            with contextlib.suppress(RuntimeError):
                self._main_loop.call_soon_threadsafe(self._ended.set)

    async def _operate(self) -> None:
        """Run kopf until it is stopped, or one of its tasks ends, which none of them should."""
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._is_stopping:
            return
        registry = make_registry(self._sink, self._login)
        add_schedules(registry, self._sink, self._schedule_kinds)
        if self._cluster_stores:
            add_cluster_stores(registry, self._sink)
        if self._populates:
            add_populator(registry, self._sink)
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=make_settings(populates=self._populates),
            clusterwide=not self._kube.namespaces,
            namespaces=self._kube.namespaces,
            standalone=True,
        )
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()

    async def _end_tasks(self) -> None:
        """Cancel kopf's remaining tasks and close its sessions.

        kopf's own way to stop waits without end for watches that wait for a login (1.45.2). One cancellation is not
        enough: a task that is cancelled while it ends a request starts to wait again.
        """
        for _ in range(CANCEL_ATTEMPTS):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_WAIT_SECONDS)
        for session in self._sessions:
            await session.close()

    async def _login(self) -> kopf.AiohttpSession:
        """Open a connection for kopf. It logs in again at once after each 401, so repeated logins are delayed."""
        now = time.monotonic()
        if now - self._logged_in_at > MAX_RESTART_SECONDS + self._login_delay:
            self._login_delay = 0.0
        await asyncio.sleep(self._login_delay)
        self._login_delay = min(MAX_RESTART_SECONDS, max(FIRST_RESTART_SECONDS, 2 * self._login_delay))
        self._logged_in_at = time.monotonic()
        opened = open_session(await self._in_main_loop(self._kube.config()), self._liveness)
        self._sessions = [session for session in self._sessions if not session.closed]
        self._sessions.append(opened.aiohttp_session)
        return opened

    def _in_main_loop(self, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._main_loop))


def _log_at_debug(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what kopf's callbacks raise while they are cancelled. Administrators need not see it."""
    del loop
    log.debug("kopf raised an error while it stopped: %s", context.get("message"))
