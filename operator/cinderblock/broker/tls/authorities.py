"""The authority of the broker that signs, and the next one, which clients trust for a month before it signs.

Tasks of movers contain the certificates that they trust, and last for days. So a new authority is announced first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cinderblock.broker.tls import certificates
from cinderblock.broker.tls.certificates import Identity

ANNOUNCED_FOR: Final = timedelta(days=30)
"""Time between the announcement of an authority and its first signature: longer than any mover runs."""
_BUNDLED: Final = 4
"""Most certificates that clients get."""

CA, CA_KEY, NEXT, NEXT_KEY = "ca.crt", "ca.key", "next-ca.crt", "next-ca.key"
"""Keys of the Secret. The first certificate in ca.crt is that of the authority that signs."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The authorities of the broker.

    Attributes:
        signing: the one that signs.
        bundle: the certificates that clients trust, in PEM: of this one, of the next one, and of earlier ones.
        following: the next one; None: it is not announced yet.
    """

    signing: Identity
    bundle: bytes
    following: Identity | None = None

    def data(self) -> dict[str, bytes]:
        """Return the content of the Secret."""
        data = {CA: self.bundle, CA_KEY: self.signing.key}
        if self.following is not None:
            data |= {NEXT: self.following.certificate, NEXT_KEY: self.following.key}
        return data


def choose(data: Mapping[str, bytes], known: Authorities | None, now: datetime) -> Authorities:
    """Return the authorities to use, which may be new ones.

    Args:
        data: the content of the Secret.
        known: those that this process has used: somebody may have deleted the Secret.
        now: the present.
    """
    stored = Identity(data.get(CA, b""), data.get(CA_KEY, b""))
    announced = Identity(data.get(NEXT, b""), data.get(NEXT_KEY, b""))
    bundle = data.get(CA, b"")
    if not certificates.can_sign(stored, now) and known is not None:
        stored, bundle = known.signing, known.bundle
        announced = announced if known.following is None else known.following
    following = announced if certificates.can_sign(announced, now) else None
    if not certificates.can_sign(stored, now):
        return _bundled(following or certificates.make_authority(now), None, bundle, now)
    if not certificates.needs_successor(stored, now):
        return _bundled(stored, None, bundle, now)
    if following is None:
        following = certificates.make_authority(now)
    if now - certificates.made_at(following) >= ANNOUNCED_FOR:
        return _bundled(following, None, bundle, now)
    return _bundled(stored, following, bundle, now)


def _bundled(signing: Identity, following: Identity | None, bundle: bytes, now: datetime) -> Authorities:
    """Return authorities whose clients also trust what they have trusted until now: other replicas may use it."""
    first = certificates.first_of(signing.certificate)
    own = [first, *([following.certificate] if following is not None else [])]
    trusted = dict.fromkeys([*own, *certificates.valid_in(bundle, now)])
    return Authorities(Identity(first, signing.key), b"".join(list(trusted)[:_BUNDLED]), following)
