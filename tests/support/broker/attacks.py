"""Attempts of somebody with the token of one tenant's mover: requests to sign, and raw bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from cinderblock.api.broker import CREDENTIALS_PATH, NEW_DATA_KEY_PATH, SIGN_PATH, UNWRAP_PATH

PACK = "0123456789abcdef0123456789abcdef-000000"
"""Name of a pack."""
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


@dataclass(frozen=True)
class Attempt:
    """A request that the broker must not sign.

    Attributes:
        name: what it tries.
        method, url, headers: of the request to sign.
    """

    name: str
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where the attacker is, and whom they attack.

    Attributes:
        bucket: URL of the bucket.
        mine, theirs: prefixes of the two namespaces.
        volume: the volume of the attacker's operation.
        backup: the backup of the attacker's operation.
        victim: a backup of the victim.
    """

    bucket: str
    mine: str
    theirs: str
    volume: str
    backup: str
    victim: str

    @property
    def own(self) -> str:
        """URL of an own pack."""
        return f"{self.bucket}/{self.mine}/packs/{self.volume}/{self.backup}/{PACK}"

    @property
    def key(self) -> str:
        """Key of a pack of the victim."""
        return f"{self.theirs}/packs/{self.volume}/{self.victim}/{PACK}"


def requests_to_sign(target: Target) -> list[Attempt]:
    """Return all attempts to get a signature."""
    return [
        *_objects_of_others(target),
        *_own_objects_beyond_the_grant(target),
        *_paths(target),
        *_queries(target),
        *_listings(target),
        *_places(target),
        *_headers(target),
    ]


def _objects_of_others(target: Target) -> Iterator[Attempt]:
    keys = (
        target.key,
        f"{target.theirs}/packs/{target.volume}/{target.victim}/data-key",
        f"{target.theirs}/packs/{target.volume}/{target.backup}/{PACK}",
        f"{target.theirs}/backups/{target.volume}/{target.victim}.manifest",
        f"{target.theirs}/backups/{target.volume}/{target.backup}.manifest",
        f"{target.theirs}/",
    )
    for key in keys:
        for method in METHODS:
            yield Attempt("object of another namespace", method, f"{target.bucket}/{key}")
    for query in ("uploads", "uploadId=u", "partNumber=1&uploadId=u"):
        for method in ("POST", "PUT", "DELETE"):
            yield Attempt("upload into another namespace", method, f"{target.bucket}/{target.key}?{query}")


def _own_objects_beyond_the_grant(target: Target) -> Iterator[Attempt]:
    other = "00000000-0000-4000-8000-000000000000"
    for method in ("PUT", "POST", "DELETE"):
        yield Attempt("other backup", method, f"{target.bucket}/{target.mine}/packs/{target.volume}/{other}/{PACK}")
        yield Attempt(
            "other manifest", method, f"{target.bucket}/{target.mine}/backups/{target.volume}/{other}.manifest"
        )
    for method in METHODS:
        yield Attempt("other volume", method, f"{target.bucket}/{target.mine}/packs/{other}/{target.backup}/{PACK}")
        yield Attempt("root of the prefix", method, f"{target.bucket}/{target.mine}/file")
        yield Attempt("bucket", method, target.bucket)
        yield Attempt("bucket with a slash", method, f"{target.bucket}/")
    yield Attempt("deeper than packs are", "PUT", f"{target.own}/deeper")
    yield Attempt("directory", "PUT", f"{target.bucket}/{target.mine}/packs/{target.volume}/{target.backup}/")
    yield Attempt("hidden file", "PUT", f"{target.bucket}/{target.mine}/packs/{target.volume}/{target.backup}/.x")


def _paths(target: Target) -> Iterator[Attempt]:
    own = f"{target.bucket}/{target.mine}/packs/{target.volume}/{target.backup}"
    up = "/".join([".."] * (target.mine.count("/") + 4))
    for dots in (
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%25%32%65%25%32%65",
        "..%00",
        "%c0%ae%c0%ae",
        "..;",
    ):
        climb = up.replace("..", dots)
        yield Attempt(f"climb by {dots}", "GET", f"{own}/{climb}/{target.key}")
        yield Attempt(
            f"climb by {dots} with encoded slashes",
            "GET",
            f"{own}/{climb.replace('/', '%2F')}%2F{quote(target.key, safe='')}",
        )
    for slash in ("%2F", "%2f", "%252F", "%5C", "\\", "//", "/./", "%EF%BC%8F"):
        yield Attempt(f"slash as {slash}", "PUT", target.own.replace(f"/{PACK}", f"{slash}{PACK}"))
    for ending in (
        "%00",
        "%0A",
        "%0D%0A",
        "%20",
        "%7F",
        " ",
        "\t",
        "\n",
        "#",
        "#x",
        ";a=b",
        "%",
        "%zz",
        "%3F",
        "?",
        "&",
        "é",
    ):
        yield Attempt(f"ending {ending!r}", "PUT", f"{target.own}{ending}")
    yield Attempt("letter that needs no encoding", "PUT", target.own.replace("-000000", "-00000%30"))
    yield Attempt("other case of the key", "PUT", target.own.replace("/packs/", "/PACKS/"))
    yield Attempt("key after two slashes", "GET", target.own.replace(target.mine, f"/{target.mine}"))


