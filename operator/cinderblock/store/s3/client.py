"""Make the boto3 clients.

Importing boto3 takes some 100 ms with compiled bytecode (botocore alone 90 ms). The first client of a process takes
70 ms to read the description of S3; each further one takes 3 ms, because all share one session.
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
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from cinderblock import __version__
from cinderblock.api.mover import StoreLocation
from cinderblock.errors import InvalidInput
from cinderblock.store.credentials import Credentials, RemoteSigner, S3Credentials
from cinderblock.store.endpoint_policy import EndpointPolicy
from cinderblock.store.s3.answers import parse_date
from cinderblock.store.s3.checksum import use_signer
from cinderblock.store.s3.connection import bound
from cinderblock.store.s3.signers.remote import sign_remotely

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from types_boto3_s3.client import S3Client

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect. urllib3 also limits the sending of each slice of a body to this time."""
READ_TIMEOUT: Final = 60.0
"""Seconds without a byte of a response. The end of a large PUT, or 1000 deletions, may take a server long."""
CONNECTIONS: Final = 32
"""Connections that are kept for reuse: more than the 16 threads that a mover has at most."""

_lock = threading.Lock()
"""Making clients from one session is not thread safe (boto3 guide, "Multithreading or multiprocessing")."""


def make_client(
    location: StoreLocation, credentials: Credentials | None, ca_file: str | None, read_timeout: float | None = None
) -> S3Client:
    """Return a client for the endpoint of a store. This sends no request.

    Args:
        location: where the store is.
        credentials: sign requests, or ask a signer to; None: boto3 finds them as every AWS tool does.
        ca_file: PEM certificates that replace those of the system.
        read_timeout: seconds without a byte of a response; None: READ_TIMEOUT.

    Raises InvalidInput if the endpoint, the region, the CA file, or the AWS configuration of this machine is malformed.
    """
    check_endpoint(location.endpoint_url)
    if ca_file is not None:
        check_certificates(ca_file)
    use_signer()
    own = credentials if isinstance(credentials, S3Credentials) else None
    signer = credentials if isinstance(credentials, RemoteSigner) else None
    timeout = READ_TIMEOUT if read_timeout is None else read_timeout
    try:
        with _lock:
            client = _session().client(
                "s3",
                region_name=location.region,
                endpoint_url=location.endpoint_url,
                aws_access_key_id=own.access_key if own else None,
                aws_secret_access_key=own.secret_key if own else None,
                aws_session_token=own.session_token if own else None,
                verify=ca_file,
                # Without a signature of its own, botocore looks for no credentials, which a node may have.
                config=_config(location, timeout, UNSIGNED if signer else "s3v4"),
            )
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"Cannot use the S3 store at {location.endpoint_url or 'AWS'}: {error}") from error
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_content_md5)
    client.meta.events.register("before-sign.s3.PutObjectRetention", _add_content_md5)
    client.meta.events.register("before-call.s3", _follow_no_redirect)
    bound(client)
    if signer is not None:
        sign_remotely(client, signer)
    if location.allowed_endpoints:
        client.meta.events.register("before-send.s3", EndpointPolicy(location.allowed_endpoints).check_request)
    return client


def make_service_client(
    service: str, region: str, endpoint_url: str | None, ca_file: str | None, config: Config
) -> Any:
    """Return a client of another service than S3, whose time and answers are bounded. This sends no request.

    Raises BotoCoreError and ValueError for a malformed region or endpoint.
    """
    with _lock:
        make: Any = _session().client
        client = make(service, region_name=region, endpoint_url=endpoint_url, verify=ca_file, config=config)
    bound(client, service)
    return client


def ambient_region() -> str | None:
    """Return the region that the environment or the AWS profile of this machine names.

    Raises InvalidInput if there is no such profile, or the configuration is malformed.
    """
    try:
        region = os.environ.get("AWS_REGION") or _session().region_name
    except BotoCoreError as error:
        raise InvalidInput(f"Cannot use the AWS configuration of this machine: {error}") from error
    return region


@cache
def _session() -> boto3.session.Session:
    session = boto3.session.Session()
    # boto3 has no public way to choose how dates are read. test_hostile_servers fails if this one goes.
    parsers = session._session.get_component("response_parser_factory")  # noqa: SLF001
    parsers.set_parser_defaults(timestamp_parser=parse_date)
    return session


def _config(location: StoreLocation, read_timeout: float, signature: Any) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version=signature,
        # The checksums that botocore adds are sent in trailers, which many servers other than AWS reject. Every server
        # checks the signed SHA-256 of the body, and `checksum` adds its own header. Measured for a pack of 64 MiB:
        # 48 ms with SHA-NI (1.3 GB/s, without the GIL); CRC-32 takes 28 ms, MD5 85 ms, and a PUT without any checksum
        # 20 ms.
        request_checksum_calculation="when_required",
        # Readers verify each chunk against the manifest.
        response_checksum_validation="when_required",
        s3={"addressing_style": location.addressing.value, "payload_signing_enabled": True},
        user_agent_extra=f"cinderblock/{__version__}",
    )


def check_endpoint(url: str | None) -> None:
    """Check the URL of an endpoint. Raises InvalidInput if it is malformed."""
    if url is None:
        return
    parts = urlsplit(url)
    # Messages show the URL, so it must not hold a password.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise InvalidInput(
            "Cannot use the endpoint URL: it must be http(s)://host[:port], without user, password, and query."
        )


def check_certificates(path: str) -> None:
    """Check a file with CA certificates. Raises InvalidInput if it has none."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # also ssl.SSLError
        raise InvalidInput(f"Cannot use CA file {path}: {error}. It must hold PEM certificates.") from error


def _add_content_md5(request: AWSRequest, **_: Any) -> None:
    """Add the header that older servers require (S3 API: DeleteObjects and PutObjectRetention, Content-MD5)."""
    body = cast("bytes", request.body)
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = b64encode(digest).decode("ascii")


def _follow_no_redirect(params: dict[str, Any], **_: Any) -> None:
    """Make botocore believe that it has already followed its one redirect.

    botocore 1.44 asks for the region of the container by a request that is redirected in turn, and loops forever if a
    web server redirects. Cinderblock reports a wrong region as an error that names the right one.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
