"""The store on S3. It knows no retries: what may be tried again leaves as StoreUnreachable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import NotFound, StoreUnreachable
from cinderblock.format.range_reader import Buffer
from cinderblock.store.bandwidth import throttle_for
from cinderblock.store.base import BATCH, ObjectInfo, check_body, check_key, slice_body
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.client import make_client
from cinderblock.store.s3.errors import from_answer, not_s3, protocol_violation, translate
from cinderblock.store.s3.multipart import PARTS_ABOVE, multipart_put
from cinderblock.store.s3.put_options import put_options
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
        answer: float | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            location: where the store is, and its limits.
            credentials: what to sign with; None: found as every AWS tool finds them.
            ca_file: PEM certificates that replace the system's.
            answer: seconds without a byte of an answer; None: READ_TIMEOUT.

        Raises InvalidInput if the location or the CA file is malformed.
        """
        self._location = location
        self._container = location.container
        self._client = make_client(location, credentials, ca_file, answer)
        self._client.meta.events.register("before-call.s3", announce_large_only)
        self._client.meta.events.register("before-send.s3", start_throttling)
        self._place = StoreAddress(self._client.meta.endpoint_url, location.container, location.region, credentials)
        self._written = put_options(location)
        self._upload = throttle_for(location.upload_bytes_per_second)
        self._download = throttle_for(location.download_bytes_per_second)

    def check(self) -> None:
        """See ObjectStore. Asks by listing, because that is what must be allowed, and because the answer to a HEAD has
        no room for the reason of a refusal.
        """
        try:
            self._list_one()
        except NotFound:
            if not self._location.create_container:
                raise
            self._create()
            self._list_one()

    def put(self, key: str, body: Buffer) -> None:
        """See ObjectStore. Large bodies go in parts."""
        view = check_body(check_key(key), body)
        target: Any = {"Bucket": self._container, "Key": key, **self._written}
        with self._talking():
            if view.nbytes > PARTS_ABOVE:
                multipart_put(self._client, target, view, self._sending)
                return
            answer = self._client.put_object(Body=self._sending(view), **target)
            if "ETag" not in answer:
                raise not_s3(self._place, "no ETag for an upload")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        wanted = _range(start, length)
        extra: Any = {} if wanted is None else {"Range": wanted}
        with self._talking():
            try:
                answer = self._client.get_object(Bucket=self._container, Key=check_key(key), **extra)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                    return b""
                if error.response["Error"]["Code"] == "NoSuchKey":
                    raise NotFound(f"There is no object {key} in {self._place}") from error
                raise
            content = receive(answer["Body"], self._download)
            if "ETag" not in answer:
                raise not_s3(self._place, "an object without ETag")
        return content if wanted is None else self._ranged(key, answer, content, start, length)

    def _ranged(
        self, key: str, answer: GetObjectOutputTypeDef, content: bytes, start: int, length: int | None
    ) -> bytes:
        """The part that was asked for, out of what came: servers may ignore a range (RFC 9110, section 14.2)."""
        came = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if came is None:
            return slice_body(content, start, length)
        first, last, size = map(int, came.groups())
        asked = max(size + start, 0) if start < 0 else start
        end = size if length is None or start < 0 else min(start + max(length, 1), size)
        if (first, last + 1, len(content)) != (asked, end, end - asked):
            raise StoreUnreachable(f"{self._place} sent another part of {key} than the one asked for")
        return slice_body(content, 0, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        previous = ""
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                key = item["Key"]
                if key <= previous:
                    raise protocol_violation(self._place, f"a listing out of order ({previous} before {key})")
                yield ObjectInfo(key, item["Size"])
                previous = key

    def _pages(self, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        page = self._page(prefix)
        yield page
        while page["IsTruncated"]:
            token = page.get("NextContinuationToken", "")
            page = self._page(prefix, ContinuationToken=token)
            if not token or page.get("NextContinuationToken") == token:
                raise protocol_violation(self._place, "a listing that does not go on")
            yield page

    def _page(self, prefix: str, **extra: Any) -> ListObjectsV2OutputTypeDef:
        with self._talking():
            page = self._client.list_objects_v2(Bucket=self._container, Prefix=prefix, **extra)
            # Any well-formed XML, an XHTML page for example, would pass for an empty listing.
            if "IsTruncated" not in page:
                raise not_s3(self._place, "something else than a listing")
        return page

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        todo = iter(keys)
        while batch := list(itertools.islice(todo, BATCH)):
            self._delete_batch([check_key(key) for key in batch])

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._talking():
            answer = self._client.delete_objects(
                Bucket=self._container, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False}
            )
            refused = answer.get("Errors", [])
            # Asked to be quiet, a server would answer success with nothing that tells it from a web page.
            if not refused and not answer.get("Deleted"):
                raise not_s3(self._place, "no word of what it deleted")
        failures = [from_answer({"Error": item}, self._place) for item in refused if item.get("Code") != "NoSuchKey"]
        if failures:
            # One that cannot be mended is more telling than one that can.
            raise min(failures, key=lambda failure: not failure.permanent)

    def _list_one(self) -> None:
        prefix = f"{self._location.prefix}/" if self._location.prefix else ""
        self._page(prefix, MaxKeys=1)

    def _create(self) -> None:
        region = self._location.region
        # AWS refuses its oldest region as a constraint, and wants every other one (S3 API: CreateBucket).
        extra: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._talking():
            try:
                self._client.create_bucket(Bucket=self._container, **extra)
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                    raise

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """What goes wrong inside leaves as an error of ours.

        Somebody else's answer is the last on its connection, and on all others: who got an address that was the
        server's, or was asked by a load balancer that has lost it, may keep connections open for ever, and the name
        is looked up for new ones only.
        """
        try:
            with translate(self._place):
                yield
        except StoreUnreachable as error:
            if error.is_of_another:
                self._client.close()
            raise

    def _sending(self, body: memoryview) -> Any:
        """A body as botocore wants it, which its type does not say."""
        return ThrottledBody(body, self._upload)

    def close(self) -> None:
        """See ObjectStore."""
        self._client.close()


def _range(start: int, length: int | None) -> str | None:
    """The Range header for a read; None: the whole object (RFC 9110, section 14.1.2)."""
    if start < 0:
        return f"bytes={start}"
    if length is None:
        return f"bytes={start}-" if start else None
    # A range of no bytes cannot be asked for; one byte tells at least whether there is an object.
    return f"bytes={start}-{start + max(length, 1) - 1}"
