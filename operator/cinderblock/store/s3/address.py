"""The address of a store as messages show it, without credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from cinderblock.store.credentials import S3Credentials

_QUOTED_CHARACTERS: Final = 200
"""Most characters of a server's or a library's text in a message."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Endpoint and container of a store.

    Attributes:
        endpoint: URL of the endpoint.
        container: bucket.
        region: region that requests are signed for.
        credentials: removed from every quoted text; None: boto3 finds them, so they are unknown here.
        is_signed_remotely: whether a broker signs the requests, with credentials and a clock of its own.
    """

    endpoint: str
    container: str
    region: str
    credentials: S3Credentials | None = field(default=None, repr=False)
    is_signed_remotely: bool = False

    @override
    def __str__(self) -> str:
        return f"container {self.container} at {self.endpoint}"

    def redact(self, text: object) -> str:
        """Return a foreign text on one line, shortened, without the credentials."""
        line = " ".join(str(text).split())
        if self.credentials is not None:
            secrets = (self.credentials.secret_key, self.credentials.session_token, self.credentials.access_key)
            for secret in filter(None, secrets):
                line = line.replace(secret, "***")
        return line if len(line) <= _QUOTED_CHARACTERS else f"{line[:_QUOTED_CHARACTERS]}…"
