"""Delete objects in batches, or one by one on servers that cannot or may not delete batches.

Google Cloud Storage, Huawei OBS and ONTAP have had no DeleteObjects, and a policy may forbid just that request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from cinderblock.errors import CinderblockError
from cinderblock.reasons import Reason
from cinderblock.store.deadline import with_current
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer, not_s3

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

CONCURRENT_DELETIONS: Final = 8
"""Single deletions at once: 1000 of them take 2.5 s at 20 ms each."""
_MAY_BE_THE_BATCH: Final = frozenset(
    {Reason.ACCESS_DENIED, Reason.STORE_REFUSES, Reason.INVALID_INPUT, Reason.TOO_LARGE}
)
"""Reasons of a rejected batch that may concern only batches. A single deletion shows whether they do."""


class Deleter:
    """Deletes objects of one container, and remembers how the server lets it. Several threads may use it.

    Args:
        client: sends the requests.
        container: bucket.
        address: of the store, for messages.
        call: limits the time of one request, and translates its errors.
    """

    def __init__(
        self,
        client: S3Client,
        container: str,
        address: StoreAddress,
        call: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._client = client
        self._container = container
        self._address = address
        self._call = call
        self._has_batches = True

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most DELETE_BATCH_KEYS keys. An absent key is not an error. Raises CinderblockError."""
        if self._has_batches:
            keys = self._delete_together(keys)
        if keys:
            self._delete_singly(keys)

    def _delete_together(self, keys: Sequence[str]) -> Sequence[str]:
        """Delete keys in a batch. Return those that must be deleted one by one."""
        try:
            self._delete_batch(keys)
        except CinderblockError as error:
            if error.reason not in _MAY_BE_THE_BATCH and not _is_not_implemented(error):
                raise
            return self._without_batch(keys, error)
        return ()

    def _delete_singly(self, keys: Sequence[str]) -> None:
        with ThreadPoolExecutor(CONCURRENT_DELETIONS, "delete") as pool:
            errors = list(filter(None, pool.map(with_current(self._try_one), keys)))
        if errors:
            raise _worst(errors)

    def _without_batch(self, keys: Sequence[str], rejection: CinderblockError) -> Sequence[str]:
        """Delete the first key alone. Return the others if that works; raise the rejection of the batch if not."""
        try:
            self._delete_one(keys[0])
        except CinderblockError as error:
            # Both requests are rejected, so the cause is not the batch.
            raise (error if error.reason is Reason.LOCKED else rejection) from rejection
        self._has_batches = False
        log.info("The store does not delete batches, so objects are deleted one by one: %s", rejection.message)
        return keys[1:]

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._call():
            response = self._client.delete_objects(
                Bucket=self._container, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False}
            )
            errors = response.get("Errors", [])
            # With Quiet, nothing would distinguish a success from a web page.
            if not errors and not response.get("Deleted"):
                raise not_s3(self._address, "no list of deleted keys")
        failed = [item for item in errors if item.get("Code") != "NoSuchKey"]
        if failed:
            raise _worst([from_answer({"Error": item}, self._address, "DeleteObjects") for item in failed])

    def _try_one(self, key: str) -> CinderblockError | None:
        try:
            self._delete_one(key)
        except CinderblockError as error:
            return error
        return None

    def _delete_one(self, key: str) -> None:
        with self._call():
            try:
                response: Any = self._client.delete_object(Bucket=self._container, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    return
                raise
            metadata = response["ResponseMetadata"]
            # A web page is an answer to any request, but not with 204.
            if metadata["HTTPStatusCode"] != HTTPStatus.NO_CONTENT and not metadata.get("RequestId"):
                raise not_s3(self._address, "something else than an empty answer to a deletion")


def _is_not_implemented(error: CinderblockError) -> bool:
    """Return whether the answer was 405 or 501, which a proxy may send as a page."""
    cause = error.__cause__
    status = cause.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(cause, ClientError) else 0
    return status in {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


def _worst(errors: Sequence[CinderblockError]) -> CinderblockError:
    """Return the error that says most: a permanent one rather than a transient one."""
    return min(errors, key=lambda error: not error.permanent)
