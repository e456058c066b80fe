"""Read and bring back earlier versions of objects on S3."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from botocore.exceptions import ClientError

from cinderblock.api.v1alpha1.store import LockMode
from cinderblock.store.base import ObjectLock, check_key
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import not_s3, protocol_violation
from cinderblock.store.s3.put_options import lock_options
from cinderblock.store.s3.retention import S3Retention, advances
from cinderblock.store.versions.history import ObjectVersion

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


_NO_LOCK_STATUSES: Final = frozenset({400, 403, 404, 405, 501})
"""Statuses for a version or a container without a lock, for a missing permission, and for a call that is unknown."""
_ULID_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_TIME_CHARACTERS: Final = 10
_ULID: Final = re.compile(f"0[{_ULID_DIGITS}]{{25}}")
"""A ULID (github.com/ulid/spec) of a time before the year 3084."""


class _Call(Protocol):
    """Limits the time of one request that moves so many bytes, and translates its errors."""

    def __call__(self, count: int = 0, /) -> AbstractContextManager[None]: ...


class S3History:
    """See VersionPages. A store has one of these.

    Args:
        client: sends the requests.
        address: the container as messages show it.
        retention: of the same client.
        call: prepares a request.
        put_options: storage class and encryption of copies.
        get: reads a version: key, id, start, length.
        set_lock: locks a current object.
    """

    def __init__(
        self,
        client: S3Client,
        address: StoreAddress,
        retention: S3Retention,
        call: _Call,
        *,
        put_options: Mapping[str, Any],
        get: Callable[[str, str, int, int | None], bytes],
        set_lock: Callable[[str, ObjectLock], None],
    ) -> None:
        self._client = client
        self._address = address
        self._retention = retention
        self._call = call
        self._put_options = put_options
        self._get = get
        self._set_lock = set_lock

    def page(self, prefix: str, marker: tuple[str, str]) -> tuple[list[ObjectVersion], tuple[str, str] | None]:
        """See VersionPages."""
        with self._retention.request():
            page = self._retention.version_page(prefix, marker)
            more = bool(page["IsTruncated"])
            found = [_version(item) for item in page.get("Versions", [])]
            found += [_version(item, is_marker=True) for item in page.get("DeleteMarkers", [])]
        foreign = next((item.key for item in found if not item.key.startswith(prefix)), None)
        if foreign is not None:
            raise protocol_violation(self._address, self._address.redact(f"a listing of something else ({foreign})"))
        following = (page.get("NextKeyMarker", ""), page.get("NextVersionIdMarker", ""))
        if more and not advances(marker, following):
            raise protocol_violation(self._address, "a listing of versions without a next page")
        # botocore gives versions and markers apart, so their order within a second is lost.
        found.sort(key=lambda item: item.modified, reverse=True)
        found.sort(key=lambda item: item.key)
        return found, following if more else None

    def get(self, key: str, version_id: str, start: int = 0, length: int | None = None) -> bytes:
        """See VersionPages."""
        return self._get(key, version_id, start, length)

    def copy(self, version: ObjectVersion) -> None:
        """See VersionPages. The server copies, so no content passes this machine."""
        source: Any = {"Bucket": self._address.container, "Key": check_key(version.key)}
        source["VersionId"] = version.version_id
        lock = self._lock_of(version)
        options: Any = {**self._put_options, **lock_options(lock)}
        with self._call(version.size):
            answer = self._client.copy_object(
                Bucket=self._address.container, Key=version.key, CopySource=source, **options
            )
            if "CopyObjectResult" not in answer:
                raise not_s3(self._address, "no result of a copy")
        if lock is not None and self._retention.inspect(version.key).retained_until is None:
            # versitygw 1.8 ignores the lock of a copy.
            self._set_lock(version.key, lock)

    def _lock_of(self, version: ObjectVersion) -> ObjectLock | None:
        """Return the lock that a version has; None: it has none, or it is not visible.

        HEAD of versitygw 1.8 tells it only of the current version.
        """
        with self._call():
            try:
                answer: Mapping[str, Any] = self._client.get_object_retention(
                    Bucket=self._address.container, Key=version.key, VersionId=version.version_id
                )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in _NO_LOCK_STATUSES:
                    return None
                raise
        found = answer.get("Retention") or {}
        until, mode = found.get("RetainUntilDate"), found.get("Mode")
        if until is None or until <= datetime.now(UTC) or mode not in tuple(LockMode):
            return None
        return ObjectLock(LockMode(mode), until)

    def remove_marker(self, key: str, version_id: str) -> None:
        """See VersionPages."""
        with self._call():
            self._client.delete_object(Bucket=self._address.container, Key=check_key(key), VersionId=version_id)


def _version(item: Mapping[str, Any], *, is_marker: bool = False) -> ObjectVersion:
    """Return an entry of a listing. Raises KeyError if it lacks something."""
    modified: datetime = item["LastModified"]
    version_id = str(item["VersionId"])
    return ObjectVersion(
        key=str(item["Key"]),
        version_id=version_id,
        modified=_time_in(version_id) or modified.astimezone(UTC),
        size=0 if is_marker else int(item["Size"]),
        is_marker=is_marker,
        is_latest=bool(item.get("IsLatest")),
        etag="" if is_marker else str(item.get("ETag", "")),
    )


def _time_in(version_id: str) -> datetime | None:
    """Return the time that a version id contains; None if it contains none.

    versitygw 1.8 gives a noncurrent version the time when it was replaced, and a delete marker that of the object. Its
    ids are ULIDs, which begin with their own time. Other servers have ids of other lengths.
    """
    if not _ULID.fullmatch(version_id):
        return None
    milliseconds = 0
    for character in version_id[:_ULID_TIME_CHARACTERS]:
        milliseconds = 32 * milliseconds + _ULID_DIGITS.index(character)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
