"""Create buckets for other accounts on a versitygw, with its administrator's account (versitygw: s3api/router.go)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from cinderblock.errors import AccessDenied, Conflict, StoreUnreachable
from cinderblock.store.credentials import S3Credentials

REGION: Final = "us-east-1"
"""Region of a versitygw that is started without another one."""
TIMEOUT: Final = 10
"""Seconds to connect, and without a byte of a response."""
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9]+)</Code>")
_EMPTY_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def create_bucket(endpoint_url: str, administrator: S3Credentials, bucket: str, owner: str) -> bool:
    """Create a bucket that belongs to an account, in one request. Return False if the account has it already.

    Args:
        endpoint_url: URL of the server.
        administrator: credentials of its administrator.
        bucket: name of the bucket.
        owner: access key of the account.

    Raises:
        Conflict: the bucket belongs to another account, so its owner could read and replace what is stored there.
        StoreUnreachable: the server does not answer, or does not know the account yet.
        AccessDenied: the server rejects the administrator's credentials.
    """
    status, code = _send(f"{endpoint_url}/{quote(bucket)}/create", administrator, {"x-vgw-owner": owner})
    if status < 300:
        return True
    if code == "BucketAlreadyOwnedByYou":
        return False
    if code == "BucketAlreadyExists":
        raise Conflict(
            f"Cannot give bucket {bucket} to account {owner}: it belongs to another account, which may have put"
            " something into it. Check its content, then remove the bucket or change its owner."
        )
    if status == 403:
        raise AccessDenied(f"Cannot create bucket {bucket}: the S3 server rejects its administrator ({code})")
    raise StoreUnreachable(f"Cannot create bucket {bucket} for account {owner}: the S3 server answers {status} {code}")


def _send(url: str, administrator: S3Credentials, headers: dict[str, str]) -> tuple[int, str]:
    """Send a signed request without a body. Return the HTTP status, and the code of the error if there is one."""
    signed = headers | {"X-Amz-Content-SHA256": _EMPTY_SHA256}
    request = AWSRequest(method="PATCH", url=url, headers=signed)
    SigV4Auth(Credentials(administrator.access_key, administrator.secret_key), "s3", REGION).add_auth(request)
    session = URLLib3Session(timeout=TIMEOUT)
    try:
        response = session.send(request.prepare())
        content = response.content
    except BotoCoreError as error:
        raise StoreUnreachable(
            f"Cannot reach the S3 server at {urlsplit(url).netloc}: {type(error).__name__}. Check that its pod runs."
        ) from error
    finally:
        session.close()
    found = _CODE.search(content or b"")
    return response.status_code, found[1].decode() if found else ""
