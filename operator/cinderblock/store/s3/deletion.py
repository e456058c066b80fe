"""Delete objects: many with one request, or one after the other on servers that do not know or allow that request.

Google Cloud Storage, Huawei OBS and NetApp ONTAP have no DeleteObjects; some policies allow only DeleteObject.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from cinderblock.errors import AccessDenied
from cinderblock.store.deadline import with_current
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer, not_s3

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import DeleteObjectsOutputTypeDef

CONCURRENT_DELETIONS: Final = 8
"""Single deletions at once. Each is a small request, so latency is what counts."""
_UNKNOWN_CODES: Final = frozenset({"MethodNotAllowed", "NotImplemented", "UnsupportedOperation"})
_UNKNOWN_STATUSES: Final = frozenset({405, 501})


class Deletion:
    """Deletes the objects of one container.

    Args:
        client: sends the requests.
        address: the container as messages show it.
        call: limits the time of one request, and translates its errors.
    """

    def __init__(
        self, client: S3Client, address: StoreAddress, call: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._client = client
        self._address = address
        self._call = call
        self._is_single = False

    def delete(self, keys: Sequence[str]) -> None:
        """Delete at most DELETE_BATCH_KEYS objects; see ObjectStore."""
        if not self._is_single and (response := self._delete_together(keys)) is not None:
            self._raise_failures(response)
            return
        # Only a single deletion shows whether the request or the deletion is forbidden.
        self._delete_one(keys[0])
        self._is_single = True
        with ThreadPoolExecutor(CONCURRENT_DELETIONS, "delete") as pool:
            for _ in pool.map(with_current(self._delete_one), keys[1:]):
                pass

    def _delete_together(self, keys: Sequence[str]) -> DeleteObjectsOutputTypeDef | None:
        """Send one request. Return None if the server does not know it, or may not allow it."""
        with self._call():
            try:
                response = self._client.delete_objects(
                    Bucket=self._address.container,
                    Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False},
                )
            except ClientError as error:
                if self._may_be_single(error):
                    return None
                raise
            # With Quiet, nothing would distinguish a success from a web page.
            if not response.get("Errors") and not response.get("Deleted"):
                raise not_s3(self._address, "no list of deleted keys")
        return response

    def _may_be_single(self, error: ClientError) -> bool:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _UNKNOWN_CODES or status in _UNKNOWN_STATUSES:
            return True
        # The subclasses name another cause, such as expired credentials.
        return (
            code == "AccessDenied" and type(from_answer(error.response, self._address, "DeleteObjects")) is AccessDenied
        )

    def _raise_failures(self, response: DeleteObjectsOutputTypeDef) -> None:
        errors = [item for item in response.get("Errors", []) if item.get("Code") != "NoSuchKey"]
        failures = [from_answer({"Error": item}, self._address, "DeleteObjects") for item in errors]
        if failures:
            # A permanent error says more than a transient one.
            raise min(failures, key=lambda failure: not failure.permanent)

    def _delete_one(self, key: str) -> None:
        with self._call():
            try:
                response = self._client.delete_object(Bucket=self._address.container, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchKey":
                    raise
                return
            if response["ResponseMetadata"]["HTTPHeaders"].get("content-type", "").startswith("text/html"):
                raise not_s3(self._address, "a web page for a deletion")
