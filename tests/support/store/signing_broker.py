"""A small broker on loopback, with TLS. It signs whatever it is asked to, counts that, and fails on demand."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from typing_extensions import override

from cinderblock.api.broker import (
    CREDENTIALS_PATH,
    NEW_DATA_KEY_PATH,
    SIGN_PATH,
    UNWRAP_PATH,
    BrokerFault,
    BrokerLocation,
    CredentialsAnswer,
    DataKeyAnswer,
    SignAnswer,
    SignRequest,
    UnwrapRequest,
    WrappedKeyModel,
)
from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.errors import CinderblockError
from cinderblock.format.crypto.keyring import DataKey, KeyRing, WrappedKey
from cinderblock.reasons import Reason
from cinderblock.store.broker.client import BrokerClient
from cinderblock.store.credentials import S3Credentials
from tests.support.cluster.certificates import Authority

NO_CREDENTIALS: Final = S3Credentials("id", "secret")
TOKEN: Final = "a.token.of-a-pod"
HOST: Final = "localhost"
_DIGEST: Final = "x-amz-content-sha256"

Fault = Callable[["_Handler"], None]
"""Answers a request in the place of the broker."""


class _Auth(S3SigV4Auth):
    @override
    def payload(self, request: Any) -> Any:
        return request.context[_DIGEST]


@dataclass
class SigningBroker:
    """The running broker.

    Attributes:
        credentials: sign requests.
        keys: its keys.
        owner: volume id and backup id of the operation, for which new data keys are wrapped.
        token: the only token that it accepts.
        faults: answer the next requests, in order.
        always: answers all further requests, if it is set.
        signed: the requests that were signed.
        calls: number of calls by path, without those that a fault has answered.
        connections: connections that were made.
        lifetime: of session credentials.
    """

    directory: Path
    credentials: S3Credentials = NO_CREDENTIALS
    keys: KeyRing | None = None
    owner: tuple[str, str] = ("", "")
    token: str = TOKEN
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    signed: list[SignRequest] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    lifetime: timedelta = timedelta(hours=1)
    port: int = 0
    _server: _Server | None = None
    _clients: list[BrokerClient] = field(default_factory=list)
    _authority: Authority = field(default_factory=lambda: Authority("broker"))

    def __post_init__(self) -> None:
        identity = self._authority.sign(HOST)
        (self.directory / "broker.crt").write_bytes(identity.certificate)
        (self.directory / "broker.key").write_bytes(identity.key)
        (self.directory / "token").write_text(self.token + "\n")

    @property
    def token_file(self) -> str:
        """Path of a file with the token."""
        return str(self.directory / "token")

    def location(
        self, access: MoverAccess = MoverAccess.SIGNED_REQUESTS, *, ca: bytes | None = None, s3_ca: str = ""
    ) -> BrokerLocation:
        """Return where movers find it."""
        return BrokerLocation(
            url=f"https://{HOST}:{self.port}",
            ca_certificate=(ca or self._authority.certificate).decode(),
            access=access,
            encrypts=self.keys is not None,
            ca_certificates=s3_ca,
        )

    def client(self) -> BrokerClient:
        """Return a client that shows the right token. It is closed with the broker."""
        self._clients.append(BrokerClient(self.location(), self.token_file))
        return self._clients[-1]

    def close_clients(self) -> None:
        """Close all clients."""
        while self._clients:
            self._clients.pop().close()

    def start(self) -> None:
        """Listen, after a stop on the same port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "broker.crt", self.directory / "broker.key")
        self._server = _Server(self, context)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close all connections, and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.hang_up()
            server.server_close()

    def answer(self, path: str, body: bytes) -> Model:
        """Return the answer to a request. Raises CinderblockError."""
        if path == SIGN_PATH:
            return self._sign(SignRequest.model_validate_json(body))
        if path == CREDENTIALS_PATH:
            return CredentialsAnswer(
                access_key_id=self.credentials.access_key,
                secret_access_key=self.credentials.secret_key,
                session_token=self.credentials.session_token or "",
                expires_at=datetime.now(UTC) + self.lifetime,
            )
        assert self.keys is not None
        if path == NEW_DATA_KEY_PATH:
            data_key = DataKey.random()
            return _opened(data_key, self.keys.wrap(data_key, self.owner))
        assert path == UNWRAP_PATH
        return self._unwrap(UnwrapRequest.model_validate_json(body), self.keys)

    def _sign(self, wanted: SignRequest) -> SignAnswer:
        self.signed.append(wanted)
        request = AWSRequest(method=wanted.method, url=wanted.url, headers=dict(wanted.headers))
        request.context[_DIGEST] = wanted.headers[_DIGEST]
        known = Credentials(self.credentials.access_key, self.credentials.secret_key, self.credentials.session_token)
        _Auth(known, "s3", "us-east-1").add_auth(request)
        added = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-SHA256")
        return SignAnswer(headers={name: request.headers[name] for name in added if name in request.headers})

    def _unwrap(self, wanted: UnwrapRequest, keys: KeyRing) -> DataKeyAnswer:
        given, owner = wanted.wrapped, (wanted.volume_id, wanted.backup_id)
        wrapped = WrappedKey(given.key_id, base64.b64decode(given.salt), base64.b64decode(given.sealed))
        if wanted.created_at is not None:
            keys.check_age(wrapped, owner, wanted.created_at, f"backup {owner[1]}")
        return _opened(keys.unwrap(wrapped, owner), wrapped)


