"""The broker, as the operator sees it: its certificate authority for tasks of movers, and whether it answers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from cinderblock.controller.context import Context
from cinderblock.controller.stores.certificates import certificates_in
from cinderblock.errors import CinderblockError, TransientError
from cinderblock.kube.kinds import SECRET
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.reasons import Reason
from cinderblock.store.broker.transport import trusting

log = logging.getLogger(__name__)

AUTHORITY_SECONDS: Final = 60.0
"""How long the certificate of the authority is used before it is read again. A new one overlaps the old one by days."""
MISSING_SECONDS: Final = 5.0
"""The same while there is none."""
CHECK_SECONDS: Final = 20.0
"""How long the result of a connection is used."""
TOLERATED_SECONDS: Final = 60.0
"""How long the broker may be silent before a store that shows it as reachable reports that. Its pods restart within
that time, and movers that run repeat their requests for longer."""
CONNECT_SECONDS: Final = 5.0
"""Seconds of a connection with its TLS handshake."""
MAX_BYTES: Final = 64 << 10
"""Most bytes of the certificates: a task with them is in the environment of a mover."""
_NO_CERTIFICATE: Final = "it has no certificate yet. Check its Deployment"

Connect = Callable[[MoverSettings], Awaitable[CinderblockError | None]]


class Broker:
    """The broker. For one event loop.

    Args:
        secret: name of the Secret with ca.crt in the namespace of the operator; empty: there is no broker.
        connect: returns why there is no TLS connection to the broker; None: there is one.
    """

    def __init__(self, secret: str = "", connect: Connect | None = None) -> None:
        self._secret, self._connect = secret, connect or _connect
        self._authority, self._read_again_at = "", float("-inf")
        self._policy: tuple[OperatorPolicy, OperatorPolicy] | None = None
        self._checked: tuple[MoverSettings, float, CinderblockError | None] | None = None
        self._silent_since: float | None = None
        self._checking = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def add_to(self, context: Context) -> Context:
        """Return the dependencies with the certificate of the broker's authority, as it was read a moment ago."""
        if not context.policy.mover.broker_url or not self._secret:
            return context
        await self._read(context)
        before = self._policy
        if before is None or before[0] is not context.policy or before[1].mover.broker_ca != self._authority:
            mover = replace(context.policy.mover, broker_ca=self._authority)
            self._policy = before = context.policy, replace(context.policy, mover=mover)
        return replace(context, policy=before[1])

    async def _read(self, context: Context) -> None:
        """Read ca.crt if it is time to. While it cannot be read, the last one counts.

        Before the first read has ended, nothing is known: sixteen workers begin together, and none of them may report
        that there is no certificate.
        """
        async with self._reading:
            await self._read_if_due(context)

    async def _read_if_due(self, context: Context) -> None:
        clock = asyncio.get_running_loop().time
        if clock() < self._read_again_at:
            return
        self._read_again_at = clock() + MISSING_SECONDS
        try:
            body = await context.kube.get(SECRET, self._secret, context.policy.account.namespace)
        except CinderblockError as error:
            log.warning("Could not read the broker's certificate: %s", error.message, extra={"reason": error.reason})
            return
        text = _certificate((body or {}).get("data") or {})
        if text:
            self._authority, self._read_again_at = text, clock() + AUTHORITY_SECONDS

    async def check(self, settings: MoverSettings, *, was_reachable: bool = False) -> CinderblockError | None:
        """Return why the broker cannot be reached; None if it answers with a certificate of its authority.

        Args:
            settings: the URL and the authority of the broker.
            was_reachable: whether the caller shows that movers reach the broker. Silence then counts only when it has
                lasted for TOLERATED_SECONDS, so that a restart of the broker changes no condition.
        """
        clock = asyncio.get_running_loop().time
        async with self._checking:
            if self._checked is None or self._checked[0] != settings or self._checked[1] <= clock():
                error = await self._connect(settings) if settings.broker_ca else _unavailable(_NO_CERTIFICATE)
                self._checked = settings, clock() + CHECK_SECONDS, error
                self._silent_since = None if error is None else self._silent_since or clock()
            since, error = self._silent_since, self._checked[2]
        is_short = since is not None and clock() - since < TOLERATED_SECONDS
        return None if was_reachable and is_short else error


def _certificate(data: dict[str, str]) -> str:
    """Return the certificates in ca.crt of a Secret; empty if it has none, or too many."""
    with contextlib.suppress(binascii.Error):
        found = certificates_in(base64.b64decode(data.get("ca.crt") or "", validate=True))
        return found if len(found) <= MAX_BYTES else ""
    return ""


async def _connect(settings: MoverSettings) -> CinderblockError | None:
    """Return why there is no TLS connection to the broker."""
    url = urlsplit(settings.broker_url)
    try:
        context = trusting(settings.broker_ca)
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.hostname, url.port or 443, ssl=context)
    except (OSError, ValueError, TimeoutError) as error:
        cause = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or type(error).__name__
        return _unavailable(f"{settings.broker_url} does not answer ({cause}). Check its Deployment and the network")
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            await writer.wait_closed()
    return None


def _unavailable(cause: str) -> TransientError:
    return TransientError(f"Movers cannot reach the broker: {cause}.", reason=Reason.BROKER_UNAVAILABLE)
