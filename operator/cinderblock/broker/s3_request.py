"""Check one request to the S3 server before it is signed.

Everything is an allow-list: the place, the method with the parameters of its query, and the headers with their values.
The URL must be written in exactly the one way that botocore writes it, so that no server, proxy or library can read
another key in it than this module does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from cinderblock.api.broker import SignRequest
from cinderblock.api.v1alpha1.store import BackupStoreSpec
from cinderblock.broker.faults import not_granted
from cinderblock.lifecycle.grant import Grant
from cinderblock.store.s3.signers.signing import CONTENT_HASH

_PRINTABLE: Final = re.compile(r"[!-~]*")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?|")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_SHOWN_CHARACTERS: Final = 120
"""Characters of a mover's text in a message."""

_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9_~+=-][A-Za-z0-9._~+=-]{0,1023}")
"""An upload id is a directory on some servers: versitygw 1.8.0 removes and fills the directory of that name unchecked.
So it has no slash, and does not begin with a dot. AWS, MinIO, Ceph and SeaweedFS need no other characters."""

_PARTS: Final = re.compile(r"[/\\]")
"""The separators between the parts of a path, on whatever system the server runs."""

_PARAMETERS: Final[Mapping[str, re.Pattern[str]]] = {
    "continuation-token": re.compile(r"[ -~]{1,2048}"),
    "encoding-type": re.compile(r"url"),
    "list-type": re.compile(r"2"),
    "max-keys": _NUMBER,
    "max-uploads": _NUMBER,
    "partNumber": _NUMBER,
    "prefix": re.compile(r"[!-~]{1,1024}"),
    "start-after": re.compile(r"[ -~]{1,1024}"),
    "uploadId": _UPLOAD_ID,
    "uploads": re.compile(r""),
    "x-id": re.compile(r"[A-Za-z0-9]{1,40}"),
}
"""Parameters of a query, with the values that they may have."""

_LISTING: Final = frozenset({"list-type", "prefix", "max-keys", "continuation-token", "start-after", "encoding-type"})
_UPLOADS: Final = frozenset({"uploads", "prefix", "max-uploads", "encoding-type"})
_FORMS: Final[Mapping[str, tuple[tuple[frozenset[str], frozenset[str]], ...]]] = {
    "GET": ((frozenset(), frozenset()),),
    "HEAD": ((frozenset(), frozenset()),),
    "PUT": ((frozenset(), frozenset()), (frozenset({"partNumber", "uploadId"}),) * 2),
    "POST": ((frozenset({"uploads"}),) * 2, (frozenset({"uploadId"}),) * 2),
    "DELETE": ((frozenset(), frozenset()), (frozenset({"uploadId"}),) * 2),
}
"""For requests about an object: the parameters that a query must have, and those that it may have."""

