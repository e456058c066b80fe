"""The answers of the server: one function for each request of the S3 API that the store or the tests send."""

from __future__ import annotations

import hashlib
import itertools
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.support.store.aws.bucket import Bucket, Refusal, Version

PAGE: Final = 1000
MAX_KEYS: Final = 1000
CHECKSUM_TEXT: Final = (
    "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
)
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_uploads = itertools.count(1)


@dataclass(frozen=True)
class Request:
    """A request as it arrived. Names of headers are in lower case."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def permission(self) -> str:
        """The permission that the request needs on AWS."""
        if "versionId" in self.query and self.name in VERSION_PERMISSIONS:
            return f"s3:{VERSION_PERMISSIONS[self.name]}"
        return f"s3:{PERMISSIONS.get(self.name, self.name)}"

    @property
    def name(self) -> str:
        """The name of the operation in the S3 API."""
        level = "object" if self.key else "bucket"
        # Probes of signatures send this header unsigned and without a version. AWS refuses that; here it is ignored.
        if (self.method, level) == ("PUT", "object") and "?versionId=" in self.headers.get("x-amz-copy-source", ""):
            return "CopyObject"
        for method, where, parameter, name in OPERATIONS:
            if (method, where) == (self.method, level) and (not parameter or parameter in self.query):
                return name
        raise Refusal(405, "MethodNotAllowed")


OPERATIONS: Final = (
    ("GET", "bucket", "versioning", "GetBucketVersioning"),
    ("GET", "bucket", "object-lock", "GetObjectLockConfiguration"),
    ("GET", "bucket", "lifecycle", "GetBucketLifecycleConfiguration"),
    ("GET", "bucket", "versions", "ListObjectVersions"),
    ("GET", "bucket", "uploads", "ListMultipartUploads"),
    ("GET", "bucket", "", "ListObjectsV2"),
    ("PUT", "bucket", "", "CreateBucket"),
    ("POST", "bucket", "delete", "DeleteObjects"),
    ("PUT", "object", "retention", "PutObjectRetention"),
    ("PUT", "object", "legal-hold", "PutObjectLegalHold"),
    ("PUT", "object", "uploadId", "UploadPart"),
    ("PUT", "object", "", "PutObject"),
    ("POST", "object", "uploads", "CreateMultipartUpload"),
    ("POST", "object", "uploadId", "CompleteMultipartUpload"),
    ("DELETE", "object", "uploadId", "AbortMultipartUpload"),
    ("DELETE", "object", "", "DeleteObject"),
    ("GET", "object", "retention", "GetObjectRetention"),
    ("GET", "object", "", "GetObject"),
    ("HEAD", "object", "", "HeadObject"),
)
"""Method, level, query parameter and name of each operation. The first that fits counts."""
PERMISSIONS: Final = {
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "DeleteObjects": "DeleteObject",
    "HeadObject": "GetObject",
    "UploadPart": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
}
"""Permissions that are not named like their operation."""
VERSION_PERMISSIONS: Final = {
    "DeleteObject": "DeleteObjectVersion",
    "GetObject": "GetObjectVersion",
    "HeadObject": "GetObjectVersion",
}
"""Permissions of operations that name a version."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(error: Refusal) -> Answer:
    """Return the response for an error."""
    body = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
    return Answer(error.status, body.encode(), {name.replace("_", "-"): value for name, value in error.headers.items()})


def answer(buckets: dict[str, Bucket], request: Request, add_bucket: Callable[..., Bucket]) -> Answer:
    """Return the response to a request. Raises Refusal."""
    if request.name == "CreateBucket":
        if request.bucket in buckets:
            raise Refusal(409, "BucketAlreadyOwnedByYou")
        add_bucket(request.bucket, lock=request.headers.get("x-amz-bucket-object-lock-enabled") == "true")
        return Answer()
    if request.bucket not in buckets:
        raise Refusal(404, "NoSuchBucket")
    return ANSWERS[request.name](buckets[request.bucket], request)


def _versioning(bucket: Bucket, _: Request) -> Answer:
    status = f"<Status>{bucket.versioning}</Status>" if bucket.versioning else ""
    return _xml("VersioningConfiguration", status)


def _object_lock(bucket: Bucket, _: Request) -> Answer:
    if not bucket.has_lock:
        raise Refusal(404, "ObjectLockConfigurationNotFoundError")
    rule = ""
    if bucket.default is not None:
        mode, period = bucket.default
        rule = f"<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{period.days}</Days></DefaultRetention></Rule>"
    return _xml("ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}")


