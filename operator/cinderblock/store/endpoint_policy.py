"""Which S3 endpoints an administrator allows, checked for every request and for every address of its host.

A name is checked, and the addresses that it resolves to at that moment. The connection resolves the name once more, so
anyone who controls the DNS of an allowed name can answer differently the second time. Behind a proxy only the name is
checked, because the proxy resolves it. A NetworkPolicy has neither gap.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cinderblock.api.ip_address import Address, Network, parse_address
from cinderblock.errors import InvalidInput, StoreUnreachable
from cinderblock.reasons import Reason

Resolve: TypeAlias = Callable[[str], Sequence[str]]

CACHE_SECONDS: Final = 30.0
"""How long the addresses of an allowed host are trusted. A request takes some milliseconds, a query for a name too."""
_NAME: Final = re.compile(r"(?P<host>\*|(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class AllowedEndpoint:
    """One entry of the list.

    Attributes:
        scheme: http or https.
        host: a name, ``*.example.com`` for all names below it, or ``*``; empty for a network.
        port: None: any port.
        network: addresses that are allowed, whatever the name.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    network: Network | None = None

    @classmethod
    def parse(cls, text: str) -> AllowedEndpoint:
        """Parse ``[http://|https://]host[:port]`` or a network; without a scheme it is https. Raises InvalidInput."""
        scheme, separator, rest = text.strip().rpartition("://")
        scheme = scheme.lower() if separator else "https"
        try:
            return cls(scheme, network=ipaddress.ip_network(rest, strict=False))
        except ValueError:
            found = _NAME.fullmatch(rest.lower().rstrip("."))
        if found is None or scheme not in ("http", "https"):
            raise InvalidInput(
                f"Cannot allow the endpoint {text!r}. Use a host such as s3.example.com, *.example.com, "
                "http://s3.example.com:9000, or a network such as 10.0.0.0/8."
            )
        return cls(scheme, found["host"], int(found["port"]) if found["port"] else None)

    def names(self, scheme: str, host: str, port: int) -> bool:
        """Return whether the entry allows a host by its name."""
        if not self.host or scheme != self.scheme or self.port not in (None, port):
            return False
        return self.host in ("*", host) or (self.host.startswith("*.") and host.endswith(self.host[1:]))

    def contains(self, scheme: str, address: Address) -> bool:
        """Return whether the entry allows an address."""
        return self.network is not None and scheme == self.scheme and address in self.network


class EndpointPolicy:
    """Checks the requests of one store.

    Args:
        texts: entries of the list, at least one.
        resolve: returns the addresses of a host; raises OSError if it has none.
        clock: for the age of addresses.
    """

    def __init__(
        self, texts: Iterable[str], resolve: Resolve | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries = [AllowedEndpoint.parse(text) for text in texts]
        self._resolve = resolve or _addresses_of
        self._clock = clock
        self._allowed_until: dict[str, float] = {}

    def check(self, url: str) -> None:
        """Check the URL of a request.

        Raises:
            InvalidInput: the endpoint is not allowed (reason EndpointNotAllowed).
            StoreUnreachable: only networks are allowed, and the name has no address now.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self._clock() < self._allowed_until.get(origin, 0.0):
            return
        scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
        port = parts.port or (443 if scheme == "https" else 80)
        is_named = any(entry.names(scheme, host, port) for entry in self._entries)
        self._check_addresses(scheme, host, is_named=is_named, addresses=self._find_addresses(host, is_named))
        self._allowed_until[origin] = self._clock() + CACHE_SECONDS

    def check_request(self, request: Any, **_: Any) -> None:
        """Check a request of botocore before it is sent; its own redirects to other hosts come by here, too."""
        self.check(str(request.url))

    def _find_addresses(self, host: str, is_named: bool) -> Sequence[Address]:
        """Return the addresses of a host; none behind a proxy, or if a name that is allowed has none now."""
        literal = parse_address(host)
        if literal is not None:
            return [literal]
        if _is_proxied(host) or not (is_named or any(entry.network for entry in self._entries)):
            return []
        try:
            found = [parse_address(text) for text in self._resolve(host)]
        except OSError as error:
            if is_named:
                return []
            raise StoreUnreachable(f"Cannot find the addresses of {host}: {error.strerror}. Check its name.") from error
        return [address for address in found if address is not None]

    def _check_addresses(self, scheme: str, host: str, *, is_named: bool, addresses: Sequence[Address]) -> None:
        unlisted = [a for a in addresses if not any(entry.contains(scheme, a) for entry in self._entries)]
        if addresses and not unlisted:
            return
        if not is_named:
            raise _not_allowed(f"{scheme}://{host}")
        special = next((address for address in unlisted if _is_special(address)), None)
        if special is not None:
            raise _not_allowed(f"{scheme}://{host} at {special}, a loopback, link-local or multicast address,")


def _not_allowed(what: str) -> InvalidInput:
    return InvalidInput(
        f"Cannot use the S3 endpoint {what} because the administrator has not allowed it. "
        "Choose another endpoint, or add it to the chart's stores.allowedEndpoints.",
        reason=Reason.ENDPOINT_NOT_ALLOWED,
    )


def _is_special(address: Address) -> bool:
    """Return whether an address is the machine itself, or something on its link such as a cloud's metadata service."""
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def _is_proxied(host: str) -> bool:
    return bool(getproxies().keys() & {"http", "https", "all"}) and not proxy_bypass(host)


def _addresses_of(host: str) -> list[str]:
    """Return the addresses of a host, as a connection finds them. Raises OSError if there is none."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
