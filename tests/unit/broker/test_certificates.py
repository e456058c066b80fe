"""The certificate of the broker, and the authority that signs it."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderblock.broker import certificates
from cinderblock.broker.certificates import Identity

NOW = datetime.now(UTC).replace(microsecond=0)
NAMES = ("cinderblock-broker.system.svc", "127.0.0.1")


def served(directory: Path, identity: Identity) -> ssl.SSLContext:
    path = directory / "tls.pem"
    path.write_bytes(identity.key + identity.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, path)
    return context


def handshake(server: ssl.SSLContext, authority: bytes, name: str) -> None:
    """Make one TLS connection. Raises ssl.SSLError if the client does not trust the server."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.create_default_context(cadata=authority.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_strict_clients_trust_the_certificate(tmp_path: Path, name: str) -> None:
    authority = certificates.make_authority(NOW)
    server = served(tmp_path, certificates.make_certificate(authority, NAMES, NOW))
    handshake(server, authority.certificate, name)


def test_clients_trust_no_other_name_and_no_other_authority(tmp_path: Path) -> None:
    authority = certificates.make_authority(NOW)
    server = served(tmp_path, certificates.make_certificate(authority, NAMES, NOW))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, authority.certificate, "another.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, certificates.make_authority(NOW).certificate, NAMES[0])


def test_certificate_is_renewed_in_time() -> None:
    authority = certificates.make_authority(NOW)
    identity = certificates.make_certificate(authority, NAMES, NOW)

    def usable(days: int) -> bool:
        later = NOW + timedelta(days=days)
        return certificates.certificate_is_usable(identity, authority.certificate, NAMES, later)

    assert (usable(0), usable(59), usable(60), usable(91)) == (True, True, False, False)
    assert certificates.expiry_of(identity.certificate) == NOW + timedelta(days=90)


def test_authority_is_replaced_a_year_before_its_end() -> None:
    authority = certificates.make_authority(NOW)
    assert certificates.authority_is_usable(authority, NOW + timedelta(days=3284))
    assert not certificates.authority_is_usable(authority, NOW + timedelta(days=3286))


def test_what_does_not_fit_together_is_not_used() -> None:
    one, two = certificates.make_authority(NOW), certificates.make_authority(NOW)
    identity = certificates.make_certificate(one, NAMES, NOW)
    other = certificates.make_certificate(one, NAMES, NOW)
    is_usable = certificates.certificate_is_usable
    assert not is_usable(identity, two.certificate, NAMES, NOW)
    assert not is_usable(Identity(identity.certificate, other.key), one.certificate, NAMES, NOW)
    assert not is_usable(identity, one.certificate, (*NAMES, "new.svc"), NOW)
    assert not is_usable(Identity(b"", b""), one.certificate, NAMES, NOW)
    assert not is_usable(Identity(b"-----BEGIN CERTIFICATE-----\nx\n", b"x"), one.certificate, NAMES, NOW)
    assert not certificates.authority_is_usable(Identity(one.certificate, two.key), NOW)
    assert not certificates.authority_is_usable(Identity(b"x", b""), NOW)


def test_no_repr_shows_a_key() -> None:
    assert "PRIVATE" not in repr(certificates.make_authority(NOW))