def _lifecycle(bucket: Bucket, _: Request) -> Answer:
    if not bucket.lifecycle:
        raise Refusal(404, "NoSuchLifecycleConfiguration")
    return _xml("LifecycleConfiguration", bucket.lifecycle)


def _list_objects(bucket: Bucket, request: Request) -> Answer:
    after = request.query.get("continuation-token", "")
    size = int(request.query.get("max-keys", PAGE))
    found = [item for item in bucket.listed(request.query.get("prefix", "")) if item[0] > after]
    page, more = found[:size], len(found) > size
    rows = "".join(
        f"<Contents><Key>{_encoded(key, request)}</Key><Size>{len(version.body or b'')}</Size></Contents>"
        for key, version in page
    )
    token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
    encoding = "<EncodingType>url</EncodingType>" if "encoding-type" in request.query else ""
    return _xml("ListBucketResult", f"<IsTruncated>{_bool(more)}</IsTruncated>{encoding}{token}{rows}")


def _list_versions(bucket: Bucket, request: Request) -> Answer:
    prefix, after = request.query.get("prefix", ""), request.query.get("key-marker", "")
    after_id = request.query.get("version-id-marker", "")
    every = [
        (key, version, version is versions[-1])
        for key, versions in sorted(bucket.versions.items())
        if key.startswith(prefix)
        for version in reversed(versions)
    ]
    start = next((i + 1 for i, (key, version, _) in enumerate(every) if (key, version.id) == (after, after_id)), 0)
    page, more = every[start : start + PAGE], len(every) > start + PAGE
    rows = "".join(_version_row(key, version, is_latest, request) for key, version, is_latest in page)
    marker = ""
    if more:
        key, version, _ = page[-1]
        marker = f"<NextKeyMarker>{_encoded(key, request)}</NextKeyMarker>"
        marker += f"<NextVersionIdMarker>{version.id}</NextVersionIdMarker>"
    encoding = "<EncodingType>url</EncodingType>" if "encoding-type" in request.query else ""
    return _xml("ListVersionsResult", f"<IsTruncated>{_bool(more)}</IsTruncated>{encoding}{marker}{rows}")


def _version_row(key: str, version: Version, is_latest: bool, request: Request) -> str:
    name = "DeleteMarker" if version.is_marker else "Version"
    size = "" if version.body is None else f"<Size>{len(version.body)}</Size><ETag>{escape(_etag(version.body))}</ETag>"
    return (
        f"<{name}><Key>{_encoded(key, request)}</Key><VersionId>{version.id}</VersionId>"
        f"<IsLatest>{_bool(is_latest)}</IsLatest>"
        f"<LastModified>{version.written:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>{size}</{name}>"
    )


def _list_uploads(bucket: Bucket, request: Request) -> Answer:
    prefix = request.query.get("prefix", "")
    found = [(upload, key) for upload, (key, _) in bucket.uploads.items() if key.startswith(prefix)]
    rows = "".join(
        f"<Upload><Key>{_encoded(key, request)}</Key><UploadId>{upload}</UploadId></Upload>" for upload, key in found
    )
    return _xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{rows}")


def _put(bucket: Bucket, request: Request) -> Answer:
    lock = _lock_of(request)
    if lock is not None and not bucket.has_lock:
        raise Refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
    _verify_checksum(bucket, request, is_locked=lock is not None)
    if request.headers.get("if-none-match") == "*" and bucket.current(request.key) is not None:
        raise Refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    version = bucket.put(request.key, request.body, lock)
    return Answer(headers={"ETag": _etag(request.body), **_version_header(bucket, version)})


def _copy(bucket: Bucket, request: Request) -> Answer:
    source, _, version_id = request.headers["x-amz-copy-source"].partition("?versionId=")
    key = unquote(source).removeprefix("/").partition("/")[2]
    version = bucket.find(key, version_id)
    if version is None or version.is_marker:
        raise Refusal(404, "NoSuchVersion")
    lock = _lock_of(request)
    if lock is not None and not bucket.has_lock:
        raise Refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
    body = version.body or b""
    made = bucket.put(request.key, body, lock)
    answer = _xml("CopyObjectResult", f"<ETag>{escape(_etag(body))}</ETag>")
    return Answer(200, answer.body, _version_header(bucket, made))


