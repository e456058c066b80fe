"""Bodies that are not valid JSON are rejected before anything reads them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from cinderblock.errors import InvalidInput
from cinderblock.gateway.rest import body as rest_body


def make_request(body: bytes, content_type: str | None = "application/json", length: str | None = None) -> Request:
    headers = [(b"content-type", content_type.encode())] if content_type is not None else []
    headers += [(b"content-length", length.encode())] if length is not None else []
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)] or [b""]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}{}",
        b"\xff\xfe{\x00}\x00",
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a\\udc00": 1}',
        b"[" * 50_000,
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"1" * 5000,
        b"\x00",
    ],
)
def test_invalid_json_is_malformed(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^Malformed request body$"):
        rest_body.parse(body)


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/json; charset=utf-8", "APPLICATION/JSON"]
)
async def test_json_body_is_returned(content_type: str | None) -> None:
    assert await rest_body.read(make_request(b'{"a": 1}', content_type), 100, 1) == b'{"a": 1}'


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ";;", ""]
)
async def test_other_content_types_are_415(content_type: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        await rest_body.read(make_request(b"{}", content_type), 100, 1)
    assert raised.value.reason == "UnsupportedMediaType"


@pytest.mark.parametrize("length", [None, "5000", "9" * 40, "1"])
async def test_body_over_the_limit_is_413_whatever_its_content_length(length: str | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        await rest_body.read(make_request(b"x" * 5000, length=length), 4999, 1)
    assert raised.value.reason == "RequestTooLarge"
