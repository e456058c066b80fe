"""One HTTP connection of uvicorn, its phase, and how long it may stay in that phase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import h11
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from cinderblock.serving.settings import ServerSettings


class Phase(Enum):
    """The phases of a connection."""

    HANDSHAKE = auto()
    """TLS is being agreed upon."""
    IDLE = auto()
    """A response was sent, and nothing of a next request has arrived."""
    HEAD = auto()
    """The head of a request has not arrived completely; also before the first request."""
    BODY = auto()
    """The body of a request has not arrived completely."""
    HANDLING = auto()
    """The server works on a request."""
    WRITING = auto()
    """The client reads its response more slowly than the server sends it."""
    CLOSING = auto()
    """The response was sent, but the client still sends its request, or does not close the connection."""


def time_limits(settings: ServerSettings) -> Mapping[Phase, float]:
    """Return how many seconds a connection may stay in each phase.

    The application answers slow bodies and slow handling itself (408, 503). The limits here come later, for the case
    that such an answer is not read either.
    """
    return {
        Phase.HANDSHAKE: settings.header_seconds,
        Phase.IDLE: settings.idle_seconds,
        Phase.HEAD: settings.header_seconds,
        Phase.BODY: settings.handling_seconds + settings.header_seconds,
        Phase.HANDLING: settings.handling_seconds + settings.header_seconds,
        Phase.WRITING: settings.writing_seconds,
        Phase.CLOSING: settings.header_seconds,
    }


class HttpProtocol(H11Protocol):
    """uvicorn's protocol. It reports the end of the connection.

    Args:
        on_lost: called once when the connection has ended.
    """

    def __init__(self, config: Config, state: ServerState, on_lost: Callable[[], None]) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._on_lost = on_lost

    @property
    def phase(self) -> Phase:
        """The current phase."""
        if self.transport is None:
            return Phase.HANDSHAKE
        if self.flow.write_paused:
            return Phase.WRITING
        if self.cycle is None:
            return Phase.HEAD
        if not self.cycle.response_complete:
            return Phase.BODY if self.cycle.more_body else Phase.HANDLING
        if self.transport.get_write_buffer_size():
            return Phase.WRITING
        if self.conn.our_state is not h11.IDLE:
            return Phase.CLOSING
        received, _ = self.conn.trailing_data
        return Phase.HEAD if received else Phase.IDLE

    @override
    def data_received(self, data: bytes) -> None:
        # uvicorn feeds its parser even after it has closed the connection, which then answers each block with 400.
        if not self.transport.is_closing():
            super().data_received(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()


@dataclass(eq=False)
class Connection:
    """One accepted connection, from its acceptance to its end.

    Attributes:
        client: what identifies its client for limits.
        is_trusted: whether the peer is a trusted proxy.
        since: when its phase began, as far as it was observed.
        protocol: the HTTP side; None until the handler is set.
        opening: the task that opens the connection, until it ends.
    """

    client: str
    is_trusted: bool
    since: float
    protocol: HttpProtocol | None = None
    opening: asyncio.Task[None] | None = None
    _observed: tuple[Phase, Any] = (Phase.HANDSHAKE, None)

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.protocol.phase if self.protocol is not None else Phase.HANDSHAKE

    @property
    def waiting_since(self) -> float | None:
        """Since when the connection waits for its client; None while the server works on a request."""
        return None if self.phase is Phase.HANDLING else self.since

    @property
    def unread_bytes(self) -> int:
        """How many bytes of responses the server holds because the client does not read them."""
        if self.protocol is None or self.protocol.transport is None:
            return 0
        return self.protocol.transport.get_write_buffer_size()

    def is_overdue(self, now: float, limits: Mapping[Phase, float]) -> bool:
        """Observe the phase, and return whether it has lasted for too long.

        A later request is a new phase, even if the connection was in the same one at the last observation.
        """
        phase = self.phase
        observed = phase, self.protocol.cycle if self.protocol is not None else None
        first_head = self._observed[0] is Phase.HANDSHAKE and phase is Phase.HEAD
        if observed != self._observed and not first_head:
            self.since = now
        self._observed = observed
        return now - self.since > limits[phase]

    def abort(self) -> None:
        """Close the connection at once, without sending what is buffered."""
        if self.opening is not None:
            self.opening.cancel()
        if self.protocol is not None and self.protocol.transport is not None:
            with contextlib.suppress(OSError):
                self.protocol.transport.abort()
