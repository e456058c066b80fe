"""What the gateway is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

HOST: Final = "0.0.0.0"  # noqa: S104  # a pod's own network
PORT: Final = 8776
"""Where Cinder's API listens (IANA: none; cinder ``osapi_volume_listen_port``)."""
BODY_LIMIT: Final = 114_688
"""Bytes of a request's body: Cinder's ``osapi_max_request_body_size``."""


class Auth(StrEnum):
    """How callers are told apart."""

    KUBERNETES = "token"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one gateway.

    Attributes:
        host: address to listen on.
        port: of the API; 0: any free one.
        health_port: of health, readiness and figures, in plain HTTP on all addresses; None: they are not served.
        auth: token: callers show their Kubernetes tokens. none: everybody acts with the gateway's own credentials.
        certificate, private_key: files for TLS, read again when they change; None: plain HTTP.
        certificate_seconds: how often it is looked whether they have changed; the kubelet renews mounted Secrets about
            every minute.
        public_url: URL under which callers reach us, for links; None: what they say in the Host header.
        body_limit: bytes of a request's body.
        header_seconds: time for a request's head to arrive, from the moment that the connection is there.
        body_seconds: time for its body to arrive.
        idle_seconds: how long a connection is kept between two requests.
        connections: how many requests may be worked on at once; what is beyond is answered with 503.
    """

    host: str = HOST
    port: int = PORT
    health_port: int | None = None
    auth: Auth = Auth.KUBERNETES
    certificate: str | None = None
    private_key: str | None = None
    certificate_seconds: float = 30.0
    public_url: str | None = None
    body_limit: int = BODY_LIMIT
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 65.0
    connections: int = 512
