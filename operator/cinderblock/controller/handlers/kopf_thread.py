"""kopf in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Coroutine
from typing import Any

import aiohttp
import kopf

from cinderblock.controller.handlers.kopf_settings import EventSink, make_registry, make_settings, open_session
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.kube.client import KubeClient

log = logging.getLogger(__name__)

FIRST_RESTART, LONGEST_RESTART = 1.0, 30.0
"""Seconds before kopf is started anew after it has ended with an error, doubling."""

CLEAR_ATTEMPTS, CLEAR_SECONDS = 20, 0.25
"""How often what is left of kopf is cancelled, and seconds in between."""


class KopfThread:
    """One run of kopf.

    Attributes:
        trouble: why it ended, for a person.
    """

    def __init__(self, handlers: EventSink, kube: KubeClient, liveness: WatchLiveness) -> None:
        self.trouble = "kopf has stopped"
        self._handlers = handlers
        self._kube = kube
        self._pulse = liveness
        self._main = asyncio.get_running_loop()
        self._own: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._asked = False
        self._ended = asyncio.Event()
        self._sessions: list[aiohttp.ClientSession] = []
        self._logged_in = float("-inf")
        self._login_delay = 0.0
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def ended(self, seconds: float) -> bool:
        """Wait for the end, at most for so long. Returns whether it has come."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Have it end, and wait for that."""
        self._asked = True
        if self._own is not None and self._stop is not None:
            # Its loop may be closed already, by an end of its own that has not been told yet.
            with contextlib.suppress(RuntimeError):
                self._own.call_soon_threadsafe(self._stop.set)
        await self._ended.wait()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._operate())
        except Exception as error:  # noqa: BLE001 - whatever ends kopf, it is started anew, and this says why
            self.trouble = f"{type(error).__name__}: {error}"
        finally:
            self._end(loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Clear up. Whatever happens here, who waits for the end hears of it, and begins anew."""
        loop.set_exception_handler(_forward_log)
        try:
            loop.run_until_complete(self._clear())
        except Exception as error:  # noqa: BLE001 - nothing of it is needed any more
            log.warning("Something of kopf is left: %s", type(error).__name__)
        finally:
            loop.close()
            self._main.call_soon_threadsafe(self._ended.set)

    async def _operate(self) -> None:
        """Run kopf until one of its tasks ends, which none of them should, or until it is asked to stop."""
        self._stop, self._own = asyncio.Event(), asyncio.get_running_loop()
        if self._asked:
            return
        tasks = await kopf.spawn_tasks(
            registry=make_registry(self._handlers, self._login),
            settings=make_settings(),
            clusterwide=True,
            standalone=True,
        )
        asked = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {asked}:
            task.result()

    async def _clear(self) -> None:
        """End whatever kopf has left in this loop.

        Not by kopf's own way to stop: it waits without end for watches that wait for a login that nobody makes any
        more (1.45.2), and a task that is cancelled while it ends a request begins to wait again.
        """
        for _ in range(CLEAR_ATTEMPTS):
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CLEAR_SECONDS)
        for session in self._sessions:
            await session.close()

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """A connection for kopf. It asks again at once when the last one was refused (401): that is slowed down."""
        now = time.monotonic()
        if now - self._logged_in > LONGEST_RESTART + self._login_delay:
            self._login_delay = 0.0
        await asyncio.sleep(self._login_delay)
        self._login_delay = min(LONGEST_RESTART, max(FIRST_RESTART, 2 * self._login_delay))
        self._logged_in = time.monotonic()
        opened = await open_session(await self._in_main(self._kube.config()), self._pulse)
        self._sessions = [session for session in self._sessions if not session.closed]
        self._sessions.append(opened.aiohttp_session)
        return opened

    def _in_main(self, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._main))


def _forward_log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What kopf's callbacks raise while they are ended is of no interest to an administrator."""
    del loop
    log.debug("While kopf was ended: %s", context.get("message"))
