"""The receiver of notifications: its URL, its header and its certificates, read again for each round of requests."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cinderblock.controller.webhook.settings import WebhookSettings
from cinderblock.errors import InvalidInput
from cinderblock.store.endpoint_policy import EndpointPolicy

MAX_BYTES: Final = 8192
"""Bytes of a URL or of a header, as many as servers accept."""
MAX_CERTIFICATE_BYTES: Final = 1024 * 1024
"""Bytes of the certificates, as many as a ConfigMap can have."""


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver.

    Attributes:
        url: the whole URL. It may contain a secret, so it is never shown.
        origin: scheme, host and port of the URL, which may be shown.
        header: name and value of the header; None: none.
        tls: how its certificate is verified; None: plain HTTP.
        allowed_endpoints: entries of the administrator's list.
    """

    url: str = field(repr=False)
    origin: str
    header: tuple[str, str] | None = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)
    allowed_endpoints: tuple[str, ...] = ()

    def check(self, addresses: Sequence[str]) -> None:
        """Check the addresses to which a connection is going to be made.

        The setting itself allows the host. Loopback and link-local addresses, such as a cloud's metadata service, are
        refused unless the administrator allows their network. Raises InvalidInput.
        """
        policy = EndpointPolicy((*self.allowed_endpoints, self.origin), resolve=lambda _: addresses)
        try:
            policy.check(self.origin)
        except InvalidInput as error:
            raise InvalidInput(
                f"The webhook {self.origin} leads to a loopback, link-local or multicast address. Use another host, or "
                "add its network to the chart's stores.allowedEndpoints."
            ) from error


def read_target(settings: WebhookSettings) -> Target:
    """Return the receiver. Raises InvalidInput, without the content of the Secret."""
    url = settings.url or _read(settings.folder, "url", MAX_BYTES)
    if not url:
        raise InvalidInput("The webhook has no URL. Set webhook.url of the chart, or the key url of its Secret.")
    parts = _split(url)
    if parts.scheme == "http" and not settings.allow_plaintext:
        raise InvalidInput(
            "The URL of the webhook begins with http://, so events and the header would travel unencrypted. "
            "Use https://, or set webhook.allowPlaintext=true."
        )
    header = _read(settings.folder, "header", MAX_BYTES)
    if header and not (header.isascii() and header.isprintable()):
        raise InvalidInput(
            "The key header of the webhook's Secret is not one line of printable ASCII characters. Correct it."
        )
    return Target(
        url=url,
        origin=f"{parts.scheme}://{parts.netloc.lower()}",
        header=(settings.header_name, header) if header else None,
        tls=_tls(settings.folder) if parts.scheme == "https" else None,
        allowed_endpoints=settings.allowed_endpoints,
    )


def _split(url: str) -> SplitResult:
    """Return the parts of a URL. Raises InvalidInput, without the URL."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or "@" in parts.netloc or "[" in parts.netloc or not url.isprintable() or " " in url:
        raise InvalidInput(
            "The URL of the webhook is invalid. Use https:// and a name or an IPv4 address, without user and password."
        )
    return parts


def _tls(folder: Path | None) -> ssl.SSLContext:
    """Return how certificates are verified: with the authorities of ``ca.crt`` alone, or with public ones."""
    authorities = _read(folder, "ca.crt", MAX_CERTIFICATE_BYTES)
    try:
        return ssl.create_default_context(cadata=authorities or None)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput("The certificates of the webhook (ca.crt) are not valid PEM.") from error


def _read(folder: Path | None, name: str, limit: int) -> str:
    """Return the content of a file without white space around it; empty: there is no such file."""
    if folder is None:
        return ""
    try:
        with (folder / name).open("rb") as file:
            content = file.read(limit + 1)
        text = content.decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Cannot read the key {name} of the webhook: {type(error).__name__}.") from error
    if len(content) > limit:
        raise InvalidInput(f"The key {name} of the webhook has more than {limit} bytes.")
    return text
