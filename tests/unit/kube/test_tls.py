"""TLS: whom we believe, by which name, and which certificate we show."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.errors import KubeUnavailable
from cinderblock.kube.rest_config import RestConfig
from cinderblock.kube.transport import RELOAD_SECONDS, Request, Transport
from tests.support.cluster.certificates import Authority, Identity

WHO = Request("PATCH", "/who")


class Changing:
    """A source whose credentials the test replaces."""

    def __init__(self, credentials: RestConfig) -> None:
        self.credentials = credentials

    async def load(self, *, renew: bool = False) -> RestConfig:
        return self.credentials


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("our authority")


@pytest.fixture
async def trusting(authority: Authority, tmp_path: Path) -> AsyncIterator[RestConfig]:
    """Credentials for a server called api.test that answers with the names in the certificate that it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write(tmp_path / "server.pem", authority.sign("api.test")))
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_OPTIONAL

    async def who(request: web.Request) -> web.Response:
        assert request.transport
        shown = request.transport.get_extra_info("peercert") or {}
        return web.json_response({"names": [value for part in shown.get("subject", ()) for _, value in part]})

    application = web.Application()
    application.router.add_route("*", "/who", who)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server(ssl=context)
    yield RestConfig(str(server.make_url("")).rstrip("/"), ca=authority.certificate, server_name="api.test")
    await server.close()


def write(path: Path, identity: Identity) -> Path:
    path.write_bytes(identity.certificate + identity.key)
    return path


async def answered(credentials: RestConfig) -> list[str]:
    """Names of us that the server has seen."""
    async with aclosing(Transport(Changing(credentials))) as transport:
        names = (await transport.round_trip(WHO)).json()["names"]
        assert isinstance(names, list)
        return names


async def test_a_server_whose_authority_we_know_is_believed(trusting: RestConfig) -> None:
    assert await answered(trusting) == []


async def test_a_server_of_another_authority_is_not_believed(trusting: RestConfig) -> None:
    with pytest.raises(KubeUnavailable, match="its certificate is not trusted"):
        await answered(replace(trusting, ca=Authority("another").certificate))


async def test_a_server_of_another_name_is_not_believed(trusting: RestConfig) -> None:
    with pytest.raises(KubeUnavailable, match="its certificate is not trusted"):
        await answered(replace(trusting, server_name="other.test"))


async def test_nothing_is_checked_where_the_kubeconfig_says_so(trusting: RestConfig) -> None:
    assert await answered(replace(trusting, ca=None, server_name=None, insecure=True)) == []


async def test_the_client_certificate_is_shown(trusting: RestConfig, authority: Authority) -> None:
    admin = authority.sign("admin")
    assert await answered(replace(trusting, certificate=admin.certificate, private_key=admin.key)) == ["admin"]


async def test_a_renewed_client_certificate_is_shown_from_then_on(trusting: RestConfig, authority: Authority) -> None:
    now = 1000.0
    old, new = authority.sign("old"), authority.sign("new")
    source = Changing(replace(trusting, certificate=old.certificate, private_key=old.key))
    async with aclosing(Transport(source, clock=lambda: now)) as transport:
        assert (await transport.round_trip(WHO)).json()["names"] == ["old"]
        source.credentials = replace(trusting, certificate=new.certificate, private_key=new.key)
        now += RELOAD_SECONDS
        assert (await transport.round_trip(WHO)).json()["names"] == ["new"]


async def test_no_key_is_left_on_the_disk(
    trusting: RestConfig, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    admin = authority.sign("admin")
    await answered(replace(trusting, certificate=admin.certificate, private_key=admin.key))
    assert list(folder.iterdir()) == []
