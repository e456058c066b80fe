"""Make the boto3 clients of every S3 access.

boto3 takes some 100 ms to import (with bytecode at hand; botocore alone 90 ms) and 70 ms for the first client of a
process, which reads the description of S3. Each further client takes 3 ms, because all share one session.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
from base64 import b64encode
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from cinderblock import __version__
from cinderblock.api.mover import StoreLocation
from cinderblock.errors import InvalidInput
from cinderblock.store.credentials import S3Credentials

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from types_boto3_s3.client import S3Client

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for a connection to be made. urllib3 also gives each slice of a body this long to be sent."""
READ_TIMEOUT: Final = 60.0
"""Seconds without a byte of an answer. A server may take long over the end of a large PUT or 1000 deletions."""
CONNECTIONS: Final = 32
"""Connections kept for use again: more than the 16 threads that a mover has at most."""

_lock = threading.Lock()
"""Making clients from one session is not thread safe (boto3 guide, "Multithreading or multiprocessing")."""


def make_client(
    location: StoreLocation, credentials: S3Credentials | None, ca_file: str | None, answer: float | None = None
) -> S3Client:
    """A client for the store's endpoint, which may take ``answer`` seconds to answer. Nothing is sent yet.

    Credentials None: found as every AWS tool finds them. Raises InvalidInput if the endpoint, the region, the CA file
    or the AWS configuration of this machine is malformed.
    """
    _check_endpoint(location.endpoint_url)
    if ca_file is not None:
        _check_certificates(ca_file)
    try:
        with _lock:
            client = _session().client(
                "s3",
                region_name=location.region,
                endpoint_url=location.endpoint_url,
                aws_access_key_id=credentials.access_key if credentials else None,
                aws_secret_access_key=credentials.secret_key if credentials else None,
                aws_session_token=credentials.session_token if credentials else None,
                verify=ca_file,
                config=_config(location, READ_TIMEOUT if answer is None else answer),
            )
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"The S3 store at {location.endpoint_url or 'AWS'} cannot be used: {error}") from error
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_content_md5)
    client.meta.events.register("before-call.s3", _follow_no_redirect)
    return client


def ambient_region() -> str | None:
    """The region that the environment or the AWS profile of this machine names.

    Raises InvalidInput if there is no such profile, or the configuration is malformed.
    """
    try:
        region = os.environ.get("AWS_REGION") or _session().region_name
    except BotoCoreError as error:
        raise InvalidInput(f"The AWS configuration of this machine cannot be used: {error}") from error
    return region


@cache
def _session() -> boto3.session.Session:
    return boto3.session.Session()


def _config(location: StoreLocation, answer: float) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=answer,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version="s3v4",
        # Newer checksums come in trailers, which many servers other than AWS refuse. The signed SHA-256 of the body
        # is checked by every server. Measured: 48 ms for a pack of 64 MiB with SHA-NI (1.3 GB/s, without the GIL);
        # CRC-32 takes 28 ms, MD5 85 ms, and a PUT without any checksum 20 ms.
        request_checksum_calculation="when_required",
        # What is read is verified chunk by chunk against the manifest.
        response_checksum_validation="when_required",
        s3={"addressing_style": location.addressing.value, "payload_signing_enabled": True},
        user_agent_extra=f"cinderblock/{__version__}",
    )


def _check_endpoint(url: str | None) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    # A user and password in the URL would show up in messages.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise InvalidInput("The endpoint URL must be http(s)://host[:port], without user, password and query")


def _check_certificates(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # also ssl.SSLError
        raise InvalidInput(f"CA file {path} cannot be used: {error}; it must hold PEM certificates") from error


def _add_content_md5(request: AWSRequest, **_: Any) -> None:
    """Give DeleteObjects the header that older servers insist on (S3 API: DeleteObjects, Content-MD5)."""
    body = cast("bytes", request.body)
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = b64encode(digest).decode("ascii")


def _follow_no_redirect(params: dict[str, Any], **_: Any) -> None:
    """Tell botocore that it has followed its one redirect already.

    It would look for the container's region by a request that is redirected in turn, without end where a web server
    and not S3 redirects (botocore 1.44). A wrong region is an error here, with the right one in its message.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