def _queries(target: Target) -> Iterator[Attempt]:
    names = (
        *("versionId=1", "versionId=null", "acl", "tagging", "retention", "legal-hold", "torrent", "restore", "select"),
        *("attributes", "delete", "policy", "cors", "lifecycle", "location", "versioning", "versions", "replication"),
        *("logging", "encryption", "object-lock", "publicAccessBlock", "ownershipControls", "website", "notification"),
        *("X-Amz-Signature=x", "X-Amz-Credential=x", "x-amz-acl=public-read", "x-amz-copy-source=%2Fbucket%2Fx"),
        *(
            "response-content-type=text%2Fhtml",
            "uploadId=u&uploads",
            "partNumber=1",
            "x-id=a&x-id=b",
            "%75ploads",
            "prefix=x",
        ),
    )
    for name in names:
        for method in ("GET", "PUT", "POST", "DELETE"):
            if name == "delete" or method != "POST" or "=" not in name:
                yield Attempt(f"query {name}", method, f"{target.own}?{name}")
    yield from _climbing_queries(target)
    yield Attempt("batch deletion", "POST", f"{target.bucket}?delete")
    yield Attempt("batch deletion with a slash", "POST", f"{target.bucket}/?delete")
    yield Attempt("form upload", "POST", target.bucket)


def _climbing_queries(target: Target) -> Iterator[Attempt]:
    """Yield paths as values of each parameter. versitygw 1.8.0 follows those in uploadId."""
    packs = quote(f"{target.mine}/packs/{target.volume}/", safe="")
    for climb in (f"../../../{target.key}", "..", ".", "../../bucket", f"x/../../{target.key}", "\\..\\x"):
        for value in (quote(climb, safe=""), climb, quote(quote(climb, safe=""), safe="")):
            yield Attempt("abort by a path", "DELETE", f"{target.own}?uploadId={value}")
            yield Attempt("completion by a path", "POST", f"{target.own}?uploadId={value}")
            yield Attempt("part by a path", "PUT", f"{target.own}?partNumber=7&uploadId={value}")
            yield Attempt("number by a path", "PUT", f"{target.own}?partNumber={value}&uploadId=u")
            yield Attempt("operation by a path", "PUT", f"{target.own}?x-id={value}")
            for name in ("max-keys", "encoding-type", "list-type", "prefix"):
                query = {"list-type": "2", "prefix": packs} | {name: value}
                pairs = "&".join(f"{key}={shown}" for key, shown in query.items())
                yield Attempt(f"listing by a path in {name}", "GET", f"{target.bucket}?{pairs}")
        for name in ("start-after", "continuation-token"):
            pairs = f"list-type=2&prefix={packs}&{name}={quote(climb, safe='')}"
            yield Attempt(f"listing by a path in {name}", "GET", f"{target.bucket}?{pairs}")


def _listings(target: Target) -> Iterator[Attempt]:
    prefixes = ("", target.theirs, f"{target.theirs}/", f"{target.theirs}/packs/{target.volume}/", target.mine)
    for prefix in (
        *prefixes,
        f"{target.mine}/packs/",
        target.mine.rpartition("/")[0],
        "prefix/",
        f"{target.mine}/packs/{target.volume}",
    ):
        encoded = quote(prefix, safe="")
        yield Attempt("listing", "GET", f"{target.bucket}?list-type=2&prefix={encoded}")
        yield Attempt("short listing", "GET", f"{target.bucket}?list-type=2&max-keys=1&prefix={encoded}")
        yield Attempt("uploads", "GET", f"{target.bucket}?uploads&prefix={encoded}")
    for tail in ("..", f"../../../../../{target.theirs}/", "./x", "x/../../"):
        climb = quote(f"{target.mine}/packs/{target.volume}/{tail}", safe="")
        yield Attempt("listing by a path", "GET", f"{target.bucket}?list-type=2&prefix={climb}")
        yield Attempt("uploads by a path", "GET", f"{target.bucket}?uploads&prefix={climb}")
    packs = quote(f"{target.mine}/packs/{target.volume}/", safe="")
    yield Attempt("two prefixes", "GET", f"{target.bucket}?list-type=2&prefix={packs}&prefix=")
    yield Attempt("old listing", "GET", f"{target.bucket}?prefix={packs}")
    yield Attempt("listing of versions", "GET", f"{target.bucket}?versions&prefix={packs}")
    yield Attempt(
        "all keys of the namespace", "GET", f"{target.bucket}?list-type=2&prefix={quote(target.mine + '/', safe='')}"
    )