def _opened(data_key: DataKey, wrapped: WrappedKey) -> DataKeyAnswer:
    def encode(value: bytes) -> str:
        return base64.b64encode(value).decode()

    sealed = WrappedKeyModel(key_id=wrapped.key_id, salt=encode(wrapped.salt), sealed=encode(wrapped.sealed))
    return DataKeyAnswer(data_key=encode(data_key.reveal()), wrapped=sealed)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, broker: SigningBroker, context: ssl.SSLContext) -> None:
        self.broker, self.context = broker, context
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", broker.port), _Handler)

    def hang_up(self) -> None:
        """Close all connections."""
        for connected in [*self.open]:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: tests break connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    @override
    def setup(self) -> None:
        self.server.broker.connections += 1
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.server.open.add(self.request)
        super().setup()

    @override
    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.open.discard(self.request)
            self.request.close()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        """Answer a request of a mover, or let a fault do so."""
        broker, body = self.server.broker, self.rfile.read(int(self.headers["Content-Length"]))
        fault = broker.faults.pop(0) if broker.faults else broker.always
        if fault is not None:
            fault(self)
            return
        if self.headers["Authorization"] != f"Bearer {broker.token}":
            refuse(Reason.UNAUTHORIZED, status=401)(self)
            return
        broker.calls[self.path] += 1
        try:
            content = broker.answer(self.path, body).model_dump_json(by_alias=True).encode()
        except CinderblockError as error:
            refuse(str(error.reason), error.message, 409)(self)
            return
        reply(content)(self)


def reply(content: bytes, status: int = 200, **headers: str) -> Fault:
    """Answer with any bytes."""

    def send(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return send


def refuse(reason: str, message: str = "No.", status: int = 403, *, transient: bool = False, **headers: str) -> Fault:
    """Refuse a request as the broker does."""
    fault = BrokerFault(reason=reason, message=message, transient=transient)
    return reply(json.dumps(fault.to_wire()).encode(), status, **headers)


def hang_up(handler: _Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.request.shutdown(socket.SHUT_RDWR)


def break_off(handler: _Handler) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"headers": {')
    hang_up(handler)


def trickle(handler: _Handler) -> None:
    """Send one byte after the other, and never the last one."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)


@contextlib.contextmanager
def signing_broker(
    directory: Path, credentials: S3Credentials = NO_CREDENTIALS, **more: Any
) -> Iterator[SigningBroker]:
    """Run a broker."""
    directory.mkdir(parents=True, exist_ok=True)
    broker = SigningBroker(directory, credentials, **more)
    broker.start()
    try:
        yield broker
    finally:
        broker.close_clients()
        broker.stop()