_HEADERS: Final[Mapping[str, re.Pattern[str]]] = {
    "accept-encoding": re.compile(r"identity"),
    "amz-sdk-invocation-id": re.compile(r"[0-9a-fA-F-]{1,64}"),
    "amz-sdk-request": re.compile(r"[A-Za-z0-9=; .:+-]{1,128}"),
    "content-length": re.compile(r"[0-9]{1,13}"),
    "content-md5": re.compile(r"[A-Za-z0-9+/]{22}=="),
    "content-type": re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}"),
    "if-none-match": re.compile(r"\*"),
    "range": re.compile(r"bytes=([0-9]{1,13}-[0-9]{0,13}|-[0-9]{1,13})"),
    "x-amz-checksum-algorithm": re.compile(r"SHA256"),
    "x-amz-checksum-mode": re.compile(r"ENABLED"),
    "x-amz-checksum-sha256": re.compile(r"[A-Za-z0-9+/]{43}=(-[0-9]{1,5})?"),
    "x-amz-checksum-type": re.compile(r"COMPOSITE|FULL_OBJECT"),
    CONTENT_HASH: _HASH,
    "x-amz-sdk-checksum-algorithm": re.compile(r"SHA256"),
}
"""Headers that a signature may cover, with the values that they may have."""
_NEVER_SIGNED: Final = frozenset({"expect", "user-agent"})
"""Headers that no signature covers (botocore leaves them out), so it does not matter what a mover sends."""


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that the grant permits.

    Attributes:
        method: of the request.
        url: of the request.
        headers: those that the signature covers, by lower-case name.
    """

    method: str
    url: str
    headers: Mapping[str, str]


def check_request(request: SignRequest, container_url: str, spec: BackupStoreSpec, grant: Grant) -> CheckedRequest:
    """Check a request, and return what is to be signed.

    Args:
        request: what the mover asks for.
        container_url: URL of the bucket, without a slash at its end.
        spec: the settings of the store, whose storage class and encryption uploads may name.
        grant: what the mover may do.

    Raises AccessDenied (NotGranted), naming what is not permitted.
    """
    key, query = _split(request.url, container_url)
    parameters = _parse_query(query)
    parameters.pop("x-id", None)
    is_permitted = (
        _permits_object(request.method, key, parameters, grant)
        if key
        else _permits_listing(request.method, parameters, grant)
    )
    if not is_permitted:
        raise not_granted(f"The operation does not permit {request.method} {_shown(key or query)}.")
    return CheckedRequest(request.method, request.url, _check_headers(request, container_url, spec))


def _split(url: str, container_url: str) -> tuple[str, str]:
    """Return key and query of a URL in the bucket. The key is empty for the bucket itself."""
    if not _PRINTABLE.fullmatch(url) or any(character in url for character in "#\\"):
        raise not_granted("The URL has characters that must be percent-encoded.")
    target, mark, query = url.partition("?")
    if mark and not query:
        raise not_granted("The URL has an empty query.")
    if target != container_url and not target.startswith(f"{container_url}/"):
        raise not_granted(f"The URL is not one of the bucket of the store: {_shown(target)}.")
    encoded = target[len(container_url) + 1 :]
    key = _decode(encoded, safe="/~")
    if encoded and {"", ".", ".."} & set(key.split("/")):
        raise not_granted(f"The path of the URL has an empty part, or a part of dots: {_shown(encoded)}.")
    return key, query


def _decode(encoded: str, safe: str) -> str:
    """Return the text that is percent-encoded. Raises AccessDenied unless it is written in the only canonical way."""
    try:
        decoded = unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise not_granted("The URL is not UTF-8.") from None
    if quote(decoded, safe=safe) != encoded or not _HEADER_VALUE.fullmatch(decoded):
        raise not_granted(f"The URL is not written canonically (RFC 3986, section 6.2.2): {_shown(encoded)}.")
    return decoded


def _parse_query(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, encoded = pair.partition("=")
        allowed = _PARAMETERS.get(name)
        if allowed is None or name in parameters:
            raise not_granted(f"The parameter {_shown(name)} of the URL is not permitted, or not twice.")
        value = _decode(encoded, safe="")
        if not allowed.fullmatch(value) or {".", ".."} & set(_PARTS.split(value)):
            raise not_granted(f"The parameter {name} of the URL has a value that is not permitted.")
        parameters[name] = value
    return parameters


def _permits_object(method: str, key: str, parameters: Mapping[str, str], grant: Grant) -> bool:
    names = parameters.keys()
    has_known_form = any(needed <= names <= allowed for needed, allowed in _FORMS[method])
    return has_known_form and grant.permits(method, key)


def _permits_listing(method: str, parameters: Mapping[str, str], grant: Grant) -> bool:
    names, prefix = parameters.keys(), parameters.get("prefix", "")
    if method != "GET":
        return False
    if "uploads" in names:
        return names <= _UPLOADS and grant.permits_uploads(prefix)
    max_keys = parameters.get("max-keys")
    is_listing = "list-type" in names and names <= _LISTING
    return is_listing and grant.permits_listing(prefix, int(max_keys) if max_keys is not None else None)


def _check_headers(request: SignRequest, container_url: str, spec: BackupStoreSpec) -> dict[str, str]:
    """Return the headers that the signature covers, by lower-case name."""
    fixed = _fixed_headers(container_url, spec)
    checked: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in checked:
            raise not_granted(f"The header {_shown(lower)} is given twice.")
        if lower in _NEVER_SIGNED:
            continue
        allowed = _HEADERS.get(lower)
        is_allowed = value == fixed[lower] if lower in fixed else allowed is not None and allowed.fullmatch(value)
        if not is_allowed or not _HEADER_VALUE.fullmatch(value):
            raise not_granted(f"The header {_shown(lower)} is not permitted, or not with this value.")
        checked[lower] = value
    if CONTENT_HASH not in checked:
        raise not_granted(f"The header {CONTENT_HASH} is missing: the signature must cover the body.")
    return checked


def _fixed_headers(container_url: str, spec: BackupStoreSpec) -> dict[str, str]:
    """Return the headers that may have one value only: that of the settings of the store."""
    fixed = {"host": container_url.partition("://")[2].partition("/")[0]}
    if spec.storage_class is not None:
        fixed["x-amz-storage-class"] = spec.storage_class
    encryption = spec.server_side_encryption
    if encryption is not None:
        fixed["x-amz-server-side-encryption"] = encryption.algorithm.value
        if encryption.kms_key_id is not None:
            fixed["x-amz-server-side-encryption-aws-kms-key-id"] = encryption.kms_key_id
    return fixed


def _shown(text: str) -> str:
    """Return a mover's text for a message."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…")
