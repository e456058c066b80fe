"""Open a store, and ask its server. This is the one place that puts wrappers around a store."""

from __future__ import annotations

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import StoreAccess
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import Credentials, RemoteSigner, S3Credentials
from cinderblock.store.read_only import ReadOnlyStore
from cinderblock.store.retrying import BROKERED_RETRIES, MOVER_RETRIES, RetryingStore, RetryPolicy
from cinderblock.store.versions.history import History
from cinderblock.store.versions.retrying import RetryingHistory


def open_store(
    location: StoreLocation,
    credentials: Credentials | None,
    ca_file: str | None = None,
    policy: RetryPolicy | None = None,
) -> ObjectStore:
    """Open a store. This sends no request.

    Args:
        location: where the store is, its limits in bytes per second, and whether it may be changed.
        credentials: sign requests, or ask a signer to; None: boto3 finds them as every AWS tool does (environment,
            profile, role).
        ca_file: PEM certificates that replace those of the system.
        policy: how long to repeat calls while the endpoint, or the signer, does not respond; None: as movers do.

    Raises InvalidInput if the location or the CA file is malformed.
    """
    # Import boto3 only here: that takes some 0.1 s, and the program may have begun to read its volume by then.
    from cinderblock.store.s3.store import S3Store  # noqa: PLC0415

    if policy is None:
        policy = BROKERED_RETRIES if isinstance(credentials, RemoteSigner) else MOVER_RETRIES
    is_read_only = location.access is StoreAccess.READ_ONLY
    if is_read_only:
        location = location.model_copy(update={"create_container": False})
    opened = RetryingStore(
        S3Store(location, credentials, ca_file, policy.read_timeout, policy.seconds_per_call), policy
    )
    return ReadOnlyStore(opened, location.container) if is_read_only else opened


def open_history(
    location: StoreLocation, credentials: Credentials | None, ca_file: str | None, policy: RetryPolicy
) -> History:
    """Open the versions of a container. This sends no request.

    The arguments are those of `open_store`. Raises InvalidInput if the location or the CA file is malformed.
    """
    from cinderblock.store.s3.store import S3Store  # noqa: PLC0415

    opened = S3Store(location, credentials, ca_file, policy.read_timeout, policy.seconds_per_call)
    is_read_only = location.access is StoreAccess.READ_ONLY
    return RetryingHistory(opened.history, policy, opened.close, is_read_only=is_read_only)


def ignores_unsigned_headers(location: StoreLocation, credentials: S3Credentials, ca_file: str | None = None) -> bool:
    """Return whether the server accepts headers that a signature does not cover; see `store.s3.signers.signing`.

    Raises CinderblockError if the server rejects a usual request too, or does not answer.
    """
    from cinderblock.store.s3.signers import signing  # noqa: PLC0415

    return signing.ignores_unsigned_headers(location, credentials, ca_file)
