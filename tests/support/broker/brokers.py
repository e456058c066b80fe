"""A broker in the process of the test, with TLS, and what a mover or an attacker sends to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import yarl

from cinderblock.api.broker import SIGN_PATH
from cinderblock.broker.app import make_app
from cinderblock.broker.main import make_services
from cinderblock.broker.settings import BrokerSettings
from cinderblock.broker.tls.secret import TlsSecret
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import SECRET
from cinderblock.observability.broker_metrics import BrokerMetrics
from cinderblock.serving.server import running

EMPTY_HASH = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass
class Broker:
    """A running broker.

    Attributes:
        url: where it listens.
        port: its port.
        namespace: its namespace.
        ca: PEM certificate of its authority.
        session: a client that trusts it.
        metrics: of its requests.
    """

    url: str
    port: int
    namespace: str
    ca: str
    metrics: BrokerMetrics
    session: aiohttp.ClientSession = field(repr=False)

    async def ask(
        self, path: str, body: object = None, token: str | None = None, *, method: str = "POST", **more: Any
    ) -> Answer:
        """Send a request. Bytes are sent unchanged."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= more.pop("headers", {})
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        target = yarl.URL(self.url + path, encoded=True)
        async with self.session.request(method, target, data=data, headers=headers, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def sign(
        self, token: str, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Ask for a signature of a request with this body."""
        covered = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()} | dict(headers or {})
        return await self.ask(SIGN_PATH, {"method": method, "url": url, "headers": covered}, token)

    async def send(
        self, token: str, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request to the S3 server that the broker signs."""
        signed = await self.sign(token, method, url, headers, body)
        assert signed.status == 200, signed.body
        return await self.deliver(method, url, body, dict(headers or {}) | signed.json["headers"])

    async def deliver(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a request to the S3 server exactly as given."""
        plain = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        async with (
            aiohttp.ClientSession(
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
            ) as session,
            session.request(
                method, yarl.URL(url, encoded=True), data=body, headers=plain, allow_redirects=False
            ) as answer,
        ):
            return Answer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def broker_before(
    kubeconfig: str, namespace: str, settings: BrokerSettings | None = None
) -> AsyncIterator[Broker]:
    """Run a broker whose Secrets are in ``namespace``. It makes its certificate itself."""
    settings = settings or BrokerSettings(host="127.0.0.1", port=0, service_account="broker")
    settings = replace(settings, host_names=("localhost", "127.0.0.1"))
    metrics = BrokerMetrics()
    async with aclosing(await connect(kubeconfig=kubeconfig)) as kube:
        with closing(TlsSecret(kube, namespace, settings)) as tls:
            await tls.refresh()
            services = make_services(kube, namespace, settings)
            with_tls = replace(settings, certificate=tls.file, private_key=tls.file)
            ca = await authority_of(kube, namespace, settings.tls_secret)
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=ca), limit=16)
            with closing(services.stores):
                async with (
                    running(make_app(services, with_tls, metrics), with_tls) as server,
                    aiohttp.ClientSession(connector=connector) as session,
                ):
                    yield Broker(f"https://127.0.0.1:{server.port}", server.port, namespace, ca, metrics, session)


async def authority_of(kube: KubeClient, namespace: str, name: str) -> str:
    """Return the authority in the Secret of a broker, as the operator reads it."""
    body = await kube.get(SECRET, name, namespace)
    assert body is not None
    return base64.b64decode(body["data"]["ca.crt"]).decode()


async def raw_answer(broker: Broker, sent: bytes, *, slowly: bool = False) -> bytes:
    """Send bytes over TLS, and return what arrives until the broker closes the connection."""
    context = ssl.create_default_context(cadata=broker.ca)
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port, ssl=context, server_hostname="localhost")
    try:
        if slowly:
            for start in range(0, len(sent), 64):
                writer.write(sent[start : start + 64])
                await asyncio.sleep(0)
        else:
            writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()
