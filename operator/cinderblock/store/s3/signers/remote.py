"""Sign the requests of a client elsewhere: remote signing, as in the REST catalog of Apache Iceberg.

The client hashes the body itself. The signer only sees method, URL and headers, among them the digest of the body
(AWS Signature Version 4: x-amz-content-sha256). So the size of a body does not matter to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import Credentials
from typing_extensions import override

from cinderblock.errors import StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.credentials import RemoteSigner
from cinderblock.store.s3.checksum import BodySigner

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from types_boto3_s3.client import S3Client

DIGEST: Final = "x-amz-content-sha256"
ADDED: Final = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})
"""Headers that a signer adds."""
_UNCOVERED: Final = ("host", "amz-sdk-")
"""Beginnings of names that the signer does not get: it knows the host from the URL, and no server reads the others."""
_NONE: Final = Credentials("", "")
"""Credentials of a signer that has none."""
VALUE_CHARACTERS: Final = 8192
"""Characters of the longest value. The session token of temporary credentials has one or two thousand."""


def sign_remotely(client: S3Client, signer: RemoteSigner) -> None:
    """Let a signer sign all requests of a new client that does not sign them itself (botocore: UNSIGNED).

    This handles the last event before a request is sent at which its headers may still change. A signer class in
    botocore's table would apply to the whole process, and a signer belongs to one client.
    """
    client.meta.events.register_last("before-sign.s3", _Auth(signer).handle)


class _Auth(BodySigner):
    """Hashes bodies and chooses headers as botocore does, and asks for the rest."""

    def __init__(self, signer: RemoteSigner) -> None:
        super().__init__(_NONE, "s3", "")
        self._signer = signer

    def handle(self, request: AWSRequest, **_: Any) -> None:
        """Handle botocore's event before-sign. Raises what the signer raises."""
        self.add_auth(request)

    @override
    def add_auth(self, request: Any) -> None:
        """Add the headers that sign a request. Raises what the signer raises; StoreUnreachable for a wrong answer."""
        _set(request, DIGEST, self.payload(request))
        covered = {
            name: ",".join(values.get_all(name) or ())
            for values in (self.headers_to_sign(request),)
            for name in values
            if not name.startswith(_UNCOVERED)
        }
        for name, value in _check(self._signer.sign(request.method, request.url, covered), covered).items():
            _set(request, name, value)


def _check(answered: Mapping[str, str], covered: Mapping[str, str]) -> dict[str, str]:
    """Return the answered headers by their names in lower case. Raises StoreUnreachable if they cannot be a signature.

    A header with a line break would smuggle others into the request, and another digest would cover another body.
    """
    headers = {name.lower(): value for name, value in answered.items()}
    unknown = [name for name, value in headers.items() if name not in ADDED and covered.get(name) != value]
    is_clean = all(
        len(value) <= VALUE_CHARACTERS and value.isascii() and value.isprintable() for value in headers.values()
    )
    if unknown or not is_clean or "authorization" not in headers:
        raise StoreUnreachable(
            "Cannot use the answer of the broker: its headers do not sign the request. Check that broker and mover have"
            " the same version.",
            reason=Reason.BROKER_UNAVAILABLE,
        )
    return headers


def _set(request: Any, name: str, value: str) -> None:
    """Replace a header. Assigning it would add a second one."""
    del request.headers[name]
    request.headers[name] = value
