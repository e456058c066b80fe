"""Settings of the broker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cinderblock.serving.settings import ServerSettings, health_settings

PORT: Final = 8778
"""Default port of the broker."""
BODY_BYTES: Final = 98_304
"""Limit of a request's body. A request to sign has a URL of 8 KiB and 32 headers of 2 KiB at most."""


@dataclass(frozen=True, slots=True)
class BrokerSettings(ServerSettings):
    """Settings of the broker process, which the command line gives.

    Attributes:
        health_port: port of health, readiness and metrics, in plain HTTP on all addresses; None disables them.
        tls_secret: name of the Secret with the certificate, in the namespace of the broker.
        makes_certificate: whether the broker makes that Secret; False: an administrator does.
        host_names: names for which the certificate is made.
        service_account: name of the broker's own ServiceAccount, whose tokens token services accept; None: there is no
            such service.
        body_limit: maximum size of a request's body in bytes.
        requests_per_namespace: maximum number of requests of one namespace that are handled at the same time.
        unanswered_per_namespace: maximum number of unanswered requests of one namespace.
    """

    port: int = PORT
    health_port: int | None = None
    tls_secret: str = "cinderblock-broker-tls"  # noqa: S105
    makes_certificate: bool = True
    host_names: tuple[str, ...] = ("localhost",)
    service_account: str | None = None
    body_limit: int = BODY_BYTES
    handling_seconds: float = 30.0
    connections: int = 512
    requests_per_namespace: int = 16
    unanswered_per_namespace: int = 128

    def of_health_server(self) -> BrokerSettings | None:
        """Return the settings of the health server; None if it is disabled."""
        return None if self.health_port is None else health_settings(self, self.health_port)
