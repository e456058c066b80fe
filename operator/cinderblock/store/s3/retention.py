"""Ask an S3 server what a container keeps of deleted objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from cinderblock.errors import PermanentError
from cinderblock.lifecycle.store.container_rules import LifecycleRule, ObjectLockRule, Versioning
from cinderblock.reasons import Reason
from cinderblock.store.base import check_key
from cinderblock.store.retention import ObjectState, Versions
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.lifecycle_rules import parse_rules

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_UNKNOWN_CALL_CODES: Final = frozenset({"MethodNotAllowed", "NotImplemented", "UnsupportedOperation"})
_UNKNOWN_CALL_STATUSES: Final = frozenset({405, 501})
_NO_VERSIONING_CODE: Final = "VersioningNotConfigured"
"""versitygw 1.8 without a directory for versions."""
_NO_LOCK_CODE: Final = "ObjectLockConfigurationNotFoundError"
_NO_LIFECYCLE_CODE: Final = "NoSuchLifecycleConfiguration"
_SILENT_STATUSES: Final = frozenset({400, 403, 405, 501})
"""Statuses of HEAD that say nothing about an object. A response to HEAD has no room for a code."""
_PAGE_ENTRIES: Final = 1000
"""Versions and delete markers in one response (S3 API: ListObjectVersions)."""
_DEFAULT_PERIODS: Final = (("Days", "days"), ("Years", "years"))


class S3Retention:
    """See Retention.

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

    def versioning(self) -> Versioning:
        """See Retention."""
        with self._request():
            try:
                response = self._client.get_bucket_versioning(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_VERSIONING_CODE:
                    raise
                return Versioning.OFF
            return Versioning(response.get("Status", Versioning.OFF))

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        with self._request():
            try:
                response = self._client.get_object_lock_configuration(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_LOCK_CODE:
                    raise
                return None
            found: Mapping[str, Any] = response["ObjectLockConfiguration"]
        if found.get("ObjectLockEnabled") != "Enabled":
            return None
        default = (found.get("Rule") or {}).get("DefaultRetention") or {}
        period = " ".join(f"{default[field]} {word}" for field, word in _DEFAULT_PERIODS if default.get(field))
        return ObjectLockRule(str(default.get("Mode", "")), period)

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        with self._request():
            try:
                response = self._client.get_bucket_lifecycle_configuration(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_LIFECYCLE_CODE:
                    raise
                return ()
            return parse_rules(response["Rules"])

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """See Retention. The number of requests is bounded as well, whatever the server answers."""
        keys: list[str] = []
        markers: dict[str, Any] = {}
        more = True
        for _ in range(limit // _PAGE_ENTRIES + 1):
            with self._request():
                page = self._client.list_object_versions(Bucket=self._address.container, Prefix=prefix, **markers)
                more = page["IsTruncated"]
            keys += [item["Key"] for item in page.get("Versions", [])]
            markers = {"KeyMarker": page.get("NextKeyMarker", "")}
            if page.get("NextVersionIdMarker"):
                markers["VersionIdMarker"] = page["NextVersionIdMarker"]
            if not more:
                break
        return Versions(tuple(keys), more)

    def inspect(self, key: str, /) -> ObjectState:
        """See Retention."""
        with self._request():
            try:
                found = self._client.head_object(Bucket=self._address.container, Key=check_key(key))
            except ClientError as error:
                status = _status(error)
                if status == 404:
                    headers = error.response["ResponseMetadata"]["HTTPHeaders"]
                    return ObjectState(exists=False, is_hidden=headers.get("x-amz-delete-marker") == "true")
                if status in _SILENT_STATUSES:
                    return ObjectState(exists=True)
                raise
        until = found.get("ObjectLockRetainUntilDate")
        # Objects from before versioning was switched on have the version "null", but are hidden like all others.
        return ObjectState(
            exists=True,
            is_version=bool(found.get("VersionId")),
            retained_until=until.astimezone(UTC) if until is not None else None,
            has_legal_hold=found.get("ObjectLockLegalHoldStatus") == "ON",
        )

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Prepare one request. Its errors say if the server does not know the call."""
        with self._call():
            try:
                yield
            except ClientError as error:
                if _code(error) in _UNKNOWN_CALL_CODES or _status(error) in _UNKNOWN_CALL_STATUSES:
                    raise PermanentError(
                        f"Cannot ask {self._address}: the server does not support {error.operation_name}.",
                        reason=Reason.NOT_SUPPORTED,
                    ) from error
                raise


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
