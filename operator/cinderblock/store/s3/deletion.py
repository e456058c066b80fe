"""Delete objects in batches, or one by one on servers that cannot or may not delete batches.

Google Cloud Storage, Huawei OBS and ONTAP have had no DeleteObjects, and a policy or a firewall for web applications
may forbid just that request. The broker never signs it, because a signature covers only the digest of the list of keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from cinderblock.errors import CinderblockError, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.deadline import with_current
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer, not_s3

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

CONCURRENT_DELETIONS: Final = 8
"""Single deletions at once: 1000 of them take 2.5 s at 20 ms each."""
_NOT_THE_BATCH: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Statuses below 500 that say nothing about batches. All others may concern only them: a single deletion shows it."""


class Deleter:
    """Deletes objects of one container, and remembers how the server lets it. Several threads may use it.

    Args:
        client: sends the requests.
        container: bucket.
        address: of the store, for messages.
        call: limits the time of one request, and translates its errors.
        has_batches: whether to try batches.
    """

    def __init__(
        self,
        client: S3Client,
        container: str,
        address: StoreAddress,
        call: Callable[[], AbstractContextManager[None]],
        *,
        has_batches: bool = True,
    ) -> None:
        self._client = client
        self._container = container
        self._address = address
        self._call = call
        self._has_batches = has_batches

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most DELETE_BATCH_KEYS keys. An absent key is not an error. Raises CinderblockError."""
        errors = self._delete_together(keys) if self._has_batches else self._delete_singly(keys)
        if errors:
            raise _worst(errors)

    def _delete_together(self, keys: Sequence[str]) -> list[CinderblockError]:
        """Delete keys in a batch, and those one by one that the server neither confirms nor refuses.

        Return the errors of single keys. Raises the error of the batch.
        """
        try:
            answered, errors = self._delete_batch(keys)
        except CinderblockError as error:
            if not _may_be_the_batch(error):
                raise
            return self._without_batch(keys, error)
        unconfirmed = [key for key in keys if key not in answered]
        if len(unconfirmed) == len(keys) and not errors:
            return self._without_batch(keys, not_s3(self._address, "no list of deleted keys"))
        return errors + self._delete_singly(unconfirmed)

    def _delete_singly(self, keys: Sequence[str]) -> list[CinderblockError]:
        if not keys:
            return []
        with ThreadPoolExecutor(CONCURRENT_DELETIONS, "delete") as pool:
            return list(filter(None, pool.map(with_current(self._try_one), keys)))

    def _without_batch(self, keys: Sequence[str], rejection: CinderblockError) -> list[CinderblockError]:
        """Delete the first key alone, and then the others if that works. Return the errors of single keys.

        Otherwise the cause is not the batch. Then this raises the rejection of the batch, or the error of the single
        deletion if it says more: that there is a lock, that another attempt may help, or what S3 itself says.
        """
        try:
            self._delete_one(keys[0])
        except CinderblockError as error:
            says_more = error.reason is Reason.LOCKED or not error.permanent or not rejection.permanent
            raise (error if says_more else rejection) from rejection
        self._has_batches = False
        log.info("The store does not delete batches, so objects are deleted one by one: %s", rejection.message)
        return self._delete_singly(keys[1:])

    def _delete_batch(self, keys: Sequence[str]) -> tuple[set[str], list[CinderblockError]]:
        """Return the keys that the server confirms or refuses, and the errors. Raises if it rejects the request."""
        with self._call():
            # With Quiet, nothing would distinguish a success from a web page.
            response = self._client.delete_objects(
                Bucket=self._container, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False}
            )
            refused = response.get("Errors", [])
            answered = {item.get("Key", "") for item in [*response.get("Deleted", []), *refused]}
            failed = [item for item in refused if item.get("Code") != "NoSuchKey"]
        return answered, [from_answer({"Error": item}, self._address, "DeleteObjects") for item in failed]

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


def _may_be_the_batch(error: CinderblockError) -> bool:
    """Return whether the server, or a page in its place, rejects the request itself.

    A code of S3 that asks for another attempt, with any status, says nothing about batches.
    """
    cause = error.__cause__
    status = cause.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(cause, ClientError) else 0
    is_rejected = (400 <= status < 500 and status not in _NOT_THE_BATCH) or status == HTTPStatus.NOT_IMPLEMENTED
    is_page = isinstance(error, StoreUnreachable) and error.is_of_another
    return is_rejected and error.reason is not Reason.LOCKED and (error.permanent or is_page)


def _worst(errors: Sequence[CinderblockError]) -> CinderblockError:
    """Return the error that says most: a lock, which ends, then any other permanent one, then a transient one."""
    return min(errors, key=lambda error: (error.reason is not Reason.LOCKED, not error.permanent))