def _places(target: Target) -> Iterator[Attempt]:
    parts = urlsplit(target.bucket)
    path = f"/bucket/{target.mine}/packs/{target.volume}/{target.backup}/{PACK}"
    hosts = (
        *("127.0.0.1", "localhost", f"localhost:{parts.port}", "169.254.169.254", "evil.example.com", "127.0.0.1:1"),
        *(
            f"user@{parts.netloc}",
            f"{parts.netloc}@evil.example.com",
            f"{parts.netloc}.evil.example.com",
            f"{parts.netloc}0",
        ),
        *(
            f"[::ffff:127.0.0.1]:{parts.port}",
            f"2130706433:{parts.port}",
            f"0x7f.1:{parts.port}",
            f"evil.example.com/{parts.netloc}",
        ),
    )
    for host in hosts:
        yield Attempt(f"host {host}", "GET", f"http://{host}{path}")
    for scheme in ("https", "HTTP", "ftp", "file", ""):
        yield Attempt(f"scheme {scheme}", "GET", f"{scheme}://{parts.netloc}{path}")
    for bucket in (
        "other",
        "bucket2",
        "bucke",
        "BUCKET",
        "bucket%2F",
        "%62ucket",
        "x/../bucket",
        "/bucket",
        "bucket/../bucket",
    ):
        yield Attempt(f"bucket {bucket}", "GET", f"http://{parts.netloc}{path.replace('/bucket', f'/{bucket}', 1)}")
    yield Attempt("relative URL", "GET", path)
    yield Attempt("absolute URL in the path", "GET", f"{target.bucket}/http://evil.example.com{path}")


def _headers(target: Target) -> Iterator[Attempt]:
    headers = {
        "x-amz-copy-source": f"/bucket/{target.key}",
        "X-Amz-Copy-Source": f"bucket/{quote(target.key, safe='')}",
        "x-amz-copy-source-range": "bytes=0-1",
        "x-amz-acl": "public-read",
        "x-amz-grant-full-control": "id=1",
        "x-amz-meta-x": "y",
        "x-amz-tagging": "a=b",
        "x-amz-website-redirect-location": "http://evil.example.com",
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2100-01-01T00:00:00Z",
        "x-amz-object-lock-legal-hold": "ON",
        "x-amz-bypass-governance-retention": "true",
        "x-amz-storage-class": "DEEP_ARCHIVE",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-security-token": "x",
        "x-amz-date": "20990101T000000Z",
        "x-amz-decoded-content-length": "1",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-write-offset-bytes": "0",
        "Host": "evil.example.com",
        "host ": "evil.example.com",
        "Date": "Thu, 01 Jan 2099 00:00:00 GMT",
        "Authorization": "AWS4-HMAC-SHA256 Credential=x",
        "Content-Encoding": "aws-chunked",
        "Transfer-Encoding": "chunked",
        "Connection": "x-amz-content-sha256",
        "X-HTTP-Method-Override": "DELETE",
        "X-Forwarded-Host": "evil.example.com",
        "Content-Type": "text/plain\r\nx-amz-acl: public-read",
        "Content-Type\r\nx-amz-acl": "public-read",
        "Content-Type:": "text/plain",
        "Range": "bytes=0-1,5-9",
        "Cookie": "a=b",
        "": "x",
    }
    for name, value in headers.items():
        yield Attempt(f"header {name!r}", "PUT", target.own, {name: value})
    for value in (
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "",
        "0" * 63,
        "A" * 64,
    ):
        yield Attempt(f"hash {value[:20]}", "PUT", target.own, {"x-amz-content-sha256": value})
    yield Attempt("hash twice", "PUT", target.own, {"X-AMZ-Content-Sha256": "0" * 64})
    yield Attempt("header twice", "PUT", target.own, {"Content-Type": "a/b", "content-type": "a/c"})


