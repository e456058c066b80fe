"""The certificate of the broker, and the authority that signs it."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderblock.broker.tls import certificates
from cinderblock.broker.tls.authorities import choose
from cinderblock.broker.tls.certificates import Identity

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


def at(day: int) -> datetime:
    """Return an instant after the first authority was made. Its successor signs now, after a month."""
    return NOW + timedelta(days=day - 3316)


def test_authority_signs_until_what_it_signs_would_outlive_it() -> None:
    authority = certificates.make_authority(at(0))
    assert [certificates.can_sign(authority, at(day)) for day in (3559, 3561)] == [True, False]
    assert [certificates.needs_successor(authority, at(day)) for day in (3284, 3286)] == [False, True]


def test_clients_trust_the_next_authority_before_it_signs(tmp_path: Path) -> None:
    first = choose({}, None, at(0))
    assert choose(first.data(), None, at(3284)) == first
    announced = choose(first.data(), None, at(3286))
    assert announced.signing == first.signing
    assert choose(announced.data(), None, at(3286 + 29)) == announced, "clients of another month exist"
    second = choose(announced.data(), None, at(3286 + 30))
    assert second.signing == announced.following
    assert choose(second.data(), None, at(3286 + 31)) == second
    for signing in (first.signing, second.signing):
        server = served(tmp_path, certificates.make_certificate(signing, NAMES, NOW))
        for clients in (announced, second):
            handshake(server, clients.bundle, NAMES[0])


def test_replica_keeps_its_authorities_without_the_secret() -> None:
    known = choose(choose({}, None, at(0)).data(), None, at(3286))
    assert choose({}, known, at(3287)) == known
    damaged = known.data() | {"next-ca.key": b"damaged"}
    assert choose(damaged, None, at(3287)).signing == known.signing


def test_authority_that_was_never_announced_is_made_when_the_last_one_ends() -> None:
    first = choose({}, None, at(0))
    late = choose(first.data(), None, at(3561))
    assert late.signing != first.signing
    assert late.following is None
    assert choose(first.data(), None, at(3500)).signing == first.signing, "it is announced first, however late"


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
    assert not certificates.can_sign(Identity(one.certificate, two.key), NOW)
    assert not certificates.can_sign(Identity(b"x", b""), NOW)


def test_no_repr_shows_a_key() -> None:
    assert "PRIVATE" not in repr(certificates.make_authority(NOW))
