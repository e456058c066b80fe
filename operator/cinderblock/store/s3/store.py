"""The store on S3. It does not retry: it raises StoreUnreachable for what another attempt may solve."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import ContainerNotFound, ObjectNotFound, StoreUnreachable
from cinderblock.store.bandwidth import throttle_for
from cinderblock.store.base import DELETE_BATCH_KEYS, Body, ObjectInfo, check_body, check_key, slice_body
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.retention import Retention
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.client import make_client
from cinderblock.store.s3.errors import from_answer, not_s3, protocol_violation, translate
from cinderblock.store.s3.multipart import MULTIPART_THRESHOLD_BYTES, multipart_put
from cinderblock.store.s3.put_options import put_options
from cinderblock.store.s3.retention import S3Retention
from cinderblock.store.s3.streaming import ThrottledBody, announce_large_only, receive, start_throttling

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class S3Store:
    """One container of an S3 server."""

    def __init__(
        self,
        location: StoreLocation,
        credentials: S3Credentials | None,
        ca_file: str | None = None,
        read_timeout: float | None = None,
    ) -> None:
        """Make a client. This sends no request.

        Args:
            location: where the store is, and its limits.
            credentials: sign requests; None: boto3 finds them as every AWS tool does.
            ca_file: PEM certificates that replace those of the system.
            read_timeout: seconds without a byte of a response; None: READ_TIMEOUT.

        Raises InvalidInput if the location or the CA file is malformed.
        """
        self._location = location
        self._container = location.container
        self._client = make_client(location, credentials, ca_file, read_timeout)
        self._client.meta.events.register("before-call.s3", announce_large_only)
        self._client.meta.events.register("before-send.s3", start_throttling)
        self._address = StoreAddress(self._client.meta.endpoint_url, location.container, location.region, credentials)
        self._put_options = put_options(location)
        self._upload = throttle_for(location.upload_bytes_per_second)
        self._download = throttle_for(location.download_bytes_per_second)

    def check(self) -> None:
        """See ObjectStore.

        This lists the container, since listing must be allowed. A response to HEAD has no room for the code of an
        error.
        """
        try:
            self._list_one()
        except ContainerNotFound:
            if not self._location.create_container:
                raise
            self._create()
            self._list_one()

    def put(self, key: str, body: Body) -> None:
        """See ObjectStore. Large bodies are sent in parts."""
        view = check_body(check_key(key), body)
        target: Any = {"Bucket": self._container, "Key": key, **self._put_options}
        with self._translate_errors():
            if view.nbytes > MULTIPART_THRESHOLD_BYTES:
                multipart_put(self._client, target, view, self._throttled)
                return
            response = self._client.put_object(Body=self._throttled(view), **target)
            if "ETag" not in response:
                raise not_s3(self._address, "no ETag for an upload")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        range_header = _range(start, length)
        extra: Any = {} if range_header is None else {"Range": range_header}
        with self._translate_errors():
            try:
                response = self._client.get_object(Bucket=self._container, Key=check_key(key), **extra)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                    return b""
                if error.response["Error"]["Code"] == "NoSuchKey":
                    raise ObjectNotFound(f"Cannot read {key} in {self._address}: the object does not exist.") from error
                raise
            content = receive(response["Body"], self._download)
            if "ETag" not in response:
                raise not_s3(self._address, "an object without ETag")
        return content if range_header is None else self._ranged(key, response, content, start, length)

    def _ranged(
        self, key: str, response: GetObjectOutputTypeDef, content: bytes, start: int, length: int | None
    ) -> bytes:
        """Return the requested part of what arrived: servers may ignore a range (RFC 9110, section 14.2)."""
        content_range = _CONTENT_RANGE.fullmatch(response.get("ContentRange", ""))
        if content_range is None:
            return slice_body(content, start, length)
        first, last, size = map(int, content_range.groups())
        requested = max(size + start, 0) if start < 0 else start
        end = size if length is None or start < 0 else min(start + max(length, 1), size)
        if (first, last + 1, len(content)) != (requested, end, end - requested):
            raise StoreUnreachable(
                f"Cannot read {key} in {self._address}: the server sent another range than the requested one."
            )
        return slice_body(content, 0, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        previous = ""
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                key = item["Key"]
                if key <= previous:
                    raise protocol_violation(self._address, f"a listing out of order ({previous} before {key})")
                yield ObjectInfo(key, item["Size"])
                previous = key

    def _pages(self, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        page = self._page(prefix)
        yield page
        while page["IsTruncated"]:
            token = page.get("NextContinuationToken", "")
            page = self._page(prefix, ContinuationToken=token)
            if not token or page.get("NextContinuationToken") == token:
                raise protocol_violation(self._address, "a listing without a next page")
            yield page

    def _page(self, prefix: str, **extra: Any) -> ListObjectsV2OutputTypeDef:
        with self._translate_errors():
            page = self._client.list_objects_v2(Bucket=self._container, Prefix=prefix, **extra)
            # Any well-formed XML, such as an XHTML page, would look like an empty listing.
            if "IsTruncated" not in page:
                raise not_s3(self._address, "something else than a listing")
        return page

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, DELETE_BATCH_KEYS)):
            self._delete_batch([check_key(key) for key in batch])

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._translate_errors():
            response = self._client.delete_objects(
                Bucket=self._container, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False}
            )
            errors = response.get("Errors", [])
            # With Quiet, nothing would distinguish a success from a web page.
            if not errors and not response.get("Deleted"):
                raise not_s3(self._address, "no list of deleted keys")
        failures = [from_answer({"Error": item}, self._address) for item in errors if item.get("Code") != "NoSuchKey"]
        if failures:
            # A permanent error says more than a transient one.
            raise min(failures, key=lambda failure: not failure.permanent)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return S3Retention(self._client, self._address)

    def _list_one(self) -> None:
        prefix = f"{self._location.prefix}/" if self._location.prefix else ""
        self._page(prefix, MaxKeys=1)

    def _create(self) -> None:
        region = self._location.region
        # AWS rejects its oldest region as a constraint, and requires every other one (S3 API: CreateBucket).
        extra: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._translate_errors():
            try:
                self._client.create_bucket(Bucket=self._container, **extra)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                    raise

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors, and close all connections after a response that is not from the server.

        The new owner of the server's address, or a load balancer that has lost the server, may keep connections open
        forever. Only a new connection resolves the host name again.
        """
        try:
            with translate(self._address):
                yield
        except StoreUnreachable as error:
            if error.is_of_another:
                self._client.close()
            raise

    def _throttled(self, body: memoryview) -> Any:
        """Return a body that botocore accepts, although its type stubs do not."""
        return ThrottledBody(body, self._upload)

    def close(self) -> None:
        """See ObjectStore."""
        self._client.close()


def _range(start: int, length: int | None) -> str | None:
    """Return the Range header for a read; None: the whole object (RFC 9110, section 14.1.2)."""
    if start < 0:
        return f"bytes={start}"
    if length is None:
        return f"bytes={start}-" if start else None
    # A range cannot be empty. One byte shows at least whether the object exists.
    return f"bytes={start}-{start + max(length, 1) - 1}"
