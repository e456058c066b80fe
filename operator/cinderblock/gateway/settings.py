"""Settings of the gateway process."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cinderblock.serving.settings import ServerSettings, health_settings

PORT: Final = 8776
"""Default port of Cinder's API (cinder ``osapi_volume_listen_port``)."""
BODY_BYTES: Final = 114_688
"""Limit of a request's body: Cinder's ``osapi_max_request_body_size``."""


class AuthMode(StrEnum):
    """How the gateway authenticates callers."""

    TOKEN = "token"  # noqa: S105
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GatewaySettings(ServerSettings):
    """Settings of the gateway process, which the command line gives.

    Attributes:
        health_port: port of health, readiness and metrics, in plain HTTP on all addresses; None disables them.
        auth: ``token``: callers send Kubernetes tokens. ``none``: all callers act with the gateway's own credentials.
        public_url: URL for links in responses; None: derived from the Host header.
        body_limit: maximum size of a request's body in bytes.
    """

    port: int = PORT
    health_port: int | None = None
    auth: AuthMode = AuthMode.TOKEN
    public_url: str | None = None
    body_limit: int = BODY_BYTES

    def of_health_server(self) -> GatewaySettings | None:
        """Return the settings of the health server; None if it is disabled."""
        return None if self.health_port is None else health_settings(self, self.health_port)
