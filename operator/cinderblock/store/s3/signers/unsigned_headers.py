"""Find out whether a server acts on headers that the signature of a request does not cover.

AWS rejects each request with such a header that begins with x-amz-. If a server accepts them, a mover can add one to a
request that the broker has signed, and so copy an object of another namespace (x-amz-copy-source).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import StoreAccess
from cinderblock.errors import CinderblockError, NotFound, StoreUnreachable
from cinderblock.store.call_time import call_seconds
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.client import make_client
from cinderblock.store.s3.errors import translate

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

PROBE_HEADER: Final = "x-amz-meta-cinderblock-probe"
"""A header that changes nothing, and that a server must reject if no signature covers it."""
PROBE_DIRECTORY: Final = "cinderblock.probe"
"""Directory in which probes write. The name of a namespace has no dot, so it is not the directory of one."""
COPY_HEADERS: Final = (
    ("x-amz-copy-source",),
    ("x-goog-copy-source", "x-oss-copy-source", "x-obs-copy-source", "x-cos-copy-source"),
)
"""Headers that turn an upload into a copy: that of AWS, and those that other servers also know."""
_SOURCE: Final = b"source"
_BODY: Final = b""
"""A copy has no body. It has no digest either, so that the server has no other reason to refuse it."""
_REFUSED: Final = frozenset({400, 401, 403, 501})
"""Statuses of a request that the server does not accept."""


def ignores_unsigned_headers(location: StoreLocation, credentials: S3Credentials, ca_file: str | None = None) -> bool:
    """Return whether a server acts on, or accepts, headers that the signature of a request does not cover.

    This lists at most one key below the prefix of the store, first as usual and then with such a header. It uploads a
    small object, tries to make others copies of it, and deletes them. In a bucket with versions, it deletes those that
    it has made, if the credentials may. A probe that dies in between leaves the objects to the next one, which has the
    same keys. It uploads and deletes nothing if the access is ReadOnly.

    Raises CinderblockError if the server rejects the usual requests too, or does not answer; StoreUnreachable if
    another process that probes the same store disturbs this one.
    """
    probe = _Probe(location, credentials, ca_file)
    try:
        # Nobody signs an upload to a read-only store, so none can become a copy.
        tries_copies = location.access is StoreAccess.READ_WRITE
        return probe.accepts_header() or (tries_copies and probe.copies()) or probe.follows_proxies()
    finally:
        probe.close()


class _Probe:
    """A client that adds headers after signing."""

    def __init__(self, location: StoreLocation, credentials: S3Credentials, ca_file: str | None) -> None:
        self._client = make_client(location, credentials, ca_file)
        self._address = StoreAddress(self._client.meta.endpoint_url, location.container, location.region, credentials)
        self._bucket = location.container
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._source = f"{self._prefix}{PROBE_DIRECTORY}/source"
        self._added: Mapping[str, str] = {}
        self._splits_path = False
        self._versions: dict[str, str] = {}
        self._client.meta.events.register_first("before-send.s3", self._change)

    def accepts_header(self) -> bool:
        """Return whether the server lists keys although a header is not covered."""
        self._list()
        return self._try(self._list, {PROBE_HEADER: "1"}) is None

    def copies(self) -> bool:
        """Return whether the server copies an object because a header that is not covered says so."""
        self._put_source()
        try:
            return any(self._copies_by(number, names) for number, names in enumerate(COPY_HEADERS))
        finally:
            self._delete(self._source)

    def follows_proxies(self) -> bool:
        """Return whether a header of proxies moves the signed path, as it does in SeaweedFS.

        The path of the request is then not the one that the signature covers. A server that knows no such header gives
        the same answer as without it.
        """
        self._splits_path = True
        try:
            parent = self._try(self._get, {})
            return self._try(self._get, {"X-Forwarded-Prefix": self._first_part()}) != parent
        finally:
            self._splits_path = False

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _copies_by(self, number: int, names: tuple[str, ...]) -> bool:
        # Each group of headers has a key of its own: whatever another process puts there, it puts in the same way.
        target = f"{self._prefix}{PROBE_DIRECTORY}/target-{number}"
        headers = dict.fromkeys(names, f"/{self._bucket}/{self._source}")
        if self._try(partial(self._put_target, target), headers) is not None:
            return False
        try:
            return self._read(target) != _BODY
        except NotFound as error:
            raise self._disturbed(error) from error
        finally:
            self._delete(target)

    def _disturbed(self, error: CinderblockError) -> StoreUnreachable:
        """Return the error of a probe whose objects another process that probes the same store has deleted."""
        text = f"Cannot find out whether {self._address} checks all headers: another process does so now. Try again."
        return StoreUnreachable(text, reason=error.reason)

    def _try(self, call: Callable[[], object], headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return status and code of the refusal of a request with more headers; None if the server accepts it."""
        self._added = headers
        try:
            call()
        except CinderblockError as error:
            cause = error.__cause__
            answer = cause.response if isinstance(cause, ClientError) else None
            status = answer["ResponseMetadata"]["HTTPStatusCode"] if answer is not None else 0
            if answer is not None and (status in _REFUSED or (self._splits_path and status == 404)):
                return status, str(answer.get("Error", {}).get("Code", ""))
            if isinstance(error, NotFound):
                raise self._disturbed(error) from error
            raise
        finally:
            self._added = {}
        return None

    def _list(self) -> None:
        with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def _put_source(self) -> None:
        digest = b64encode(hashlib.md5(_SOURCE, usedforsecurity=False).digest()).decode("ascii")
        with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
            # Buckets with Object Lock require a digest of the body (S3 API: PutObject, Content-MD5).
            made = self._client.put_object(Bucket=self._bucket, Key=self._source, Body=_SOURCE, ContentMD5=digest)
        self._versions[self._source] = made.get("VersionId", "")

    def _put_target(self, key: str) -> None:
        with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
            made = self._client.put_object(Bucket=self._bucket, Key=key, Body=_BODY)
        self._versions[key] = made.get("VersionId", "")

    def _get(self) -> bytes:
        return self._read(self._source)

    def _read(self, key: str) -> bytes:
        with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def _delete(self, key: str) -> None:
        """Delete an object. If the version that this probe has made can be deleted, no version and no marker stay."""
        version = self._versions.pop(key, "")
        if version and self._deletes_version(key, version) and not self._exists(key):
            return
        with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _deletes_version(self, key: str, version: str) -> bool:
        """Delete a version. Return False if that fails, for example because of a missing right or a lock."""
        try:
            with limit_seconds(call_seconds(0, None, None)) as deadline, translate(self._address, deadline):
                self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version)
        except CinderblockError:
            return False
        return True

    def _exists(self, key: str) -> bool:
        """Return whether an object may exist, such as one that an earlier probe has left."""
        try:
            self._read(key)
        except NotFound:
            return False
        except CinderblockError:
            pass
        return True

    def _first_part(self) -> str:
        """Return the first part of the path of a signed URL: the bucket, or the first part of a key."""
        url = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": self._source})
        return "/" + urlsplit(url).path.lstrip("/").partition("/")[0]

    def _change(self, request: AWSPreparedRequest, **_: object) -> None:
        """Handle botocore's event before-send: the request has been signed."""
        for name, value in self._added.items():
            request.headers[name] = value
        if self._splits_path:
            parts = urlsplit(request.url)
            rest = parts.path.lstrip("/").partition("/")[2]
            request.url = parts._replace(path=f"/{rest}").geturl()
