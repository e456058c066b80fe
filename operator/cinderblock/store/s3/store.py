"""The store on S3. It does not retry: it raises StoreUnreachable for what another attempt may solve."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.exceptions import ClientError

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError, ContainerNotFound, ObjectNotFound, PermanentError, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.bandwidth import throttle_for
from cinderblock.store.base import DELETE_BATCH_KEYS, READ_LIMIT, Body, ObjectInfo, ObjectLock, check_body, check_key
from cinderblock.store.call_time import call_seconds
from cinderblock.store.credentials import Credentials, RemoteSigner, S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.retention import Retention
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import not_s3, protocol_violation
from cinderblock.store.s3.checksum import Checksum, UploadChecksums, answer_of, body_fields
from cinderblock.store.s3.client import make_client
from cinderblock.store.s3.connection import close_connections
from cinderblock.store.s3.deletion import Deleter
from cinderblock.store.s3.download import UnexpectedRange, check_origin, download, range_header, stated_size
from cinderblock.store.s3.errors import translate
from cinderblock.store.s3.multipart import MULTIPART_THRESHOLD_BYTES, multipart_put
from cinderblock.store.s3.put_options import lock_options, put_options
from cinderblock.store.s3.retention import S3Retention
from cinderblock.store.s3.streaming import Announcements, ThrottledBody, start_throttling
from cinderblock.store.s3.versions.history import S3History

if TYPE_CHECKING:
    from botocore.exceptions import _ClientErrorResponseTypeDef

PAGE_KEYS: Final = 1000
"""Most keys in one page of a listing (S3 API: ListObjectsV2)."""
LISTING_PAGES: Final = 100_000
"""Most pages of a listing. A volume of 64 TiB has packs for 2800 pages."""
EMPTY_PAGES: Final = 100
"""Most pages without a key, one after the other. Some servers send one where many objects were deleted."""


class _Page(NamedTuple):
    """A page of a listing.

    Attributes:
        items: its objects.
        token: where the next page begins; None: this is the last one.
    """

    items: list[ObjectInfo]
    token: str | None


_EXISTS_CODES: Final = frozenset({"PreconditionFailed", "NotModified"})
_EXISTS_STATUSES: Final = frozenset({HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED})
"""Answers to a conditional write whose object exists."""
_NO_CONDITION_CODES: Final = frozenset({"SignatureDoesNotMatch"})
_NO_CONDITION_STATUSES: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""Answers of servers that know no conditional writes. A proxy that removes the header breaks the signature."""


class _AlreadyStoredError(Exception):
    """The object of a conditional write exists."""


