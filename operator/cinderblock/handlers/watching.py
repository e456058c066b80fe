"""kopf in a thread of its own, kept running: what ends it, or makes it deaf, is answered by starting it anew.

A thread, because kopf takes every task of its event loop for its own when it stops, and handles signals in the main
thread; and because a leader's Lease must be renewed while kopf goes through thousands of objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import kopf

from cinderblock.errors import CinderblockError
from cinderblock.handlers.hearing import Hearing, Told
from cinderblock.handlers.keys import RECONCILED
from cinderblock.handlers.process import Handlers, make_registry, make_settings, open_session
from cinderblock.handlers.pulse import SILENT_SECONDS, Pulse
from cinderblock.handlers.watch import CHILD_KINDS
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import PV

log = logging.getLogger(__name__)

# kopf warns that it does not handle signals in a thread; it should not.
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

LOOK_SECONDS = 5.0
"""Between two looks at the watches."""
OPENING_SECONDS = 60.0
"""For how long a watch may not be open after a start before kopf is started anew; twice as long after each start."""
LONGEST_OPENING_SECONDS = 600.0
FIRST_RESTART, LONGEST_RESTART = 1.0, 30.0
"""Seconds before kopf is started anew after it has ended with an error, doubling."""

CLEAR_ATTEMPTS, CLEAR_SECONDS = 20, 0.25
"""How often what is left of kopf is cancelled, and seconds in between."""

WATCHED = (*RECONCILED.values(), *CHILD_KINDS, PV)


class Watching:
    """Keeps watches of all our types open, and tells ``watch`` of events, in the event loop that made this.

    Attributes:
        starts: how often kopf was started.
        synced: whether every type that the cluster serves is watched, and so everything has been heard of once.
    """

    def __init__(self, kube: KubeClient, watch: Told, reachable_since: Callable[[], float | None]) -> None:
        self.starts = 0
        self.synced = False
        self._kube = kube
        self._hearing = Hearing(watch)
        self._reachable_since = reachable_since
        self._pulse = Pulse()
        self._served: tuple[str, ...] = ()
        self._patience = OPENING_SECONDS

    async def run(self) -> None:
        """Watch for ever."""
        telling = asyncio.create_task(self._hearing.run())
        try:
            await self._keep_kopf_running()
        finally:
            telling.cancel()

    async def _keep_kopf_running(self) -> None:
        delay = FIRST_RESTART
        while True:
            began = time.monotonic()
            trouble = await self._run_once()
            if time.monotonic() - began > 10 * LONGEST_RESTART:
                delay = FIRST_RESTART
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            log.warning("Watching begins anew", extra={"because": trouble, "delay": round(pause, 1)})
            await asyncio.sleep(pause)
            delay = min(LONGEST_RESTART, delay * 2)

    def silence(self) -> float:
        """Seconds since the most silent watch was heard, as far as the API server could be reached meanwhile."""
        since = self._reachable_since()
        return self._pulse.silence(self._served, since) if since is not None else 0.0

    async def _run_once(self) -> str:
        """One run of kopf, from its start to its end; returns why it ended."""
        self.starts += 1
        self._pulse = Pulse(before=self._pulse)
        self.synced = False
        run = KopfThread(self._hearing, self._kube, self._pulse)
        run.start()
        try:
            return await self._attend(run)
        finally:
            await run.stop()

    async def _attend(self, run: KopfThread) -> str:
        began = time.monotonic()
        while not await run.ended(LOOK_SECONDS if self.synced else 0.5):
            await self._learn()
            deaf = self._deaf(time.monotonic() - began)
            if deaf:
                return deaf
        return run.trouble

    async def _learn(self) -> None:
        """Which types the cluster serves; asked only as long as one of them is not watched."""
        closed = [kind for kind in WATCHED if not self._pulse.opened(kind.plural)]
        try:
            served = [kind for kind in closed if await self._kube.serves(kind)]
        except CinderblockError:
            return
        self._served = tuple(kind.plural for kind in WATCHED if kind in served or kind not in closed)
        self.synced = not served
        if self.synced:
            self._patience = OPENING_SECONDS

    def _deaf(self, running: float) -> str:
        """Why kopf is to be started anew, if it is."""
        if self._reachable_since() is None:
            return ""
        if not self.synced and running > self._patience:
            self._patience = min(LONGEST_OPENING_SECONDS, 2 * self._patience)
            return "a type is served that is not watched"
        if self.synced and self.silence() > SILENT_SECONDS:
            return "a watch is silent"
        return ""


class KopfThread:
    """One run of kopf.

    Attributes:
        trouble: why it ended, for a person.
    """

    def __init__(self, handlers: Handlers, kube: KubeClient, pulse: Pulse) -> None:
        self.trouble = "kopf has stopped"
        self._handlers = handlers
        self._kube = kube
        self._pulse = pulse
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
        loop.set_exception_handler(_overhear)
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
        opened = await open_session(await self._in_main(self._kube.credentials()), self._pulse)
        self._sessions = [session for session in self._sessions if not session.closed]
        self._sessions.append(opened.aiohttp_session)
        return opened

    def _in_main(self, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._main))


def _overhear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What kopf's callbacks raise while they are ended is of no interest to an administrator."""
    del loop
    log.debug("While kopf was ended: %s", context.get("message"))
