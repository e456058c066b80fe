"""A real S3 server on loopback, optionally with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cinderblock.api.mover import StoreLocation
from cinderblock.store.credentials import S3Credentials
from tests.cluster import s3


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    url: str
    credentials: S3Credentials

    def location(self, container: str, **more: object) -> StoreLocation:
        """Return the location of a container of this server."""
        return StoreLocation.model_validate({"endpoint_url": self.url, "container": container, **more})


@contextmanager
def s3_server(
    certificate: Path | None = None, key: Path | None = None, *, keeps_versions: bool = False
) -> Iterator[S3Server]:
    """Run an empty server that keeps connections open. With a certificate and its key it uses TLS."""
    tls = (f"--cert={certificate}", f"--key={key}") if certificate else ()
    with s3.running("--keep-alive", *tls, keeps_versions=keeps_versions) as server:
        url = server.url.replace("http:", "https:") if tls else server.url
        yield S3Server(url, S3Credentials(server.access_key, server.secret_key))
