"""Signs of life of kopf's watches: for each type, when its watch was opened and when anything came through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from yarl import URL

SILENT_SECONDS = 180.0
"""A watch that is silent for so long is dead. The server sends a bookmark every minute, ends a watch after five, and
kopf opens a watch anew that is silent for 70 seconds, after at most 30 more (`EndlessBackoff`)."""


PACE_SECONDS = 1.0
"""Least time between two requests for the same watch: kopf itself opens a watch that ended well at once, and a server
or a proxy that ends each of them at once would be asked thousands of times a minute."""


@dataclass(slots=True)
class _Stream:
    response: aiohttp.ClientResponse
    received: int
    heard: float


class WatchLiveness:
    """The watches of one run of kopf. Written in kopf's thread, read in others.

    Nothing is done per event: the bytes that a response has received are counted by aiohttp. What an earlier run has
    heard counts on: that kopf begins anew makes a watch neither more nor less silent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, before: WatchLiveness | None = None) -> None:
        self._clock = clock
        self._heard_before = before.heard() if before else {}
        self._streams: dict[str, _Stream] = {}
        self._next_start: dict[str, float] = {}

    def trace(self) -> aiohttp.TraceConfig:
        """To be given to the session that watches."""
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._on_request_start)
        config.on_request_end.append(self._on_request_end)
        return config

    def opened(self, plural: str) -> bool:
        """Whether a watch of this type has been accepted: then everything was listed before."""
        return plural in self._streams

    def longest_idle(self, plurals: Iterable[str], since: float) -> float:
        """Seconds since the most silent of these watches was heard; ``since``: what came before counts for nothing.

        One that was never opened is silent since it was first asked for here.
        """
        now = self._clock()
        return max((now - max(since, self._heard(plural, now)) for plural in plurals), default=0.0)

    def heard(self) -> dict[str, float]:
        """When each watch was heard last, in this run or before."""
        now = self._clock()
        return self._heard_before | {plural: self._heard(plural, now) for plural in tuple(self._streams)}

    def _heard(self, plural: str, now: float) -> float:
        stream = self._streams.get(plural)
        if stream is None:
            return self._heard_before.setdefault(plural, now)
        received = stream.response.content.total_bytes
        if received != stream.received:
            stream.received, stream.heard = received, now
        return stream.heard

    async def _on_request_start(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        del session, context
        if _is_watch(params.url):
            plural, now = _plural(params.url), self._clock()
            start = max(now, self._next_start.get(plural, now))
            self._next_start[plural] = start + PACE_SECONDS
            await asyncio.sleep(start - now)

    async def _on_request_end(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        del session, context
        url = params.response.url
        if _is_watch(url) and params.response.status == 200:
            self._streams[_plural(url)] = _Stream(params.response, 0, self._clock())


def _is_watch(url: URL) -> bool:
    return url.query.get("watch") == "true"


def _plural(url: URL) -> str:
    return url.path.rpartition("/")[2]
