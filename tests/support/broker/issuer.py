"""An OpenID Connect issuer (OpenID Connect Discovery 1.0): signs tokens, and serves its keys over HTTPS.

versitygw fetches the keys of an issuer only from port 443, and never from a private or loopback address. So this adds
an address of TEST-NET-2 (RFC 5737) to the loopback interface for a while, which needs root.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from typing_extensions import override

from cinderblock.broker.tls import certificates

ADDRESS = "198.51.100.77"
URL = f"https://{ADDRESS}"
_KEY_ID = "key-1"


@dataclass(frozen=True)
class Issuer:
    """A running issuer.

    Attributes:
        thumbprint: SHA-1 of the certificate of its authority, as IAM wants it.
    """

    thumbprint: str
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def token(self, subject: str, audience: str, **more: Any) -> str:
        """Return a signed token."""
        now = int(time.time())
        claims = {"iss": URL, "sub": subject, "aud": audience, "iat": now, "exp": now + 600} | more
        signed = f"{_encoded({'alg': 'ES256', 'typ': 'JWT', 'kid': _KEY_ID})}.{_encoded(claims)}"
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@contextmanager
def issuer(directory: Path) -> Iterator[Issuer]:
    """Run an issuer until the block ends."""
    now = datetime.now(UTC)
    authority = certificates.make_authority(now)
    identity = certificates.make_certificate(authority, [ADDRESS], now)
    chain = directory / "issuer.pem"
    chain.write_bytes(identity.key + identity.certificate + authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    with _address(), _serving(chain, _documents(key)):
        der = load_pem_x509_certificate(authority.certificate).public_bytes(Encoding.DER)
        yield Issuer(hashlib.sha1(der, usedforsecurity=False).hexdigest(), key)


def _documents(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    point = {name: _base64(value.to_bytes(32, "big")) for name, value in (("x", numbers.x), ("y", numbers.y))}
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": _KEY_ID, **point}
    return {
        "/.well-known/openid-configuration": {"issuer": URL, "jwks_uri": f"{URL}/keys"},
        "/keys": {"keys": [jwk]},
    }


@contextmanager
def _serving(chain: Path, documents: dict[str, Any]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path)
            body = json.dumps(document).encode()
            self.send_response(200 if document is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer((ADDRESS, 443), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _address() -> Iterator[None]:
    """Let this machine have the address. Two tests at the same time would share the port, so there is only one."""
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=True)


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
