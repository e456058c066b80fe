"""Settings of the gateway process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cinderblock.api.ip_address import Network

HOST: Final = "0.0.0.0"  # noqa: S104  # a pod's own network
PORT: Final = 8776
"""Default port of Cinder's API (cinder ``osapi_volume_listen_port``)."""
BODY_BYTES: Final = 114_688
"""Limit of a request's body: Cinder's ``osapi_max_request_body_size``."""


class AuthMode(StrEnum):
    """How the gateway authenticates callers."""

    TOKEN = "token"  # noqa: S105
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of the gateway process, which the command line gives.

    Attributes:
        host: address to listen on.
        port: port of the API; 0 selects a free one.
        health_port: port of health, readiness and metrics, in plain HTTP on all addresses; None disables them.
        auth: ``token``: callers send Kubernetes tokens. ``none``: all callers act with the gateway's own credentials.
        certificate, private_key: TLS files, reloaded when they change; None: plain HTTP.
        certificate_seconds: interval of checks for a new certificate. The kubelet updates mounted Secrets about once a
            minute.
        public_url: URL for links in responses; None: derived from the Host header.
        body_limit: maximum size of a request's body in bytes.
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
    port: int = PORT
    health_port: int | None = None
    auth: AuthMode = AuthMode.TOKEN
    certificate: str | None = None
    private_key: str | None = None
    certificate_seconds: float = 30.0
    public_url: str | None = None
    body_limit: int = BODY_BYTES
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

    def of_health_server(self) -> GatewaySettings | None:
        """Return the settings of the health server, which is small and quick; None if it is disabled.

        Its limits are its own, so connections to the API cannot exhaust it. Many connections to it cannot either: the
        oldest one that waits makes room for the next.
        """
        if self.health_port is None:
            return None
        return replace(
            self,
            host=HOST,
            port=self.health_port,
            certificate=None,
            private_key=None,
            header_seconds=5.0,
            handling_seconds=5.0,
            writing_seconds=10.0,
            idle_seconds=30.0,
            connections=32,
            connections_per_client=16,
        )
