"""How to reach the API server, and what to show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cinderblock.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RestConfig:
    """How to reach the API server, and what to show it.

    Certificates and keys are content, not paths, so two configurations can be compared and nothing stays on the disk.

    Attributes:
        server: URL without a trailing slash.
        ca: PEM certificates that the server is checked against; None: the system's.
        certificate: PEM client certificate.
        private_key: PEM key of the client certificate.
        token: bearer token.
        insecure: do not check the server's certificate.
        server_name: name expected in the server's certificate, if it is not that of the URL.
        proxy: URL of an HTTP proxy.
        namespace: namespace to use where none is given.
        context: name of the context of the kubeconfig, for people; empty: in a pod.
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
    context: str = field(default="", compare=False)


class ConfigSource(Protocol):
    """Where a configuration comes from. It changes: bound tokens live an hour, plugins' tokens even less."""

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read the configuration again; this is cheap enough for once a minute.

        Args:
            renew: the server rejected the last credentials, so cached ones must not be used.

        Raises:
            InvalidInput: the configuration is missing or wrong.
            AccessDenied: a plugin gave no credentials.
        """


def bearer_token(authorization: str | None) -> str | None:
    """Return the token in the value of an Authorization header, without the scheme and without line ends.

    Files end with a newline, which the ``kubernetes`` package passes on and which no header may hold.
    """
    return (authorization or "").partition(" ")[2].strip() or None


def read_config_file(path: str) -> bytes:
    """Return the content of a file. Raises InvalidInput if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput(f"Cannot read {path} to connect to the API server: {error.strerror}") from error
