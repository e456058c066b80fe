"""Sends events to the receiver, one after another, and says what came of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from cinderblock import __version__
from cinderblock.api.ip_address import parse_address
from cinderblock.controller.webhook.target import Target
from cinderblock.errors import InvalidInput
from cinderblock.observability.cloud_event import CONTENT_TYPE
from cinderblock.observability.operator_metrics import NotificationResult

REQUEST_SECONDS: Final = 10.0
"""Time limit of one request, from the search for the address to the answer."""
ANSWER_BYTES: Final = 4096
"""Bytes of an answer that are read, so that the connection can be used again. A longer answer costs the connection."""
MAX_RETRY_AFTER_SECONDS: Final = 600.0
"""Longest delay that a receiver can ask for. Then it may ask again."""
REJECTIONS: Final = frozenset({400, 405, 409, 411, 413, 414, 415, 422, 431})
"""Codes that concern the event. All others below 500 concern the receiver or its URL, and a person can correct them."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """Result of one request.

    Attributes:
        result: what it means for the event.
        cause: why it was not delivered; without secrets, and without anything that the receiver wrote.
        retry_after: seconds to wait that the receiver asks for; None: it asks for nothing.
    """

    result: NotificationResult
    cause: str = ""
    retry_after: float | None = None


class Sender:
    """Sends events to one receiver, over connections that are closed at the end of the block."""

    def __init__(self, session: aiohttp.ClientSession, target: Target, proxy: str | None) -> None:
        self._session = session
        self._target = target
        self._proxy = proxy

    async def send(self, body: bytes) -> SendResult:
        """Send one event."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._post(body)
        except TimeoutError:
            return _failed(f"no answer within {REQUEST_SECONDS:.0f} s")
        except InvalidInput as error:
            return _failed(error.message)
        except aiohttp.ClientConnectorCertificateError as error:
            return _failed(f"its certificate is not trusted: {_certificate_fault(error)}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of such an error may contain the URL or the header.
            return _failed(f"the request failed ({type(error).__name__})")

    async def _post(self, body: bytes) -> SendResult:
        async with self._session.post(
            self._target.url, data=body, proxy=self._proxy, ssl=self._target.tls or True, allow_redirects=False
        ) as response:
            await response.content.read(ANSWER_BYTES)
            return _result_of(response.status, response.headers.get("Retry-After", ""))


@asynccontextmanager
async def open_sender(target: Target) -> AsyncIterator[Sender]:
    """Open connections to a receiver. Raises InvalidInput if its address is not allowed."""
    host = urlsplit(target.url).hostname or ""
    proxy = _proxy_of(target.url, host)
    if parse_address(host) is not None:
        target.check([host])
    # A proxy finds the addresses itself. It is a setting of the administrator, too.
    connector = aiohttp.TCPConnector(limit=1, resolver=None if proxy else _CheckedResolver(target))
    headers = {"Content-Type": CONTENT_TYPE, "User-Agent": f"cinderblock/{__version__}"}
    if target.header is not None:
        headers[target.header[0]] = target.header[1]
    async with aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Sender(session, target, proxy)


class _CheckedResolver(AbstractResolver):
    """Finds the addresses of the host, and checks those to which the connection is then made."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._resolver = aiohttp.ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        self._target.check([entry["host"] for entry in found])
        return found

    @override
    async def close(self) -> None:
        await self._resolver.close()


def _proxy_of(url: str, host: str) -> str | None:
    """Return the proxy that the environment names for a URL, as for S3 endpoints."""
    proxy = getproxies().get(urlsplit(url).scheme)
    return None if proxy is None or proxy_bypass(host) else proxy


def _result_of(status: int, retry_after: str) -> SendResult:
    if 200 <= status < 300:
        return SendResult(NotificationResult.SENT)
    if status in REJECTIONS:
        return SendResult(NotificationResult.REJECTED, f"it answered {status}")
    if 300 <= status < 400:
        return _failed(f"it answered {status}, and redirects are not followed: use the final URL")
    delay = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 10 else None
    return SendResult(
        NotificationResult.FAILED,
        f"it answered {status}",
        min(delay, MAX_RETRY_AFTER_SECONDS) if delay is not None else None,
    )


def _failed(cause: str) -> SendResult:
    return SendResult(NotificationResult.FAILED, cause)


def _certificate_fault(error: aiohttp.ClientConnectorCertificateError) -> str:
    found: Any = error.certificate_error
    return str(getattr(found, "verify_message", "") or type(found).__name__)
