"""Large objects: sent in parts, which the server puts together at the end (S3: multipart upload)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

log = logging.getLogger(__name__)

PARTS_ABOVE: Final = 96 * 1024**2
"""Bytes above which a body is sent in parts. A pack, 64 MiB and its footer, goes in one request; proxies and some
servers refuse requests of more than 100 MB."""
PART_SIZE: Final = 64 * 1024**2
"""Bytes of a part: 80 of them make the largest body that is sent; S3 allows 10 000."""


def multipart_put(
    client: S3Client, target: Mapping[str, Any], body: memoryview, sending: Callable[[memoryview], Any]
) -> None:
    """Upload a large body. Raises what botocore raises; whatever happens, no part is left behind.

    ``target`` has the parameters of CreateMultipartUpload: Bucket, Key, and how the object is to lie there.

    Only the death of the process leaves parts, which no listing shows: the next upload of the same key takes them away,
    or a lifecycle rule of the container (AbortIncompleteMultipartUpload).
    """
    container, key = target["Bucket"], target["Key"]
    _abort_earlier(client, container, key)
    upload = client.create_multipart_upload(**target)["UploadId"]
    try:
        parts: list[CompletedPartTypeDef] = []
        for number, start in enumerate(range(0, body.nbytes, PART_SIZE), start=1):
            part = sending(body[start : start + PART_SIZE])
            answer = client.upload_part(Bucket=container, Key=key, UploadId=upload, PartNumber=number, Body=part)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        client.complete_multipart_upload(Bucket=container, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    except BaseException:
        _abort(client, container, key, upload)
        raise


def _abort_earlier(client: S3Client, container: str, key: str) -> None:
    """Take away what a process that died has left of the same object, where the server can tell and we may ask."""
    try:
        earlier = client.list_multipart_uploads(Bucket=container, Prefix=key).get("Uploads", [])
    except ClientError as error:
        log.info("Earlier uploads of %s cannot be listed: %s", key, error.response["Error"].get("Code"))
        return
    for upload in earlier:
        if upload["Key"] == key:
            _abort(client, container, key, upload["UploadId"])


def _abort(client: S3Client, container: str, key: str, upload: str) -> None:
    try:
        client.abort_multipart_upload(Bucket=container, Key=key, UploadId=upload)
    except (ClientError, BotoCoreError) as error:
        log.warning("Parts of %s in container %s may be left behind: %s", key, container, type(error).__name__)
