"""Send the checksum that AWS demands of every upload to a container with a default retention.

AWS demands it since an object that arrives damaged could not be replaced before its retention ends. It is not sent
before a server demands it: MD5 takes 85 ms for a pack of 64 MiB, and the SHA-256 of the signature already shows damage.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from types_boto3_s3.client import S3Client

_UPLOADS: Final = ("PutObject", "UploadPart")
_SLICE_BYTES: Final = 1024**2


class UploadChecksums:
    """Repeats an upload with Content-MD5 if the server demands a checksum, and then adds it to all uploads.

    One is made for each client. It may be used by several threads.
    """

    def __init__(self) -> None:
        self._is_demanded = False

    def register(self, client: S3Client) -> None:
        """Begin to watch the uploads of a client."""
        for operation in _UPLOADS:
            client.meta.events.register(f"before-sign.s3.{operation}", self._add)
            client.meta.events.register(f"needs-retry.s3.{operation}", self._retry)

    def _add(self, request: AWSRequest, **_: Any) -> None:
        if self._is_demanded:
            request.headers["Content-MD5"] = b64encode(_md5(request.body)).decode("ascii")

    def _retry(self, response: Any, attempts: int, **_: Any) -> Any:
        """Return the seconds until the upload is repeated; None if it is not (botocore's event needs-retry)."""
        error = response[1].get("Error", {}) if response is not None else {}
        if attempts > 1 or error.get("Code") != "InvalidRequest" or "Content-MD5" not in error.get("Message", ""):
            return None
        self._is_demanded = True
        return 0.0


def _md5(body: Any) -> bytes:
    """Return the digest of a body, which is bytes or a file at its beginning."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes | bytearray):
        digest.update(body)
        return digest.digest()
    while part := body.read(_SLICE_BYTES):
        digest.update(part)
    body.seek(0)
    return digest.digest()
