"""Who we are to the API server: from inside a pod, or from a kubeconfig.

Read here and not with the ``kubernetes`` package, because importing its configuration module costs 110 MiB and 2.8
seconds (docs/decisions). What is read: server, CA, client certificate, token, token file, exec plugin,
proxy and TLS server name. What would silently act as somebody else, or not at all, is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cinderblock.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RestConfig:
    """How to reach the API server and what to show it.

    Attributes:
        server: URL without a trailing slash.
        ca: PEM certificates that the server is checked against; None: the system's.
        certificate: PEM client certificate.
        private_key: PEM key of the client certificate.
        token: bearer token.
        insecure: do not check the server's certificate.
        server_name: name expected in the server's certificate, if it is not that of the URL.
        proxy: URL of an HTTP proxy.
        namespace: namespace that is meant where none is given.
    """

    server: str
    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)
    namespace: str = "default"


class ConfigSource(Protocol):
    """Where credentials come from. They change while we run: bound tokens live an hour, plugins' tokens even less."""

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read the credentials anew; cheap enough to be called once a minute.

        Args:
            renew: the last ones were refused, so nothing that was kept may be used.

        Raises:
            InvalidInput: the configuration is missing or wrong.
            AccessDenied: a plugin gave no credentials.
        """


def read_config_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput(
            f"Cannot read {path}, which the connection to the API server needs: {error.strerror}"
        ) from error