def malformed_bodies(target: Target) -> list[tuple[str, bytes]]:
    """Return malformed requests to sign, each with what it tries."""
    good = {"method": "GET", "url": target.own, "headers": {"x-amz-content-sha256": "0" * 64}}
    changed: list[tuple[str, Any]] = [
        ("method in lower case", good | {"method": "get"}),
        ("unknown method", good | {"method": "PATCH"}),
        ("method with a line end", good | {"method": "GET\n"}),
        ("no method", {key: value for key, value in good.items() if key != "method"}),
        ("no URL", {key: value for key, value in good.items() if key != "url"}),
        ("long URL", good | {"url": target.own + "x" * 9000}),
        ("URL as a list", good | {"url": [target.own]}),
        ("many headers", good | {"headers": {f"h{number}": "x" for number in range(33)}}),
        ("long header", good | {"headers": {"x-amz-content-sha256": "0" * 3000}}),
        ("header as a list", good | {"headers": {"x-amz-content-sha256": ["0" * 64]}}),
        ("list", [good]),
        ("text", "GET"),
        ("number", 1),
        ("nothing", None),
    ]
    nested = b"[" * 30_000
    raw = [("no JSON", b"{"), ("not UTF-8", b"\xff\xfe"), ("deep", nested), ("empty", b""), ("NaN", b'{"method": NaN}')]
    return [*((name, json.dumps(body).encode()) for name, body in changed), *raw]


def raw_requests(token: str) -> list[tuple[str, bytes]]:
    """Return requests to the broker that no client sends, each with what it tries. None may be answered by 200."""
    authorization = f"Authorization: Bearer {token}\r\n".encode()
    end = b"\r\n\r\n"
    post = b"POST " + SIGN_PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + authorization
    return [
        ("two lengths", post + b"Content-Length: 2\r\nContent-Length: 3" + end + b"{}x"),
        ("length and chunks", post + b"Content-Length: 2\r\nTransfer-Encoding: chunked" + end + b"0\r\n\r\n"),
        ("negative length", post + b"Content-Length: -1" + end),
        ("length of text", post + b"Content-Length: x" + end),
        ("broken chunks", post + b"Transfer-Encoding: chunked" + end + b"zz\r\n{}\r\n0\r\n\r\n"),
        ("huge length", post + b"Content-Length: 99999999999" + end),
        ("huge chunk", post + b"Transfer-Encoding: chunked" + end + b"40000\r\n" + b"x" * 0x40000 + b"\r\n0\r\n\r\n"),
        ("space before the colon", post + b"X-A : b" + end),
        ("folded header", post + b"X-A: b\r\n c" + end),
        ("NUL in a header", post + b"X-A: \x00" + end),
        (
            "many headers",
            post + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"Content-Length: 0" + end,
        ),
        ("long header", post + b"X-A: " + b"y" * 100_000 + end),
        ("long path", b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close" + end),
        ("no host", b"POST " + SIGN_PATH.encode() + b" HTTP/1.1\r\nConnection: close\r\n" + authorization + end),
        (
            "absolute target",
            b"POST http://evil.example.com" + SIGN_PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close" + end,
        ),
        ("tunnel", b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close" + end),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("no HTTP", b"\x16\x03\x01\x00\x00" + end),
    ]


def other_paths() -> list[tuple[str, str]]:
    """Return methods and paths that the broker does not serve."""
    paths = (
        *(
            "/",
            "/v1",
            "/v1/",
            f"{SIGN_PATH}/",
            f"/{SIGN_PATH}",
            "/v1/../v1/sign",
            "/V1/SIGN",
            "/v1/sign%2F",
            "/metrics",
            "/healthz",
        ),
        *("/v1/data-keys", "/v1/data-keys/", "/v1/secrets", "/openapi.json"),
    )
    methods = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    served = (SIGN_PATH, CREDENTIALS_PATH, NEW_DATA_KEY_PATH, UNWRAP_PATH)
    return [*(("POST", path) for path in paths), *((method, path) for method in methods for path in served)]


def forged_tokens(real: str) -> list[tuple[str, str]]:
    """Return tokens that nobody has signed, each with what it tries."""
    head, claims, signature = real.split(".")

    def encoded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    other = encoded(decoded | {"sub": "system:serviceaccount:kube-system:admin"})
    late = encoded(decoded | {"exp": 4_000_000_000})
    return [
        ("changed subject", f"{head}.{other}.{signature}"),
        ("changed expiry", f"{head}.{late}.{signature}"),
        ("no algorithm", f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{claims}."),
        ("no algorithm with signature", f"{encoded({'alg': 'none'})}.{claims}.{signature}"),
        ("another algorithm", f"{encoded({'alg': 'HS256'})}.{claims}.{signature}"),
        ("key of the attacker", f"{encoded({'alg': 'RS256', 'jku': 'http://evil.example.com'})}.{claims}.{signature}"),
        ("cut signature", f"{head}.{claims}.{signature[:-4]}"),
        ("no signature", f"{head}.{claims}"),
        ("four parts", f"{real}.x"),
        ("empty", ""),
        ("a word", "admin"),
        ("very long", "x." * 10_000),
        ("claims of a list", f"{head}.{encoded([])}.{signature}"),
        ("claims without a pod", f"{head}.{encoded({'aud': ['cinderblock-broker']})}.{signature}"),
        ("line end", f"{head}.{claims}.{signature}x"),
    ]
