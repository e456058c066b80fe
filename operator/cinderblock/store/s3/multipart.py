"""Upload large objects in parts, which the server joins at the end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from cinderblock.errors import AccessDenied, CinderblockError
from cinderblock.store.s3.checksum import Checksum, body_fields
from cinderblock.store.s3.streaming import ThrottledBody

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

MULTIPART_THRESHOLD_BYTES: Final = 96 * 1024**2
"""Size above which a body is sent in parts. A pack, 64 MiB and its footer, needs one request. Proxies and some servers
reject requests of more than 100 MB."""
PART_BYTES: Final = 64 * 1024**2
"""Bytes of a part. The largest body has 80 parts; S3 allows 10,000."""


def multipart_put(
    client: S3Client,
    target: Mapping[str, Any],
    body: memoryview,
    make_body: Callable[[memoryview], ThrottledBody],
    *,
    checksum: Checksum,
    sending: Callable[[int], AbstractContextManager[None]],
) -> None:
    """Upload a large body, and leave no part behind if that fails.

    Only the death of the process leaves parts, which no listing shows. The next upload of the same key removes them, or
    a lifecycle rule of the container (AbortIncompleteMultipartUpload).

    Args:
        client: sends the requests.
        target: parameters of CreateMultipartUpload: Bucket, Key, storage class, encryption and lock.
        body: the bytes to upload.
        make_body: turns the bytes of a part into a request body.
        checksum: of every part.
        sending: limits the time of one request that sends so many bytes, and translates its errors.

    Raises what ``sending`` raises.
    """
    container, key = target["Bucket"], target["Key"]
    with sending(0):
        _abort_earlier(client, container, key)
    with sending(0):
        algorithm: Any = {"ChecksumAlgorithm": "SHA256"} if checksum is Checksum.SHA256 else {}
        upload = client.create_multipart_upload(**target, **algorithm)["UploadId"]
    try:
        parts: list[Any] = []
        for number, start in enumerate(range(0, body.nbytes, PART_BYTES), start=1):
            part = body[start : start + PART_BYTES]
            with sending(part.nbytes):
                body_of_part: Any = make_body(part)
                fields = body_fields(checksum, body_of_part)
                response = client.upload_part(
                    Bucket=container, Key=key, UploadId=upload, PartNumber=number, Body=body_of_part, **fields
                )
                fields.pop("ContentMD5", None)
                parts.append({"PartNumber": number, "ETag": response["ETag"], **fields})
        # The server may have to copy all parts before it answers.
        with sending(body.nbytes):
            done = client.complete_multipart_upload(
                Bucket=container, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
            _check_joined(done)
    except BaseException:
        with contextlib.suppress(CinderblockError), sending(0):
            _abort(client, container, key, upload)
        raise


def _check_joined(response: Mapping[str, Any]) -> None:
    """Check that an answer names an object. Raises KeyError for an empty one, or for a page that parses as XML."""
    if "Key" not in response and "ETag" not in response:
        raise KeyError("ETag")


def _abort_earlier(client: S3Client, container: str, key: str) -> None:
    """Abort uploads of the same object that a dead process has left, if the server can list them."""
    try:
        earlier = client.list_multipart_uploads(Bucket=container, Prefix=key).get("Uploads", [])
    except ClientError as error:
        log.info("Could not list earlier uploads of %s: %s", key, error.response["Error"].get("Code"))
        return
    except AccessDenied as error:
        log.info("May not list earlier uploads of %s: %s", key, error.message)
        return
    for upload in earlier:
        if upload["Key"] == key:
            _abort(client, container, key, upload["UploadId"])


def _abort(client: S3Client, container: str, key: str, upload: str) -> None:
    try:
        client.abort_multipart_upload(Bucket=container, Key=key, UploadId=upload)
    except (ClientError, BotoCoreError, AccessDenied) as error:
        log.warning(
            "Could not abort an upload, parts of %s in container %s may remain: %s",
            key,
            container,
            type(error).__name__,
        )
