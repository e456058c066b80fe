"""Make the certificate of the broker, and the authority that signs it (RFC 5280)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_TIME: Final = timedelta(days=3650)
"""Lifetime of the authority. Tasks of movers contain its certificate."""
AUTHORITY_MARGIN: Final = timedelta(days=365)
"""Remaining lifetime below which a new authority is announced."""
CERTIFICATE_TIME: Final = timedelta(days=90)
CERTIFICATE_MARGIN: Final = timedelta(days=30)
"""Remaining lifetime below which a certificate is renewed."""
_SKEW: Final = timedelta(minutes=5)
"""Largest difference of clocks in the cluster that is tolerated."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, in PEM. A repr does not show the key."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority(now: datetime) -> Identity:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("cinderblock-broker-ca")
    builder = _builder(name, name, key.public_key(), now, AUTHORITY_TIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _identity(builder.sign(key, hashes.SHA256()), key)


def make_certificate(authority: Identity, host_names: Sequence[str], now: datetime) -> Identity:
    """Return a certificate of a server with these names, signed by ``authority``.

    Raises ValueError if the authority cannot be read.
    """
    issuer, issuer_key = _parse_certificate(authority.certificate), _parse_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name("cinderblock-broker"), issuer.subject, key.public_key(), now, CERTIFICATE_TIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([*map(_general_name, host_names)]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    return _identity(builder.sign(issuer_key, hashes.SHA256()), key)


def can_sign(authority: Identity, now: datetime) -> bool:
    """Return whether an authority can be read, belongs to its key, and stays valid longer than what it signs."""
    try:
        certificate, key = _parse_certificate(authority.certificate), _parse_key(authority.key)
    except ValueError:
        return False
    is_of_key = certificate.public_key() == key.public_key()
    return is_of_key and certificate.not_valid_after_utc - now > CERTIFICATE_TIME


def needs_successor(authority: Identity, now: datetime) -> bool:
    """Return whether a new authority must be announced. Raises ValueError if this one cannot be read."""
    return expiry_of(authority.certificate) - now <= AUTHORITY_MARGIN


def made_at(authority: Identity) -> datetime:
    """Return when an authority was made. Raises ValueError if it cannot be read."""
    return _parse_certificate(authority.certificate).not_valid_before_utc + _SKEW


def first_of(content: bytes) -> bytes:
    """Return the first certificate in PEM, without text around it. Raises ValueError if it cannot be read."""
    return _parse_certificate(content).public_bytes(serialization.Encoding.PEM)


def valid_in(content: bytes, now: datetime) -> list[bytes]:
    """Return the certificates in PEM that have not expired; none if they cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        return []
    return [each.public_bytes(serialization.Encoding.PEM) for each in found if each.not_valid_after_utc > now]


def certificate_is_usable(
    identity: Identity, authority_certificate: bytes, host_names: Sequence[str], now: datetime
) -> bool:
    """Return whether a certificate has all names, belongs to its key and the authority, and need not be renewed."""
    try:
        certificate, key = _parse_certificate(identity.certificate), _parse_key(identity.key)
        certificate.verify_directly_issued_by(_parse_certificate(authority_certificate))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    has_names = set(map(_general_name, host_names)) <= set(names)
    is_of_key = certificate.public_key() == key.public_key()
    return has_names and is_of_key and certificate.not_valid_after_utc - now > CERTIFICATE_MARGIN


def expiry_of(certificate: bytes) -> datetime:
    """Return when a certificate in PEM expires. Raises ValueError if it cannot be read."""
    return _parse_certificate(certificate).not_valid_after_utc


def _parse_certificate(content: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(content)


def _parse_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """Return a private key. Raises ValueError for one that this module has not made."""
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is of another type")  # noqa: TRY004  # the content of a file is wrong
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _SKEW).not_valid_after(now + lifetime)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    pem = serialization.Encoding.PEM
    encoded = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(certificate.public_bytes(pem), encoded)