def _get(bucket: Bucket, request: Request) -> Answer:
    version = _requested(bucket, request)
    body = version.body or b""
    headers = {"ETag": _etag(body), "Last-Modified": _http_date(version.written)}
    headers |= _version_header(bucket, version) | _lock_headers(version)
    span = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if span is None:
        return Answer(200, body, headers | {"Content-Length": str(len(body))})
    first, last = span.groups()
    start = int(first) if first else max(len(body) - int(last), 0)
    end = min(int(last) + 1, len(body)) if first and last else len(body)
    if start >= len(body):
        raise Refusal(416, "InvalidRange")
    return Answer(206, body[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}"})


def _requested(bucket: Bucket, request: Request) -> Version:
    version_id = request.query.get("versionId")
    if version_id is not None:
        version = bucket.find(request.key, version_id)
        if version is None:
            raise Refusal(404, "NoSuchVersion")
        if version.is_marker:
            raise Refusal(405, "MethodNotAllowed", x_amz_delete_marker="true")
        return version
    version = bucket.current(request.key)
    if version is None:
        raise Refusal(404, "NoSuchKey")
    if version.is_marker:
        raise Refusal(404, "NoSuchKey", x_amz_delete_marker="true", x_amz_version_id=version.id)
    return version


def _delete(bucket: Bucket, request: Request) -> Answer:
    marker = _delete_one(bucket, request, request.key, request.query.get("versionId"))
    headers = {} if marker is None else {"x-amz-delete-marker": "true", "x-amz-version-id": marker.id}
    return Answer(204, headers=headers)


def _delete_one(bucket: Bucket, request: Request, key: str, version_id: str | None) -> Version | None:
    if version_id is None:
        return bucket.delete(key)
    bypass = request.headers.get("x-amz-bypass-governance-retention") == "true"
    return bucket.delete_version(key, version_id, bypass=bypass)


def _delete_many(bucket: Bucket, request: Request) -> Answer:
    if "content-md5" not in request.headers and not _checksum_headers(request):
        raise Refusal(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
    root = ET.fromstring(request.body)
    objects = [
        (item.findtext(_tag("Key")) or "", item.findtext(_tag("VersionId"))) for item in root.iter(_tag("Object"))
    ]
    if not 1 <= len(objects) <= MAX_KEYS:
        raise Refusal(400, "MalformedXML")
    is_quiet = root.findtext(_tag("Quiet")) == "true"
    rows = [_deleted_row(bucket, request, key, version_id) for key, version_id in objects]
    return _xml("DeleteResult", "".join(row for row in rows if not is_quiet or row.startswith("<Error>")))


def _deleted_row(bucket: Bucket, request: Request, key: str, version_id: str | None) -> str:
    named = f"<VersionId>{version_id}</VersionId>" if version_id else ""
    try:
        marker = _delete_one(bucket, request, key, version_id)
    except Refusal as error:
        text = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        return f"<Error><Key>{escape(key)}</Key>{named}{text}</Error>"
    made = "<DeleteMarker>true</DeleteMarker>" if marker is not None else ""
    made += f"<DeleteMarkerVersionId>{marker.id}</DeleteMarkerVersionId>" if marker is not None else ""
    return f"<Deleted><Key>{escape(key)}</Key>{named}{made}</Deleted>"


def _put_retention(bucket: Bucket, request: Request) -> Answer:
    version = _requested(bucket, request)
    root = ET.fromstring(request.body)
    until = datetime.fromisoformat(root.findtext(_tag("RetainUntilDate")) or "")
    bypass = request.headers.get("x-amz-bypass-governance-retention") == "true"
    if not bucket.has_lock:
        raise Refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
    bucket.set_lock(version, root.findtext(_tag("Mode")) or "", until, bypass=bypass)
    return Answer()


def _get_retention(bucket: Bucket, request: Request) -> Answer:
    version = _requested(bucket, request)
    if not bucket.has_lock:
        raise Refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
    if version.until is None:
        raise Refusal(404, "NoSuchObjectLockConfiguration")
    until = f"<RetainUntilDate>{version.until:%Y-%m-%dT%H:%M:%S.000Z}</RetainUntilDate>"
    return _xml("Retention", f"<Mode>{version.mode}</Mode>{until}")


def _put_legal_hold(bucket: Bucket, request: Request) -> Answer:
    version = _requested(bucket, request)
    version.legal_hold = ET.fromstring(request.body).findtext(_tag("Status")) == "ON"
    return Answer()


def _create_upload(bucket: Bucket, request: Request) -> Answer:
    upload, lock = f"u{next(_uploads)}", _lock_of(request)
    if lock is not None and not bucket.has_lock:
        raise Refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration")
    bucket.uploads[upload] = (request.key, {})
    bucket.upload_locks[upload] = lock
    return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")


def _upload_part(bucket: Bucket, request: Request) -> Answer:
    _verify_checksum(bucket, request, is_locked=bucket.upload_locks[request.query["uploadId"]] is not None)
    bucket.uploads[request.query["uploadId"]][1][int(request.query["partNumber"])] = request.body
    return Answer(headers={"ETag": _etag(request.body)})


def _complete_upload(bucket: Bucket, request: Request) -> Answer:
    key, parts = bucket.uploads.pop(request.query["uploadId"])
    lock = bucket.upload_locks.pop(request.query["uploadId"])
    bucket.put(key, b"".join(parts[number] for number in sorted(parts)), lock)
    return _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>")


def _abort_upload(bucket: Bucket, request: Request) -> Answer:
    bucket.uploads.pop(request.query["uploadId"], None)
    return Answer(204)


ANSWERS: Final[dict[str, Callable[[Bucket, Request], Answer]]] = {
    "GetBucketVersioning": _versioning,
    "GetObjectLockConfiguration": _object_lock,
    "GetBucketLifecycleConfiguration": _lifecycle,
    "ListObjectsV2": _list_objects,
    "ListObjectVersions": _list_versions,
    "ListMultipartUploads": _list_uploads,
    "PutObject": _put,
    "CopyObject": _copy,
    "GetObject": _get,
    "HeadObject": _get,
    "DeleteObject": _delete,
    "DeleteObjects": _delete_many,
    "GetObjectRetention": _get_retention,
    "PutObjectRetention": _put_retention,
    "PutObjectLegalHold": _put_legal_hold,
    "CreateMultipartUpload": _create_upload,
    "UploadPart": _upload_part,
    "CompleteMultipartUpload": _complete_upload,
    "AbortMultipartUpload": _abort_upload,
}


def _verify_checksum(bucket: Bucket, request: Request, *, is_locked: bool) -> None:
    """Demand a checksum for an object that will be locked (S3 API: PutObject, Content-MD5), and compare it."""
    given = request.headers.get("content-md5")
    if (is_locked or bucket.default is not None) and given is None and not _checksum_headers(request):
        raise Refusal(400, "InvalidRequest", CHECKSUM_TEXT)
    if given is not None and given != b64encode(hashlib.md5(request.body).digest()).decode():
        raise Refusal(400, "BadDigest")


def _checksum_headers(request: Request) -> list[str]:
    return [name for name in request.headers if re.fullmatch(r"x-amz-checksum-(crc|sha)\w+", name)]


def _lock_of(request: Request) -> Version | None:
    mode, until = (request.headers.get(f"x-amz-object-lock-{name}") for name in ("mode", "retain-until-date"))
    hold = request.headers.get("x-amz-object-lock-legal-hold")
    if mode is None and hold is None:
        return None
    parsed = datetime.fromisoformat(until) if until else None
    return Version("", b"", datetime.now(UTC), mode or "", parsed, hold == "ON")


def _lock_headers(version: Version) -> dict[str, str]:
    headers = {}
    if version.until is not None:
        headers["x-amz-object-lock-mode"] = version.mode
        headers["x-amz-object-lock-retain-until-date"] = f"{version.until:%Y-%m-%dT%H:%M:%S.000Z}"
    if version.legal_hold:
        headers["x-amz-object-lock-legal-hold"] = "ON"
    return headers


def _version_header(bucket: Bucket, version: Version) -> dict[str, str]:
    return {"x-amz-version-id": version.id} if bucket.versioning else {}


def _xml(root: str, *parts: str) -> Answer:
    return Answer(200, f'<{root} xmlns="{NAMESPACE}">{"".join(parts)}</{root}>'.encode())


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _encoded(key: str, request: Request) -> str:
    return quote(key) if request.query.get("encoding-type") == "url" else escape(key)


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _http_date(time: datetime) -> str:
    return format_datetime(time.replace(microsecond=0), usegmt=True) if time.tzinfo else ""
