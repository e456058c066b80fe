"""kopf's session reaches the same server, in the same way, as the client."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cinderblock.controller.handlers.kopf_session import open_session
from cinderblock.controller.handlers.watch_liveness import WatchLiveness
from cinderblock.kube.rest_config import RestConfig
from tests.support.cluster.certificates import Authority


async def _user(request: web.Request) -> web.Response:
    certificate = (request.transport.get_extra_info("peercert") or {}) if request.transport else {}
    names = [value for part in certificate.get("subject", ()) for _, value in part]
    return web.json_response({"certificate": names, "authorization": request.headers.get("Authorization")})


async def test_session_uses_server_name_certificate_and_token(tmp_path: Path) -> None:
    authority = Authority("our authority")
    server_identity, admin = authority.sign("api.test"), authority.sign("admin")
    (tmp_path / "server.pem").write_bytes(server_identity.certificate + server_identity.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    application = web.Application()
    application.router.add_get("/user", _user)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server(ssl=context)
    config = RestConfig(
        str(server.make_url("")).rstrip("/"),
        ca=authority.certificate,
        certificate=admin.certificate,
        private_key=admin.key,
        token="ours",
        server_name="api.test",
    )
    try:
        opened = open_session(config, WatchLiveness())
        async with opened.aiohttp_session as session, session.get(f"{config.server}/user") as response:
            assert await response.json() == {"certificate": ["admin"], "authorization": "Bearer ours"}
        opened = open_session(replace(config, server_name=None), WatchLiveness())
        async with opened.aiohttp_session as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"{config.server}/user")
    finally:
        await server.close()
