"""Checksums of uploads: SHA-256 where the server takes it, else MD5, else only the one of the signature.

AWS rejects every upload without a checksum of its own header into a container with a default Object Lock. Other servers
reject headers that they do not know. The first uploads find out which of them a server takes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from base64 import b64encode
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, TypeVar

from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.exceptions import ClientError
from typing_extensions import override

from cinderblock.errors import CinderblockError
from cinderblock.reasons import Reason
from cinderblock.store.s3.streaming import ThrottledBody

log = logging.getLogger(__name__)

T = TypeVar("T")


class Checksum(Enum):
    """The checksum that an upload carries in addition to the signed SHA-256, in the order of trials."""

    SHA256 = "x-amz-checksum-sha256"
    MD5 = "Content-MD5"
    NONE = "no checksum"


_MAY_BE_THE_CHECKSUM: Final = frozenset({Reason.STORE_REFUSES, Reason.ACCESS_DENIED, Reason.INVALID_INPUT})
"""Reasons of a rejected upload that may concern its checksum. The same upload without it shows whether they do."""


_DOUBTFUL_FAILURES: Final = 2
"""Failed uploads after which the next one also tries without the checksum, although the failures look temporary. Some
servers check a header wrongly, and report damage or an internal error each time."""
_DAMAGED: Final = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
"""Codes for a body that does not match its checksum."""


def body_fields(checksum: Checksum, body: ThrottledBody) -> dict[str, Any]:
    """Return the parameters of PutObject and UploadPart.

    SHA-256 costs nothing more: the signature needs it as well, and `BodySigner` takes it over. Measured for a pack of
    24 MiB on one core: 21 ms of hashing, and 43 ms if both hashed. MD5 takes another 49 ms.
    """
    if checksum is Checksum.SHA256:
        return {"ChecksumSHA256": b64encode(body.sha256).decode("ascii")}
    if checksum is Checksum.MD5:
        return {"ContentMD5": b64encode(hashlib.md5(body.content, usedforsecurity=False).digest()).decode("ascii")}
    return {}


class UploadChecksums:
    """Finds the checksum that the server of one store takes. Several threads may use it."""

    def __init__(self) -> None:
        self._checksum = Checksum.SHA256
        self._is_proven = False
        self._doubtful = 0
        self._lock = threading.Lock()

    def upload(self, upload: Callable[[Checksum], T]) -> T:
        """Return what the upload returns with the first checksum that the server takes.

        After the first success the checksum stays the same. Raises what the upload raises with the first checksum.
        The store repeats an upload that failed for a while, so this finds the checksum in one of the next attempts.
        """
        if self._is_proven:
            return upload(self._checksum)
        rejection: CinderblockError | None = None
        try:
            for checksum in Checksum:
                try:
                    result = upload(checksum)
                except CinderblockError as error:
                    if not self._may_be_the_checksum(error):
                        raise
                    rejection = rejection or error
                    continue
                self._prove(checksum, rejection)
                return result
            assert rejection is not None
            raise rejection
        finally:
            # Its traceback has this frame: a cycle that would keep the body until the garbage collector runs.
            del rejection

    def _may_be_the_checksum(self, error: CinderblockError) -> bool:
        """Return whether to try the same upload with another checksum."""
        code, status = answer_of(error)
        # A firewall answers a header that it does not know by a page. 404 comes from a server that restarts.
        is_page = error.reason is Reason.NOT_S3 and 400 <= status < 500 and status != HTTPStatus.NOT_FOUND
        if is_page or error.reason in _MAY_BE_THE_CHECKSUM:
            return True
        # botocore makes 500 of a page with status 200, which has no code.
        is_internal = status == HTTPStatus.INTERNAL_SERVER_ERROR and code not in ("", str(status))
        if code not in _DAMAGED and not is_internal:
            return False
        with self._lock:
            self._doubtful += 1
            return self._doubtful > _DOUBTFUL_FAILURES

    def _prove(self, checksum: Checksum, rejection: CinderblockError | None) -> None:
        self._checksum, self._is_proven = checksum, True
        if rejection is not None:
            log.info("The store takes uploads with %s: %s", checksum.value, rejection.message)


def answer_of(error: CinderblockError) -> tuple[str, int]:
    """Return the code and the status of the answer that caused an error; 0: none did."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return "", 0
    return str(cause.response["Error"].get("Code", "")), cause.response["ResponseMetadata"]["HTTPStatusCode"]


class BodySigner(S3SigV4Auth):
    """Signs the SHA-256 that an upload has computed already, instead of reading its body once more."""

    @override
    def payload(self, request: Any) -> Any:
        body = request.data
        return body.sha256.hex() if isinstance(body, ThrottledBody) else super().payload(request)


def use_signer() -> None:
    """Let the clients of this process sign uploads with `BodySigner`. botocore looks signers up by name."""
    AUTH_TYPE_MAPS["s3v4"] = BodySigner
