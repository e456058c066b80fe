"""Where a store is, in the words of messages, and what must not appear in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from cinderblock.store.credentials import S3Credentials

_QUOTE_LIMIT: Final = 200
"""Characters of a server's or a library's text that are quoted in a message."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Endpoint and container of a store.

    Attributes:
        endpoint: URL of the endpoint.
        container: bucket.
        region: region that requests are signed for.
        credentials: what is taken out of every text that is quoted; None: found by botocore, not known here.
    """

    endpoint: str
    container: str
    region: str
    credentials: S3Credentials | None = field(default=None, repr=False)

    @override
    def __str__(self) -> str:
        return f"container {self.container} at {self.endpoint}"

    def quote(self, text: object) -> str:
        """A foreign text on one line, cut to a reasonable length, without anything of the credentials."""
        line = " ".join(str(text).split())
        if self.credentials is not None:
            secrets = (self.credentials.secret_key, self.credentials.session_token, self.credentials.access_key)
            for secret in filter(None, secrets):
                line = line.replace(secret, "***")
        return line if len(line) <= _QUOTE_LIMIT else f"{line[:_QUOTE_LIMIT]}…"
