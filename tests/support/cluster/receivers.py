"""An HTTPS server that receives events, as a webhook does."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.cluster.certificates import Authority


@dataclass(slots=True)
class Receiver:
    """The server.

    Attributes:
        url: its URL, whose path is a secret.
        answers: status and headers of the next answers. The last one is repeated.
        hangs: whether it never answers.
        refuses: names of objects, to events about which it answers 500.
        requests: headers of the requests.
        events: bodies of the requests.
    """

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(202, {})])
    hangs: bool = False
    refuses: set[str] = field(default_factory=set)
    requests: list[dict[str, str]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request."""
        self.requests.append({key.lower(): value for key, value in request.headers.items()})
        self.events.append(json.loads(await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        if self.events[-1]["data"]["name"] in self.refuses:
            return web.Response(status=500)
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=headers, text="geheim-answer")

    def alerts(self) -> list[tuple[str, str]]:
        """Return the name and the state of the alerts that arrived."""
        return [(event["data"]["alert"], event["data"]["state"]) for event in self.events]


@asynccontextmanager
async def receiving(folder: Path, name: str = "localhost", *, tls: bool = True) -> AsyncIterator[Receiver]:
    """Run a receiver until the end of the block. The authority of its certificate is the file ca.crt of the folder."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_context(folder, name) if tls else None)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http{'s' * tls}://localhost:{port}/hooks/geheim-path"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def _context(folder: Path, name: str) -> ssl.SSLContext:
    authority = Authority("receivers")
    identity = authority.sign(name)
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "server.pem").write_bytes(identity.certificate + identity.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
