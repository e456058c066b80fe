"""When each of kopf's watches was opened, and when it last received data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from yarl import URL

STALL_SECONDS = 180.0
"""A watch that is idle for so long has stalled. The server sends a bookmark every minute and ends a watch after five.
kopf reopens a watch that is idle for 70 seconds, after at most 30 more (`EndlessBackoff`)."""


MIN_OPEN_INTERVAL_SECONDS = 1.0
"""Least seconds between two requests for the same watch. kopf reopens a watch that ended normally at once: a server or
proxy that ends each of them immediately would get thousands of requests a minute."""


@dataclass(slots=True)
class _Stream:
    """An open watch, the bytes it has received, and when that number last changed."""

    response: aiohttp.ClientResponse
    received: int
    active_at: float


class WatchLiveness:
    """Observes the watches of one run of kopf. Written in kopf's thread, read in others.

    It does nothing per event: aiohttp counts the bytes that a response has received. Timestamps survive a restart of
    kopf, so a restart does not reset the idle time of a watch.

    Args:
        clock: seconds that only grow.
        previous: the run before this one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, previous: WatchLiveness | None = None) -> None:
        self._clock = clock
        self._active_before = previous.last_active() if previous else {}
        self._streams: dict[str, _Stream] = {}
        self._next_open: dict[str, float] = {}

    def trace(self) -> aiohttp.TraceConfig:
        """Return the trace configuration for the session that watches."""
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._on_request_start)
        config.on_request_end.append(self._on_request_end)
        return config

    def is_open(self, watch: str) -> bool:
        """Return whether this watch was accepted (see `watch_name`). By then all of its objects were listed."""
        return watch in self._streams

    def longest_idle(self, watches: Iterable[str], since: float) -> float:
        """Return the seconds since the most idle of these watches received data, counted from ``since`` at most.

        A watch that was never opened is idle since the first call of this method that names it.
        """
        now = self._clock()
        return max((now - max(since, self._active_at(watch, now)) for watch in watches), default=0.0)

    def last_active(self) -> dict[str, float]:
        """Return when each watch last received data, in this run or before."""
        now = self._clock()
        return self._active_before | {watch: self._active_at(watch, now) for watch in tuple(self._streams)}

    def _active_at(self, watch: str, now: float) -> float:
        stream = self._streams.get(watch)
        if stream is None:
            return self._active_before.setdefault(watch, now)
        received = stream.response.content.total_bytes
        if received != stream.received:
            stream.received, stream.active_at = received, now
        return stream.active_at

    async def _on_request_start(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        del session, context
        if _is_watch(params.url):
            watch, now = _watch_of(params.url), self._clock()
            start = max(now, self._next_open.get(watch, now))
            self._next_open[watch] = start + MIN_OPEN_INTERVAL_SECONDS
            await asyncio.sleep(start - now)

    async def _on_request_end(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        del session, context
        url = params.response.url
        if _is_watch(url) and params.response.status == 200:
            self._streams[_watch_of(url)] = _Stream(params.response, 0, self._clock())


def _is_watch(url: URL) -> bool:
    return url.query.get("watch") == "true"


def watch_name(plural: str, namespace: str | None = None) -> str:
    """Return the name of the watch of a kind, in one namespace or in all."""
    return f"{namespace}/{plural}" if namespace else plural


def _watch_of(url: URL) -> str:
    *_, parent, namespace, plural = ("", "", *url.path.split("/"))
    return watch_name(plural, namespace if parent == "namespaces" else None)
