"""The HTTP side of the server: buckets on loopback, without signatures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from typing_extensions import override

from cinderblock.api.mover import StoreLocation
from cinderblock.store.credentials import S3Credentials
from tests.support.store.aws.answers import Answer, Request, answer, refusal
from tests.support.store.aws.bucket import Bucket, Refusal

CREDENTIALS = S3Credentials("AKIASTUB", "stub-secret")
BARE: Final = "bare"
"""Instead of a code: an answer without a body, as servers give that do not know a request at all."""


@dataclass
class AwsStub:
    """The running server.

    Attributes:
        url: where it listens.
        buckets: by name.
        keeps_versions: whether Object Lock switches on versioning. AWS does; versitygw without a directory for versions
            does not.
        refused: status and code for the permissions that are refused, such as ``s3:GetBucketVersioning``, and for the
            operations, such as ``DeleteObjects``.
        requests: the requests so far.
    """

    url: str = ""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    keeps_versions: bool = True
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    _passed: timedelta = timedelta()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        """Return the time of the server."""
        return datetime.now(UTC) + self._passed

    def advance(self, passed: timedelta) -> None:
        """Let time pass for the server."""
        self._passed += passed

    def add_bucket(
        self,
        name: str,
        *,
        versioning: str = "",
        lock: bool = False,
        default: tuple[str, timedelta] | None = None,
        lifecycle: str = "",
    ) -> Bucket:
        """Create a bucket."""
        versioning = "Enabled" if lock and self.keeps_versions else versioning
        self.buckets[name] = Bucket(self.now, versioning, lock, default, lifecycle)
        return self.buckets[name]

    def location(self, container: str, **more: object) -> StoreLocation:
        """Return the location of a bucket."""
        return StoreLocation.model_validate({"endpoint_url": self.url, "container": container, **more})

    def refuse(self, *names: str, status: int = 403, code: str = "AccessDenied") -> None:
        """Refuse all requests that need one of these permissions, or are one of these operations."""
        self.refused |= dict.fromkeys(names, (status, code))

    def handle(self, request: Request) -> Answer:
        """Answer one request. Requests are answered one after the other."""
        with self._lock:
            self.requests.append(request)
            try:
                self._authorize(request)
                return answer(self.buckets, request, self.add_bucket)
            except Refusal as error:
                if error.code == BARE:
                    return Answer(error.status)
                return refusal(error)

    def _authorize(self, request: Request) -> None:
        for name in (request.permission, request.name):
            if name in self.refused:
                raise Refusal(*self.refused[name], "User is not authorized")


@contextmanager
def aws_stub(*, keeps_versions: bool = True) -> Iterator[AwsStub]:
    """Run a server without buckets."""
    stub = AwsStub(keeps_versions=keeps_versions)

    class Handler(_Handler):
        server_stub = stub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_stub: AwsStub

    def _serve(self) -> None:
        target = urlsplit(self.path)
        bucket, _, key = unquote(target.path).removeprefix("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        found = self.server_stub.handle(Request(self.command, bucket, key, query, headers, body))
        self.send_response(found.status)
        for name, value in found.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in found.headers:
            self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 (names of http.server)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""
