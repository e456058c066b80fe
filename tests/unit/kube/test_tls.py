"""TLS: the authorities and names that are trusted, and the certificate that is shown."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.errors import InvalidInput, KubeUnavailable
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import RELOAD_SECONDS, Request, Transport
from tests.support.cluster.certificates import Authority, Identity

WHO = Request("PATCH", "/who")


class Changing:
    """A source whose configuration the test replaces."""

    def __init__(self, config: RestConfig) -> None:
        self.config = config

    async def load(self, *, renew: bool = False) -> RestConfig:
        return self.config


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("our authority")


@pytest.fixture
async def trusting(authority: Authority, tmp_path: Path) -> AsyncIterator[RestConfig]:
    """Configuration for a server named api.test that returns the names in the client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write(tmp_path / "server.pem", authority.sign("api.test")))
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_OPTIONAL

    async def who(request: web.Request) -> web.Response:
        assert request.transport
        certificate = request.transport.get_extra_info("peercert") or {}
        return web.json_response({"names": [value for part in certificate.get("subject", ()) for _, value in part]})

    application = web.Application()
    application.router.add_route("*", "/who", who)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server(ssl=context)
    yield RestConfig(str(server.make_url("")).rstrip("/"), ca=authority.certificate, server_name="api.test")
    await server.close()


def write(path: Path, identity: Identity) -> Path:
    path.write_bytes(identity.certificate + identity.key)
    return path


async def names_seen(config: RestConfig) -> list[str]:
    """Return the client names that the server has seen."""
    async with aclosing(Transport(Changing(config))) as transport:
        names = (await transport.round_trip(WHO)).json()["names"]
        assert isinstance(names, list)
        return names


async def test_server_of_a_known_authority_is_trusted(trusting: RestConfig) -> None:
    assert await names_seen(trusting) == []


async def test_server_of_another_authority_is_not_trusted(trusting: RestConfig) -> None:
    with pytest.raises(KubeUnavailable, match="its certificate is not trusted"):
        await names_seen(replace(trusting, ca=Authority("another").certificate))


async def test_server_of_another_name_is_not_trusted(trusting: RestConfig) -> None:
    with pytest.raises(KubeUnavailable, match="its certificate is not trusted"):
        await names_seen(replace(trusting, server_name="other.test"))


async def test_insecure_config_checks_no_certificate(trusting: RestConfig) -> None:
    assert await names_seen(replace(trusting, ca=None, server_name=None, insecure=True)) == []


async def test_client_certificate_is_shown(trusting: RestConfig, authority: Authority) -> None:
    admin = authority.sign("admin")
    assert await names_seen(replace(trusting, certificate=admin.certificate, private_key=admin.key)) == ["admin"]


async def test_renewed_client_certificate_is_shown(trusting: RestConfig, authority: Authority) -> None:
    now = 1000.0
    old, new = authority.sign("old"), authority.sign("new")
    source = Changing(replace(trusting, certificate=old.certificate, private_key=old.key))
    async with aclosing(Transport(source, clock=lambda: now)) as transport:
        assert (await transport.round_trip(WHO)).json()["names"] == ["old"]
        source.config = replace(trusting, certificate=new.certificate, private_key=new.key)
        now += RELOAD_SECONDS
        assert (await transport.round_trip(WHO)).json()["names"] == ["new"]


async def test_client_key_is_not_left_on_the_disk(
    trusting: RestConfig, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    admin = authority.sign("admin")
    await names_seen(replace(trusting, certificate=admin.certificate, private_key=admin.key))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "broken", [{"ca": b"no PEM"}, {"certificate": b"no PEM", "private_key": b"no PEM"}, {"ca": b"\xff"}]
)
async def test_broken_certificate_is_invalid_input(broken: dict[str, bytes]) -> None:
    config = replace(RestConfig("https://api.test"), **broken)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the client certificate or the key is not PEM"):
        await names_seen(config)
