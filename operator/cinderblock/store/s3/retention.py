"""Ask an S3 server what a container keeps of deleted objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cinderblock.errors import PermanentError
from cinderblock.lifecycle.store.container_rules import LifecycleRule, ObjectLockRule, Versioning
from cinderblock.reasons import Reason
from cinderblock.store.base import check_key
from cinderblock.store.retention import ObjectState, Versions
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer, parse_date, protocol_violation
from cinderblock.store.s3.codes import Kind, classify
from cinderblock.store.s3.errors import PARSER_DEFECTS
from cinderblock.store.s3.lifecycle_rules import parse_rules

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_UNKNOWN_CALL_CODES: Final = frozenset({"MethodNotAllowed", "NotImplemented", "UnsupportedOperation"})
_UNKNOWN_CALL_STATUSES: Final = frozenset({405, 501})
_VAGUE_STATUSES: Final = frozenset({400, 404})
"""Statuses that mean the same, unless the code is one of S3 for something else."""
_VAGUE_KINDS: Final = frozenset({None, Kind.ABSENT_OBJECT, Kind.UNKNOWN, Kind.UNSUPPORTED})
_PAGE_STATUSES: Final = range(300, 500)
"""Statuses of pages by which something other than the server rejects a request. Nothing answers behind a 5xx."""
_NO_VERSIONING_CODE: Final = "VersioningNotConfigured"
"""versitygw 1.8 without a directory for versions."""
_NO_LOCK_CODE: Final = "ObjectLockConfigurationNotFoundError"
_NO_LIFECYCLE_CODE: Final = "NoSuchLifecycleConfiguration"
_SILENT_STATUSES: Final = frozenset({400, 403, 405, 501})
"""Statuses of HEAD that say nothing about an object. A response to HEAD has no room for a code."""
_PAGE_ENTRIES: Final = 1000
"""Versions and delete markers in one response (S3 API: ListObjectVersions)."""
_DEFAULT_PERIODS: Final = (("Days", "days"), ("Years", "years"))
_ROOTS: Final = {
    "GetBucketVersioning": "VersioningConfiguration",
    "GetObjectLockConfiguration": "ObjectLockConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "ListObjectVersions": "ListVersionsResult",
}
"""The root elements of the answers (S3 API). botocore reads any XML as if it had the right one."""
_ROOT: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<[?!][^>]*>\s*)*<(?:[\w.-]+:)?([\w.-]+)")
_RETAIN_HEADER: Final = "x-amz-object-lock-retain-until-date"
_RETAIN_FIELD: Final = "RetainUntilText"
"""The field of a parsed answer that holds the header as it came."""


class S3Retention:
    """See Retention. A client has one of these.

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
        # With this wildcard, it is called before botocore turns a malformed page with 200 into an error 500.
        client.meta.events.register("before-parse.*", self._check_root)
        client.meta.events.register("before-parse.s3.HeadObject", _set_date_aside)

    def versioning(self) -> Versioning:
        """See Retention."""
        with self.request():
            try:
                response = self._client.get_bucket_versioning(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_VERSIONING_CODE:
                    raise
                return Versioning.OFF
            return Versioning(response.get("Status", Versioning.OFF))

    def object_lock(self) -> ObjectLockRule | None:
        """See Retention."""
        with self.request():
            try:
                response = self._client.get_object_lock_configuration(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_LOCK_CODE:
                    raise
                return None
            return _lock_rule(response["ObjectLockConfiguration"])

    def lifecycle(self) -> tuple[LifecycleRule, ...]:
        """See Retention."""
        with self.request():
            try:
                response = self._client.get_bucket_lifecycle_configuration(Bucket=self._address.container)
            except ClientError as error:
                if _code(error) != _NO_LIFECYCLE_CODE:
                    raise
                return ()
            return parse_rules(response["Rules"])

    def versions(self, prefix: str, limit: int, /) -> Versions:
        """See Retention. The number of requests is bounded as well, whatever the server answers.

        Raises PermanentError if the listing shows no version and does not come to its end.
        """
        found: dict[tuple[str, str], str] = {}
        marker = ("", "")
        for _ in range(limit // _PAGE_ENTRIES + 1):
            with self.request():
                page = self.version_page(prefix, marker)
                for item in page.get("Versions", []):
                    if not item.get("IsLatest"):
                        found[item["Key"], item.get("VersionId", "")] = item["Key"]
                more = bool(page["IsTruncated"])
            following = (page.get("NextKeyMarker", ""), page.get("NextVersionIdMarker", ""))
            is_stuck = more and not advances(marker, following)
            if is_stuck and not found:
                raise protocol_violation(self._address, "a listing of versions without a next page")
            if is_stuck or not more:
                break
            marker = following
        return Versions(tuple(found.values()), more)

    def version_page(self, prefix: str, marker: tuple[str, str]) -> Mapping[str, Any]:
        """Request a page of a listing of versions. Call this in `request`."""
        names = ("KeyMarker", "VersionIdMarker")
        markers: dict[str, Any] = {name: value for name, value in zip(names, marker, strict=True) if value}
        page: Mapping[str, Any] = self._client.list_object_versions(
            Bucket=self._address.container, Prefix=prefix, **markers
        )
        return page

    def inspect(self, key: str, /) -> ObjectState:
        """See Retention."""
        with self._call():
            try:
                found: Mapping[str, Any] = self._client.head_object(Bucket=self._address.container, Key=check_key(key))
            except ClientError as error:
                status = _status(error)
                if status == 404:
                    headers = error.response["ResponseMetadata"]["HTTPHeaders"]
                    return ObjectState(exists=False, is_hidden=headers.get("x-amz-delete-marker") == "true")
                if status in _SILENT_STATUSES:
                    return ObjectState(exists=True)
                raise
            return _state(found)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Prepare one request about the container.

        An answer that does not come from an S3 server which knows the call is a PermanentError here: no other call
        depends on it. Without any answer, the error stays StoreUnreachable.
        """
        with self._call():
            try:
                yield
            except ClientError as error:
                rejection = self._rejection(error)
                if rejection is None:
                    raise
                raise rejection from error
            except (KeyError, ValueError, ResponseParserError, *PARSER_DEFECTS) as error:
                # Some errors of the network are a ValueError as well.
                if isinstance(error, BotoCoreError | OSError):
                    raise
                raise protocol_violation(self._address, "a malformed response") from error

    def _rejection(self, error: ClientError) -> PermanentError | None:
        """Return the error if the server does not know the call, or another server rejects it; None: neither."""
        code, status = _code(error), _status(error)
        kind = classify(code, status, str(error.response.get("Error", {}).get("Message", "")))
        is_unknown = code in _UNKNOWN_CALL_CODES or status in _UNKNOWN_CALL_STATUSES
        if is_unknown or (status in _VAGUE_STATUSES and kind in _VAGUE_KINDS):
            return self._not_supported(error.operation_name)
        if kind is None and status in _PAGE_STATUSES:
            found = from_answer(error.response, self._address, error.operation_name)
            return PermanentError(found.message, reason=found.reason)
        return None

    def _not_supported(self, call: str) -> PermanentError:
        return PermanentError(
            f"Cannot ask {self._address}: the server does not support {call}.", reason=Reason.NOT_SUPPORTED
        )

    def _check_root(self, operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
        """Refuse the answer to another request: a server or proxy ignores the query, and lists the container."""
        expected = _ROOTS.get(operation_model.name)
        if expected is None or response_dict["status_code"] >= 300:
            return
        root = _ROOT.match(response_dict["body"])
        name = root[1].decode() if root is not None else ""
        if name.lower() in {"", "html"}:
            raise protocol_violation(self._address, f"something else than an answer to {operation_model.name}")
        if name != expected:
            raise self._not_supported(operation_model.name)


def _set_date_aside(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Keep botocore from parsing the end of a retention: its errors would hide everything else in the answer."""
    text = response_dict["headers"].pop(_RETAIN_HEADER, None)
    if text is not None:
        customized_response_dict[_RETAIN_FIELD] = text


def _state(found: Mapping[str, Any]) -> ObjectState:
    """Return the state of an object from its HEAD."""
    text = str(found.get(_RETAIN_FIELD, "")).strip()
    until = _parse_date(text) if text else None
    version = found.get("VersionId", "")
    return ObjectState(
        exists=True,
        is_version=version not in ("", "null"),
        retained_until=until,
        has_legal_hold=found.get("ObjectLockLegalHoldStatus") == "ON",
        # AWS gives this id to objects that were written while versioning was off or suspended.
        is_null_version=version == "null",
        has_unknown_end=bool(text) and until is None,
        lock_mode=str(found.get("ObjectLockMode", "")),
    )


def _parse_date(text: str) -> datetime | None:
    """Return a date of a server; None if it cannot be read, or does not exist in UTC."""
    try:
        parsed = parse_date(text)
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    except (ValueError, *PARSER_DEFECTS):
        return None


def _lock_rule(found: Mapping[str, Any]) -> ObjectLockRule | None:
    if found.get("ObjectLockEnabled") != "Enabled":
        return None
    default = (found.get("Rule") or {}).get("DefaultRetention") or {}
    period = " ".join(f"{default[field]} {word}" for field, word in _DEFAULT_PERIODS if default.get(field))
    return ObjectLockRule(str(default.get("Mode", "")), period)


def advances(marker: tuple[str, str], following: tuple[str, str]) -> bool:
    """Return whether a listing of versions continues after ``marker``. Ids of versions have no order."""
    (key, version), (next_key, next_version) = marker, following
    return next_key > key or (next_key == key != "" and next_version not in ("", version))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