class S3Store:
    """One container of an S3 server."""

    def __init__(
        self,
        location: StoreLocation,
        credentials: Credentials | None,
        ca_file: str | None = None,
        read_timeout: float | None = None,
        seconds_per_call: float | None = None,
    ) -> None:
        """Make a client. This sends no request.

        Args:
            location: where the store is, and its limits.
            credentials: sign requests; None: boto3 finds them as every AWS tool does. A signer signs only what an
                operation needs, so the store then deletes objects one by one, and never creates the container.
            ca_file: PEM certificates that replace those of the system.
            read_timeout: seconds without a byte of a response; None: READ_TIMEOUT.
            seconds_per_call: seconds of a whole request; None: by its size, see `call_seconds`.

        Raises InvalidInput if the location or the CA file is malformed.
        """
        self._location = location
        self._seconds_per_call = seconds_per_call
        self._container = location.container
        self._client = make_client(location, credentials, ca_file, read_timeout)
        self._announcements = Announcements()
        self._client.meta.events.register("before-call.s3", self._announcements.choose)
        self._client.meta.events.register("before-send.s3", start_throttling)
        own = credentials if isinstance(credentials, S3Credentials) else None
        is_limited = isinstance(credentials, RemoteSigner)
        self._creates_container = location.create_container and not is_limited
        self._address = StoreAddress(
            self._client.meta.endpoint_url, location.container, location.region, own, is_limited
        )
        self._put_options = put_options(location)
        self._checksums = UploadChecksums()
        self._retention = S3Retention(self._client, self._address, self._call)
        self.history = S3History(
            self._client,
            self._address,
            self._retention,
            self._call,
            put_options=self._put_options,
            get=self._get_version,
            set_lock=self.set_lock,
        )
        """The versions of the objects. Only people use it."""
        self._deleter = Deleter(self._client, self._container, self._address, self._call, has_batches=not is_limited)
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
            if not self._creates_container:
                raise
            self._create()
            self._list_one()

    def put(self, key: str, body: Body, lock: ObjectLock | None = None) -> None:
        """See ObjectStore. Large bodies are sent in parts."""
        view = check_body(check_key(key), body)
        self._checksums.upload(partial(self._put, key, view, lock_options(lock)))

    def _put(self, key: str, view: memoryview, lock: Mapping[str, Any], checksum: Checksum) -> None:
        target: Any = {"Bucket": self._container, "Key": key, **self._put_options, **lock}
        if view.nbytes > MULTIPART_THRESHOLD_BYTES:
            multipart_put(self._client, target, view, self._throttled, checksum=checksum, sending=self._sending)
            return
        self._put_once(key, view, checksum, lock)

    def create(self, key: str, body: Body) -> bool:
        """See ObjectStore. The body is small: it is sent in one request."""
        view = check_body(check_key(key), body)
        try:
            self._checksums.upload(partial(self._create_object, key, view))
        except _AlreadyStoredError:
            return False
        return True

    def _create_object(self, key: str, view: memoryview, checksum: Checksum) -> None:
        """Send a conditional write (S3 API: If-None-Match), and a plain one to a server that refuses the condition.

        Raises _AlreadyStoredError, which says nothing about the checksum: a server may check the condition first.
        """
        try:
            self._put_once(key, view, checksum, {"IfNoneMatch": "*"})
        except CinderblockError as error:
            code, status = answer_of(error)
            if code in _EXISTS_CODES or status in _EXISTS_STATUSES:
                raise _AlreadyStoredError from None
            # A proxy or a small server may send a status without a code.
            is_refused = error.permanent or error.reason is Reason.NOT_S3
            if not is_refused or (code not in _NO_CONDITION_CODES and status not in _NO_CONDITION_STATUSES):
                raise
            self._put_once(key, view, checksum, {})

    def _put_once(self, key: str, view: memoryview, checksum: Checksum, more: Mapping[str, Any]) -> None:
        target: Any = {"Bucket": self._container, "Key": key, **self._put_options, **more}
        body: Any = self._throttled(view)
        with self._sending(view.nbytes):
            response = self._client.put_object(Body=body, **body_fields(checksum, body), **target)
            if "ETag" not in response:
                raise not_s3(self._address, "no ETag for an upload")

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        retention: Any = {"Mode": lock.mode.value, "RetainUntilDate": lock.until}
        with self._call():
            try:
                self._client.put_object_retention(Bucket=self._container, Key=check_key(key), Retention=retention)
            except ClientError as error:
                if error.response["Error"].get("Code") == "NoSuchKey":
                    raise ObjectNotFound(f"Cannot lock {key} in {self._address}: the object does not exist.") from error
                raise

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._read(key, start, length, {})

    def _get_version(self, key: str, version_id: str, start: int, length: int | None) -> bytes:
        return self._read(key, start, length, {"VersionId": version_id})

    def _read(self, key: str, start: int, length: int | None, version: Mapping[str, Any]) -> bytes:
        """Read an object, or the version that the parameters of GetObject name."""
        count = READ_LIMIT if length is None and start >= 0 else max(length or 0, -start)
        with self._call(count, self._location.download_bytes_per_second):
            try:
                return self._get(check_key(key), start, length, version)
            except UnexpectedRange as error:
                raise StoreUnreachable(
                    f"Cannot read {key} in {self._address}: the server sent another range than the requested one. Look"
                    " for a cache or a proxy in between."
                ) from error

    def _get(self, key: str, start: int, length: int | None, version: Mapping[str, Any]) -> bytes:
        header = range_header(start, length)
        extra: Any = {**version, **({} if header is None else {"Range": header})}
        try:
            response = self._client.get_object(Bucket=self._container, Key=key, **extra)
        except ClientError as error:
            if self._ends_before(key, start, error.response, version):
                return b""
            if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "NoSuchVersion"}:
                raise ObjectNotFound(f"Cannot read {key} in {self._address}: the object does not exist.") from error
            raise
        check_origin(response, self._address)
        return download(response, start, length, self._download)

    def _ends_before(
        self, key: str, start: int, response: _ClientErrorResponseTypeDef, version: Mapping[str, Any]
    ) -> bool:
        """Return whether an error means that the object ends before ``start``.

        A proxy may answer 416 for reasons of its own, and an object that seems to be empty counts as damaged. So
        something must show that the object is so short. Raises UnexpectedRange if it is not.
        """
        if response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return False
        size = stated_size(response)
        if size is None and response["Error"].get("Code") != "InvalidRange":
            return False
        if size is None and start <= 0:
            # Only an empty object has no first and no last byte.
            size = self._client.head_object(Bucket=self._container, Key=key, **version)["ContentLength"]
        if size is not None and size > max(start, 0):
            raise UnexpectedRange
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. A listing that does not advance, or never ends, is an error."""
        previous = ""
        empty_pages = 0
        for number, items in enumerate(self._pages(prefix)):
            empty_pages = 0 if items else empty_pages + 1
            if len(items) > PAGE_KEYS or empty_pages > EMPTY_PAGES or number >= LISTING_PAGES:
                raise protocol_violation(self._address, "a listing without end")
            for item in items:
                if item.key <= previous:
                    raise self._impossible(f"a listing out of order ({previous} before {item.key})")
                if not item.key.startswith(prefix) or item.size < 0:
                    raise self._impossible(f"a listing of something else ({item.key}, {item.size} bytes)")
                yield item
                previous = item.key

    def _pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        page = self._page(prefix)
        yield page.items
        while page.token is not None:
            earlier = page.token
            page = self._page(prefix, ContinuationToken=earlier)
            if page.token == earlier:
                raise protocol_violation(self._address, "a listing whose pages repeat")
            yield page.items

    def _page(self, prefix: str, **extra: Any) -> _Page:
        """Request and parse a page. Whatever it lacks is an error of the server."""
        with self._call():
            page = self._client.list_objects_v2(Bucket=self._container, Prefix=prefix, **extra)
            # Any well-formed XML, such as an XHTML page, would look like an empty listing.
            if "IsTruncated" not in page:
                raise not_s3(self._address, "something other than a listing")
            items = [
                ObjectInfo(item["Key"], item["Size"], item.get("LastModified")) for item in page.get("Contents", [])
            ]
        token = page.get("NextContinuationToken")
        if page["IsTruncated"] and not token:
            raise protocol_violation(
                self._address, "a listing without its next page (NextContinuationToken of ListObjectsV2)"
            )
        return _Page(items, token if page["IsTruncated"] else None)

    def _impossible(self, answer: str) -> PermanentError:
        """Return the error for an answer that quotes keys of the server, which may have any length."""
        return protocol_violation(self._address, self._address.redact(answer))

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, DELETE_BATCH_KEYS)):
            self._deleter.delete([check_key(key) for key in batch])

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._retention

    def _list_one(self) -> None:
        prefix = f"{self._location.prefix}/" if self._location.prefix else ""
        self._page(prefix, MaxKeys=1)

    def _create(self) -> None:
        region = self._location.region
        # AWS rejects its oldest region as a constraint, and requires every other one (S3 API: CreateBucket).
        extra: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._call():
            try:
                self._client.create_bucket(Bucket=self._container, **extra)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                    raise

    @contextmanager
    def _sending(self, count: int) -> Iterator[None]:
        """Prepare one request that sends ``count`` bytes."""
        with self._call(count, self._location.upload_bytes_per_second):
            try:
                yield
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.EXPECTATION_FAILED:
                    raise
                # RFC 9110, section 10.1.1: the client should repeat the request without the expectation.
                self._announcements.is_allowed = False
                raise StoreUnreachable(
                    f"Cannot use {self._address} now: it rejects Expect: 100-continue. Further uploads omit it."
                ) from error

    @contextmanager
    def _call(self, count: int = 0, bytes_per_second: int | None = None) -> Iterator[None]:
        """Limit the time of one request, and translate its errors.

        Close all connections after a response that is not from the server.

        The new owner of the server's address, or a load balancer that has lost the server, may keep connections open
        forever. Only a new connection resolves the host name again.
        """
        try:
            with (
                limit_seconds(call_seconds(count, bytes_per_second, self._seconds_per_call)) as deadline,
                translate(self._address, deadline),
            ):
                yield
        except StoreUnreachable as error:
            if error.is_of_another:
                close_connections(self._client)
            raise

    def _throttled(self, body: memoryview) -> ThrottledBody:
        return ThrottledBody(body, self._upload)

    def close(self) -> None:
        """See ObjectStore."""
        self._client.close()
