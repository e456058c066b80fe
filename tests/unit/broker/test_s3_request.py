"""Which requests the broker signs, and which parts of them it refuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from cinderblock.api.broker import SignRequest
from cinderblock.api.v1alpha1.store import BackupStoreSpec
from cinderblock.broker.s3_request import check_request
from cinderblock.errors import AccessDenied
from cinderblock.lifecycle.grant import Grant
from cinderblock.reasons import Reason
from cinderblock.store.s3.signers.signing import CONTENT_HASH

PATH_STYLE, VIRTUAL = "https://s3.example.com:9000/bucket", "https://bucket.s3.example.com"
P = "pre=fix/shop/uid-1"
ENCODED = "pre%3Dfix/shop/uid-1"
PACK = "0123456789abcdef0123456789abcdef-000000"
OWN = f"{ENCODED}/packs/volume-1/backup-1/{PACK}"
MANIFEST = f"{ENCODED}/backups/volume-1/backup-1.manifest"
GRANT = Grant("bucket", P, "volume-1", "backup-1")
HASH = {CONTENT_HASH: "0" * 64}
SPEC = BackupStoreSpec.model_validate(
    {"storageClass": "STANDARD_IA", "serverSideEncryption": {"algorithm": "aws:kms", "kmsKeyId": "key"}}
)


def check(method: str, target: str, base: str = PATH_STYLE, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = SignRequest.model_validate({"method": method, "url": base + target, "headers": HASH | named})
    return check_request(request, base, SPEC, GRANT)


@pytest.mark.parametrize("base", [PATH_STYLE, VIRTUAL, f"{PATH_STYLE}/deeper"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/{OWN}"),
        ("HEAD", f"/{OWN}"),
        ("PUT", f"/{OWN}"),
        ("PUT", f"/{OWN}?x-id=PutObject"),
        ("DELETE", f"/{OWN}"),
        ("POST", f"/{MANIFEST}?uploads"),
        ("POST", f"/{MANIFEST}?uploads="),
        ("PUT", f"/{MANIFEST}?partNumber=1&uploadId=2~a.B_c-d%2Be%3D"),
        ("POST", f"/{MANIFEST}?uploadId=u"),
        ("DELETE", f"/{MANIFEST}?uploadId=u"),
        ("GET", "?list-type=2&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fpacks%2Fvolume-1%2F&encoding-type=url"),
        ("GET", "/?list-type=2&prefix=pre%3Dfix%2Fshop%2Fuid-1%2F&max-keys=1"),
        ("GET", "?list-type=2&continuation-token=a%2Bb%3D%3D&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fbackups%2Fvolume-1%2F"),
        ("GET", "?uploads&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fbackups%2Fvolume-1%2Fbackup-1.manifest&encoding-type=url"),
    ],
)
def test_requests_of_movers_are_permitted(base: str, method: str, target: str) -> None:
    checked = check(method, target, base)
    assert (checked.method, checked.url, checked.headers) == (method, base + target, HASH)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "s3.example.com:9000"),
        ("Content-Type", "application/octet-stream"),
        ("Content-MD5", "A" * 22 + "=="),
        ("Range", "bytes=0-99"),
        ("x-amz-checksum-sha256", "A" * 43 + "="),
        ("x-amz-sdk-checksum-algorithm", "SHA256"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key"),
        ("amz-sdk-invocation-id", "5f0f9a3e-1111-2222-3333-444455556666"),
        ("amz-sdk-request", "attempt=1; max=1"),
        ("If-None-Match", "*"),
    ],
)
def test_headers_of_movers_are_signed(name: str, value: str) -> None:
    assert check("PUT", f"/{OWN}", **{name: value}).headers == HASH | {name.lower(): value}


def test_headers_that_no_signature_covers_are_left_out() -> None:
    assert check("PUT", f"/{OWN}", **{"User-Agent": "x", "Expect": "100-continue"}).headers == HASH


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-copy-source", "/bucket/other"),
        ("X-Amz-Copy-Source-Range", "bytes=0-1"),
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "id=1"),
        ("x-amz-meta-a", "b"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-website-redirect-location", "/"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-bypass-governance-retention", "true"),
        ("x-amz-mfa", "1"),
        ("x-amz-security-token", "t"),
        ("x-amz-date", "20260101T000000Z"),
        ("x-amz-decoded-content-length", "1"),
        ("x-amz-trailer", "x-amz-checksum-sha256"),
        ("x-amz-storage-class", "DEEP_ARCHIVE"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-key", "k"),
        ("x-amz-expected-bucket-owner", "1"),
        ("Authorization", "AWS4"),
        ("Date", "today"),
        ("Host", "other.example.com"),
        ("Host", "s3.example.com"),
        ("Content-Encoding", "aws-chunked"),
        ("Transfer-Encoding", "chunked"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Forwarded-Host", "x"),
        ("Connection", "x-amz-content-sha256"),
        ("Range", "bytes=0-1,3-4"),
        ("Content-Type", "a/b\r\nx-amz-acl: public-read"),
        ("Content-Type ", "a/b"),
        ("Content\nType", "a/b"),
        (CONTENT_HASH.upper(), "1" * 64),
    ],
)
def test_other_headers_are_refused(name: str, value: str) -> None:
    with pytest.raises(AccessDenied) as refused:
        check("PUT", f"/{OWN}", **{name: value})
    assert refused.value.reason is Reason.NOT_GRANTED


@pytest.mark.parametrize(
    "value",
    ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "A" * 64, ""],
)
def test_body_must_be_signed(value: str) -> None:
    with pytest.raises(AccessDenied, match="not with this value"):
        check("PUT", f"/{OWN}", **{CONTENT_HASH: value})
    bare = SignRequest.model_validate({"method": "GET", "url": f"{PATH_STYLE}/{OWN}", "headers": {}})
    with pytest.raises(AccessDenied, match="missing"):
        check_request(bare, PATH_STYLE, SPEC, GRANT)


@pytest.mark.parametrize(
    "target",
    [
        f"/{OWN}?versionId=1",
        f"/{OWN}?delete",
        f"/{OWN}?acl",
        f"/{OWN}?tagging",
        f"/{OWN}?retention",
        f"/{OWN}?legal-hold",
        f"/{OWN}?torrent",
        f"/{OWN}?X-Amz-Signature=1",
        f"/{OWN}?partNumber=1",
        f"/{OWN}?partNumber=1&partNumber=2&uploadId=u",
        f"/{OWN}?uploadId=u&uploads",
        f"/{OWN}?x-id=a&x-id=b",
        f"/{OWN}?x-id=Put%20Object",
        f"/{OWN}?%75ploads",
        f"/{OWN}?",
        f"/{OWN}??uploads",
        f"/{OWN}&uploads",
        f"/{OWN};uploads",
        f"/{OWN}#fragment",
        f"/{OWN}/",
        f"/{OWN}/..",
        f"//{OWN}",
        f"/{OWN}%00",
        f"/{OWN}%0d%0a",
        f"/{OWN}%2F..%2Fx",
        f"/{OWN}%252e",
        f"/{OWN}\\..\\x",
        f"/{OWN} ",
        f"/{OWN}é",
        f"/{OWN}%C3",
        f"/./{OWN}",
        f"/x/../{OWN}",
        f"/x/%2e%2e/{OWN}",
        f"/{OWN.replace('/', '%2F')}",
        f"/{OWN.replace('-000000', '-00000%30')}",
        f"/{OWN.replace('%3D', '=')}",
        f"/{OWN.replace('%3D', '%3d')}",
        f"/{ENCODED}/packs/volume-2/backup-1/{PACK}",
        "/",
        "",
        "?delete",
        "?policy",
        "?list-type=2",
        "?list-type=1&prefix=x",
        "?prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fpacks%2Fvolume-1%2F",
        "?list-type=2&prefix=pre%3Dfix%2Fshop%2Fuid-1%2F",
        "?list-type=2&prefix=pre%3Dfix%2F&max-keys=1",
        "?list-type=2&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fpacks%2Fvolume-1%2F&delimiter=%2F",
        "?versions&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fpacks%2Fvolume-1%2F",
        "?uploads&prefix=pre%3Dfix%2Fshop%2Fuid-1%2Fbackups%2F",
        "?uploads",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_other_targets_are_refused(method: str, target: str) -> None:
    with pytest.raises(AccessDenied):
        check(method, target)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_other_backups_of_the_volume_are_only_read(method: str) -> None:
    target = f"/{ENCODED}/packs/volume-1/backup-2/{PACK}"
    check("GET", target)
    with pytest.raises(AccessDenied):
        check(method, target)


@pytest.mark.parametrize(
    "base",
    [
        "http://s3.example.com:9000/bucket",
        "https://s3.example.com/bucket",
        "https://s3.example.com:443/bucket",
        "https://user@s3.example.com:9000/bucket",
        "https://s3.example.com:9000@evil.example.com/bucket",
        "https://s3.example.com:9000.evil.example.com/bucket",
        "https://S3.example.com:9000/bucket",
        "https://s3.example.com:9000/other",
        "https://s3.example.com:9000/bucket2",
        "https://s3.example.com:9000//bucket",
        "https://s3.example.com:9000/x/../bucket",
        "https://s3.example.com:9000/BUCKET",
        "//s3.example.com:9000/bucket",
        "/bucket",
        "https://169.254.169.254/bucket",
        "file:///bucket",
    ],
)
def test_other_places_are_refused(base: str) -> None:
    request = SignRequest.model_validate({"method": "GET", "url": f"{base}/{OWN}", "headers": HASH})
    with pytest.raises(AccessDenied, match="bucket of the store"):
        check_request(request, PATH_STYLE, SPEC, GRANT)


@pytest.mark.parametrize(
    "upload",
    [
        "..",
        ".",
        ".a",
        "..%2Fa",
        "a%2F..%2Fb",
        "a%2Fb",
        "%2Fa",
        "a%5Cb",
        "..%5C..",
        "a%20b",
        "a%3Fb",
        "%2A",
        "%252e",
        "",
    ],
)
def test_upload_ids_are_no_paths(upload: str) -> None:
    for method, query in (("PUT", "partNumber=1&uploadId="), ("POST", "uploadId="), ("DELETE", "uploadId=")):
        with pytest.raises(AccessDenied):
            check(method, f"/{MANIFEST}?{query}{upload}")


@pytest.mark.parametrize("name", ["prefix", "start-after", "continuation-token"])
@pytest.mark.parametrize("tail", ["..", "../../../other/", "a/../b", "./a", "..\\x", "a/.."])
def test_parameters_of_listings_are_no_paths(name: str, tail: str) -> None:
    packs = f"{P}/packs/volume-1/"
    query = {"list-type": "2", "prefix": packs} | {name: packs + tail}
    with pytest.raises(AccessDenied):
        check("GET", "?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items()))


def test_restore_writes_nothing() -> None:
    reader = Grant("bucket", P, "volume-1")
    for method in ("PUT", "POST", "DELETE"):
        for query in ("", "?uploads", "?uploadId=u", "?partNumber=1&uploadId=u"):
            request = SignRequest.model_validate(
                {"method": method, "url": f"{PATH_STYLE}/{OWN}{query}", "headers": HASH}
            )
            with pytest.raises(AccessDenied):
                check_request(request, PATH_STYLE, SPEC, reader)


def test_messages_are_short_and_printable() -> None:
    with pytest.raises(AccessDenied) as refused:
        check("GET", "/" + "x" * 7000)
    assert len(refused.value.message) < 400
