"""Send requests that somebody with the token of a mover could send, and print the answers. It runs in a pod.

    python3 intruder.py < ORDER.json

It needs the standard library only. The order is ``{"broker": {"url", "caCertificate"}, "token", "attempts"}``. Each
attempt has a ``name`` and may have:

    method, url, headers, body    the request; the broker signs it first, unless ``unsigned`` is true
    ask                           path at the broker that gets ``body`` instead of a request to sign
    sendUrl, addHeaders           what is sent instead of, or besides, what was signed
    bearer                        whether to show the token to the other server as well
    token, tokenFile              another token

The result is a JSON list of ``{"name", "broker", "reason", "status", "bytes"}``: the status of the broker's answer and
its reason, the status of the other server's answer, and the length of its body. A field is null if nothing was sent.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECONDS = 20.0
"""Limit of one request."""


def main() -> None:
    """Carry out the order on standard input."""
    order = json.load(sys.stdin)
    json.dump([attempt(order, wanted) for wanted in order["attempts"]], sys.stdout)


def attempt(order: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Carry out one attempt, and return its result."""
    found: dict[str, Any] = {"name": wanted["name"], "broker": None, "reason": None, "status": None, "bytes": None}
    token = Path(wanted["tokenFile"]).read_text() if "tokenFile" in wanted else wanted.get("token", order["token"])
    if "ask" in wanted:
        _ask(order["broker"], token, wanted["ask"], wanted["body"], found)
        return found
    body = wanted.get("body", "").encode()
    headers = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest(), **wanted.get("headers", {})}
    if not wanted.get("unsigned"):
        request = {"method": wanted["method"], "url": wanted["url"], "headers": headers}
        answer = _ask(order["broker"], token, "/v1/sign", request, found)
        if answer is None:
            return found
        # A name that is written in two ways would be sent twice.
        headers |= {name.lower(): value for name, value in answer["headers"].items()}
    headers |= wanted.get("addHeaders", {})
    if wanted.get("bearer"):
        headers["Authorization"] = f"Bearer {token.strip()}"
    status, content = _send(wanted["method"], wanted.get("sendUrl", wanted["url"]), headers, body)
    return found | {"status": status, "bytes": len(content)}


def _ask(
    broker: dict[str, str], token: str, path: str, body: dict[str, Any], found: dict[str, Any]
) -> dict[str, Any] | None:
    """Ask the broker, note its answer in ``found``, and return it if it is a success."""
    headers = {"Authorization": f"Bearer {token.strip()}", "Content-Type": "application/json"}
    status, content = _send("POST", broker["url"] + path, headers, json.dumps(body).encode(), broker["caCertificate"])
    answer: dict[str, Any] = json.loads(content)
    found |= {"broker": status, "reason": answer.get("reason")}
    return answer if status == 200 else None


def _send(
    method: str, url: str, headers: dict[str, str], body: bytes, authority: str | None = None
) -> tuple[int, bytes]:
    """Send a request with exactly this path, and return status and body of the answer.

    Only the certificate of the broker is checked: a server that refuses is as good with any other.
    """
    place = urlsplit(url)
    host = place.hostname or ""
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        context = ssl.create_default_context(cadata=authority) if authority else ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, place.port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, place.port, timeout=SECONDS)
    try:
        connection.request(method, url[len(f"{place.scheme}://{place.netloc}") :] or "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


if __name__ == "__main__":
    main()
