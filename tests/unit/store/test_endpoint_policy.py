"""Which S3 endpoints are allowed: names, networks, and where a name leads."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import Addressing
from cinderblock.errors import InvalidInput, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.endpoint_policy import CACHE_SECONDS, AllowedEndpoint, EndpointPolicy
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import RetryPolicy
from tests.support.store.scripted_http import Reply, scripted

CREDENTIALS = S3Credentials("id", "secret")
ONCE = RetryPolicy(attempts=1, check_attempts=1)
PUBLIC = "203.0.113.5"


class Names:
    """Stands in for DNS, and counts queries."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.queries = 0

    def __call__(self, host: str) -> Sequence[str]:
        self.queries += 1
        if not self.addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return self.addresses


def allows(entry: str, url: str, *addresses: str) -> bool:
    """Return whether a list with one entry allows an endpoint whose host has these addresses."""
    try:
        EndpointPolicy([entry], Names(*(addresses or (PUBLIC,)))).check(url)
    except InvalidInput as error:
        return error.reason != Reason.ENDPOINT_NOT_ALLOWED
    return True


@pytest.mark.parametrize(
    ("entry", "url", "expected"),
    [
        ("s3.example.com", "https://s3.example.com", True),
        ("S3.Example.com.", "https://s3.EXAMPLE.com./path", True),
        ("s3.example.com", "https://s3.example.com:9000", True),
        ("s3.example.com:9000", "https://s3.example.com:9000", True),
        ("s3.example.com:9000", "https://s3.example.com", False),
        ("s3.example.com:443", "https://s3.example.com", True),
        ("s3.example.com", "http://s3.example.com", False),
        ("http://s3.example.com", "http://s3.example.com", True),
        ("http://s3.example.com", "https://s3.example.com", False),
        ("s3.example.com", "https://s3.example.com.evil.org", False),
        ("s3.example.com", "https://evils3.example.com", False),
        ("s3.example.com", "https://a.s3.example.com", False),
        ("*.example.com", "https://a.b.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("*.example.com", "https://evilexample.com", False),
        ("*.example.com", "https://example.com.evil.org", False),
        ("*", "https://anything.org", True),
        ("*", "http://anything.org", False),
        ("203.0.113.0/24", "https://203.0.113.9", True),
        ("203.0.113.0/24", "http://203.0.113.9", False),
        ("http://203.0.113.0/24", "http://203.0.113.9:9000", True),
        ("203.0.113.0/24", "https://198.51.100.1", False),
        ("203.0.113.0/24", "https://any.example", True),
        ("198.51.100.0/24", "https://any.example", False),
        ("2001:db8::/32", "https://[2001:db8::1]:9000", True),
        ("203.0.113.0/24", "https://[::ffff:203.0.113.9]", True),
        ("127.0.0.1", "https://127.0.0.1", True),
    ],
)
def test_endpoint_is_allowed_by_name_or_network(entry: str, url: str, *, expected: bool) -> None:
    assert allows(entry, url) is expected


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "::1", "fe80::1", "0.0.0.0", "::ffff:127.0.0.1"])
def test_allowed_name_must_not_lead_to_the_node_or_the_link(address: str) -> None:
    assert not allows("*.example.com", "https://s3.example.com", address)
    assert not allows("*.example.com", "https://s3.example.com", PUBLIC, address)
    assert not allows("*", f"https://{f'[{address}]' if ':' in address else address}")


def test_network_that_is_named_may_be_the_node_itself() -> None:
    EndpointPolicy(["*.example.com", "127.0.0.0/8"], Names("127.0.0.1")).check("https://s3.example.com")


def test_all_addresses_of_a_name_must_be_in_an_allowed_network() -> None:
    assert not allows("203.0.113.0/24", "https://any.example", PUBLIC, "198.51.100.1")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1"])
def test_other_spellings_of_an_address_are_resolved_first(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"127\.0\.0\.1"):
        EndpointPolicy(["*"]).check(f"https://{host}")


def test_name_without_address_is_left_to_the_connection_or_unreachable() -> None:
    EndpointPolicy(["s3.example.com"], Names()).check("https://s3.example.com")
    with pytest.raises(StoreUnreachable):
        EndpointPolicy(["10.0.0.0/8"], Names()).check("https://s3.example.com")


def test_names_behind_a_proxy_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    names = Names("169.254.169.254")
    EndpointPolicy(["s3.example.com"], names).check("https://s3.example.com")
    assert names.queries == 0
    with pytest.raises(InvalidInput):
        EndpointPolicy(["10.0.0.0/8"], names).check("https://s3.example.com")


def test_addresses_are_checked_again_after_a_while() -> None:
    now = 0.0
    names = Names(PUBLIC)
    policy = EndpointPolicy(["s3.example.com"], names, clock=lambda: now)
    for _ in range(3):
        policy.check("https://s3.example.com")
    assert names.queries == 1
    names.addresses, now = ("169.254.169.254",), CACHE_SECONDS + 1
    with pytest.raises(InvalidInput):
        policy.check("https://s3.example.com")


@pytest.mark.parametrize(
    "text", ["", "ftp://x", "a b", "https://user@x", "s3.*.com", "x/path", "10.0.0.0/40", "*example"]
)
def test_entry_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        AllowedEndpoint.parse(text)


async def test_store_sends_nothing_to_an_endpoint_that_is_not_allowed() -> None:
    async with scripted([Reply(200)]) as server:
        location = StoreLocation(endpoint_url=server.url, container="backups", allowed_endpoints=["*.example.com"])
        store = open_store(location, CREDENTIALS, policy=ONCE)
        for call in (store.check, lambda: store.put("key", b"x"), lambda: list(store.list(""))):
            with pytest.raises(InvalidInput) as raised:
                call()
            assert raised.value.reason == Reason.ENDPOINT_NOT_ALLOWED
            assert "secret" not in raised.value.message
        assert server.asked == []


@pytest.mark.parametrize("entries", [["*.example.com"], ["203.0.113.0/24"]])
def test_virtual_hosts_are_checked_by_their_own_name(entries: list[str]) -> None:
    location = StoreLocation(
        endpoint_url="https://s3.invalid", container="bucket", addressing=Addressing.VIRTUAL, allowed_endpoints=entries
    )
    with pytest.raises((InvalidInput, StoreUnreachable), match=r"bucket\.s3\.invalid"):
        open_store(location, CREDENTIALS, policy=ONCE).check()
