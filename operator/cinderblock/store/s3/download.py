"""Read the body of an object, and never more of it than was requested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cinderblock.errors import CinderblockError
from cinderblock.store.bandwidth import Throttle, no_throttle
from cinderblock.store.base import READ_LIMIT
from cinderblock.store.failures import forget_partial_answers
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import not_s3
from cinderblock.store.s3.codes import MEANINGS, Kind
from cinderblock.store.s3.connection import AnswerTooLong

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

SLICE_BYTES: Final = 64 * 1024
"""Bytes that are received at once if the bandwidth is limited, or if they are only skipped."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_UNSATISFIED_RANGE: Final = re.compile(r"bytes \*/(\d{1,19})")
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
"""Content types of web pages. Uploads name no type, so servers call objects binary."""
_UNCHANGED_ENCODINGS: Final = frozenset({"", "identity", "aws-chunked"})
"""Content encodings of objects as they were stored. Tools that copy objects leave the last one behind, which concerns
only the upload."""


class UnexpectedRange(Exception):
    """The server sent another range than the requested one."""


def range_header(start: int, length: int | None) -> str | None:
    """Return the Range header for a read; None: the whole object (RFC 9110, section 14.1.2)."""
    if start < 0:
        return f"bytes={start}"
    if length is None:
        return f"bytes={start}-" if start else None
    # A range cannot be empty. One byte shows at least whether the object exists.
    return f"bytes={start}-{start + max(length, 1) - 1}"


def check_origin(response: GetObjectOutputTypeDef, address: StoreAddress) -> None:
    """Check that an answer brings an object, unchanged, and shows where it ends.

    The bytes of a login page would look like a damaged backup. Closes the body and raises CinderblockError if not.
    """
    metadata = response["ResponseMetadata"]
    headers = metadata["HTTPHeaders"]
    status = metadata["HTTPStatusCode"]
    encoding = headers.get("content-encoding", "").strip().lower()
    error: CinderblockError | None = None
    if headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGE_TYPES:
        error = not_s3(address, "a web page for an object")
    elif status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        error = not_s3(address, f"status {status} for an object")
    elif encoding not in _UNCHANGED_ENCODINGS:
        error = _changed(address, encoding)
    elif "ETag" not in response:
        error = not_s3(address, "an object without ETag")
    elif status == HTTPStatus.OK and not _has_end(headers):
        error = not_s3(address, "an object without a length")
    if error is not None:
        response["Body"].close()
        raise error


def _changed(address: StoreAddress, encoding: str) -> CinderblockError:
    meaning = MEANINGS[Kind.IN_PROXY]
    detail = f"GetObject: Content-Encoding {address.redact(encoding)}"
    return meaning.error(f"{meaning.problem.format(address)}. {meaning.remedy} ({detail}).", reason=meaning.reason)


def _has_end(headers: Mapping[str, str]) -> bool:
    """Return whether a body shows where it ends. Otherwise a broken connection looks like its end."""
    return headers.get("content-length", "").isdecimal() or "chunked" in headers.get("transfer-encoding", "").lower()


def stated_size(response: Mapping[str, Any]) -> int | None:
    """Return the size of the object that an answer 416 states, in bytes; None: it states none.

    RFC 9110, section 14.4, has it in Content-Range; AWS, in the element ActualObjectSize.
    """
    match = _UNSATISFIED_RANGE.fullmatch(response["ResponseMetadata"]["HTTPHeaders"].get("content-range", ""))
    text = match[1] if match else str(response["Error"].get("ActualObjectSize", ""))
    return int(text) if text.isdecimal() and len(text) < 20 else None


def download(response: GetObjectOutputTypeDef, start: int, length: int | None, throttle: Throttle) -> bytes:
    """Return what ``ObjectStore.get`` must return.

    Servers may ignore a range and send the whole object (RFC 9110, section 14.2). The bytes before the range are then
    skipped, and those after it are not read.

    Args:
        response: of GetObject.
        start, length: of the call.
        throttle: limits the bandwidth.

    Raises UnexpectedRange, AnswerTooLong, and what botocore raises; IncompleteReadError if the body ends early.
    """
    with closing(response["Body"]) as body:
        reader = _Reader(body, throttle)
        if response["ResponseMetadata"]["HTTPStatusCode"] == 206:
            return _read_part(reader, response.get("ContentRange", ""), start, length)
        if start < 0:
            tail = reader.read_tail(-start)
            return tail if length is None else tail[:length]
        reader.skip(start)
        return reader.read_to_end() if length is None else reader.read(length)


def _read_part(reader: _Reader, content_range: str, start: int, length: int | None) -> bytes:
    match = _CONTENT_RANGE.fullmatch(content_range)
    if match is None:
        raise UnexpectedRange
    first, last = int(match[1]), int(match[2])
    # Without a size, the range itself must be right. It ends where the object ends, if it is shorter than requested.
    size = last + 1 if match[3] == "*" else int(match[3])
    requested = max(size + start, 0) if start < 0 else start
    end = size if length is None or start < 0 else min(start + max(length, 1), size)
    if (first, last + 1) != (requested, end):
        raise UnexpectedRange
    if length is not None and length < end - requested:  # the end of the object was requested, and then a part of it
        return reader.read(length)
    content = reader.read_to_end(end - requested)
    if len(content) != end - requested:
        raise UnexpectedRange
    return content


class _Reader:
    """Reads a body in pieces, and counts them."""

    def __init__(self, body: StreamingBody, throttle: Throttle) -> None:
        self._body = body
        self._throttle = throttle

    def _take(self, count: int) -> bytes:
        try:
            content: bytes = self._body.read(count)
        except Exception as error:
            forget_partial_answers(error)
            raise
        return content

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer at the end."""
        if self._throttle is no_throttle:
            return self._read_at_once(count)
        slices = []
        while count and (part := self._take(min(count, SLICE_BYTES))):
            self._throttle(len(part))
            slices.append(part)
            count -= len(part)
        return b"".join(slices)

    def _read_at_once(self, count: int) -> bytes:
        content = self._take(count) if count else b""
        if len(content) < count:
            slices = [content]
            missing = count - len(content)
            while missing and (part := self._take(missing)):
                slices.append(part)
                missing -= len(part)
            content = b"".join(slices)
        return content

    def read_to_end(self, limit: int = READ_LIMIT) -> bytes:
        """Return the rest. Raises AnswerTooLong if it has more than ``limit`` bytes."""
        content = self.read(limit)
        # This also compares what arrived with the announced length.
        if self._take(1):
            raise AnswerTooLong(f"more than the {limit} bytes that were requested")
        return content

    def skip(self, count: int) -> None:
        """Read ``count`` bytes, and hold only some of them at a time."""
        while count and (part := self._take(min(count, SLICE_BYTES))):
            self._throttle(len(part))
            count -= len(part)

    def read_tail(self, count: int) -> bytes:
        """Return the last ``count`` bytes, and hold no more than twice as many and a slice."""
        tail = bytearray()
        while part := self._take(SLICE_BYTES):
            self._throttle(len(part))
            tail += part
            if len(tail) > 2 * count:
                del tail[:-count]
        return bytes(tail[-count:])
