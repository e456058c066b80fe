"""Find the client of a connection or a request: the peer's address, or the one that a trusted proxy reports.

``X-Forwarded-For`` is text that any caller can send. It counts only if the peer is in a network that the administrator
has named, and then from the right: each trusted proxy appends the address that it saw.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cinderblock.api.ip_address import Network, parse_address
from cinderblock.errors import InvalidInput

UNKNOWN: Final = "unknown"
"""Group of all peers without an address."""
_IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that identify a client: a host chooses the other 64 itself (RFC 4291)."""
_MAX_HOPS: Final = 20
"""Addresses of ``X-Forwarded-For`` that are read, from the right."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Networks whose ``X-Forwarded-For`` is believed; none by default."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> TrustedProxies:
        """Parse addresses and networks in CIDR notation. Raises InvalidInput, and names the text, for anything else."""
        return cls(tuple(_parse_network(text) for text in texts))

    def trusts(self, address: str) -> bool:
        """Return whether a peer is a trusted proxy."""
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """Return the address of the client: the last one in ``X-Forwarded-For`` that is not a trusted proxy itself.

        It is the peer if the peer is not trusted, or if the header has no such address.
        """
        client = peer
        for text in reversed(forwarded_for.split(",")[-_MAX_HOPS:]):
            if not self.trusts(client):
                break
            hop = parse_address(text.strip())
            if hop is None:
                break
            client = str(hop)
        return client


def group_of(address: str) -> str:
    """Return the group that limits apply to: the IPv4 address, or the /64 network of an IPv6 address."""
    parsed = parse_address(address)
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    return str(parsed)


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise InvalidInput(f"Cannot trust the proxy {text!r}: it is neither an address nor a network") from error
