"""How the mover of a shared store reaches it: through the broker, and without any Secret."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.broker import AUDIENCE, TOKEN_DIRECTORY, TOKEN_FILE, TOKEN_SECONDS, BrokerLocation
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import MoverSettings

NO_CERTIFICATES: Final = "the certificates could not be read"
"""In place of the certificates of a store: a mover trusts no server then."""


def location(store: BackupStore, settings: MoverSettings, *, lists: bool = True) -> BrokerLocation | None:
    """Return where the mover of a store finds the broker; None for a store of its own namespace.

    The result is never None for a shared store, even without a broker: its mover must not get Secrets. The checks
    before an operation refuse it then, and a mover without a URL fails.

    Args:
        store: the store.
        settings: where the broker is.
        lists: whether the mover may list objects.
    """
    if not isinstance(store, SharedStore):
        return None
    # Empty would stand for the authorities of the system, which anybody can get a certificate from.
    missing = NO_CERTIFICATES if store.spec.ca_secret_ref is not None else ""
    return BrokerLocation(
        url=settings.broker_url,
        ca_certificate=settings.broker_ca,
        access=store.mover_access.mode,
        encrypts=store.spec.encryption_secret_ref is not None,
        ca_certificates=store.ca_certificates or missing,
        lists=lists,
    )


def token_volume() -> dict[str, Any]:
    """Return the volume with the token of the mover's own ServiceAccount for the broker.

    The API server does not accept this token, because of its audience. The kubelet asks for it, binds it to the pod,
    and replaces it before it expires (core/v1 ServiceAccountTokenProjection). Its mode lets a mover read it that runs
    as any user.
    """
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
    sources = [{"serviceAccountToken": token}]
    return {"name": TOKEN_DIRECTORY, "projected": {"sources": sources, "defaultMode": 0o444}}
