"""Settings of one HTTP server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cinderblock.api.ip_address import Network

HOST: Final = "0.0.0.0"  # noqa: S104  # a pod's own network


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one HTTP server.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 selects a free one.
        certificate, private_key: TLS files, reloaded when they change; None: plain HTTP.
        certificate_seconds: interval of checks for a new certificate. The kubelet updates mounted Secrets about once a
            minute.
        header_seconds: time limit for TLS, and for the head of each request.
        body_seconds: time limit for a request's body.
        handling_seconds: time limit for a request, from its head to the start of the response.
        writing_seconds: time limit for a client to read a response.
        idle_seconds: time that a connection stays open between two requests.
        connections: maximum number of connections. For a new one, the server closes one that waits for its client.
        connections_per_client: maximum number of connections of one client address, and of its unanswered requests.
        requests_per_client: maximum number of requests of one client address that are handled at the same time.
        unread_bytes: maximum of all responses together that clients have not read yet. The largest ones are dropped.
        trusted_proxies: networks whose X-Forwarded-For counts as the client's address; none by default.
    """

    host: str = HOST
    port: int = 0
    certificate: str | None = None
    private_key: str | None = None
    certificate_seconds: float = 30.0
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    handling_seconds: float = 60.0
    writing_seconds: float = 60.0
    idle_seconds: float = 65.0
    connections: int = 256
    connections_per_client: int = 64
    requests_per_client: int = 8
    unread_bytes: int = 32 << 20
    trusted_proxies: tuple[Network, ...] = ()


AnySettings = TypeVar("AnySettings", bound=ServerSettings)


def health_settings(settings: AnySettings, port: int) -> AnySettings:
    """Return the settings of a server for health, readiness and metrics, which is small and quick.

    Its limits are its own, so connections to the other server cannot exhaust it. Many connections to it cannot either:
    the oldest one that waits makes room for the next.
    """
    return replace(
        settings,
        host=HOST,
        port=port,
        certificate=None,
        private_key=None,
        header_seconds=5.0,
        handling_seconds=5.0,
        writing_seconds=10.0,
        idle_seconds=30.0,
        connections=32,
        connections_per_client=16,
    )
