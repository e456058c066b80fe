"""Opens a store as it is used: the one place where wrappers are put around it."""

from __future__ import annotations

from cinderblock.api.mover import StoreLocation
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.retrying import MOVER_RETRIES, RetryingStore, RetryPolicy


def open_store(
    location: StoreLocation,
    credentials: S3Credentials | None,
    ca_file: str | None = None,
    patience: RetryPolicy = MOVER_RETRIES,
) -> ObjectStore:
    """Open a store; nothing is sent yet.

    Args:
        location: where the store is, and its limits in bytes per second.
        credentials: what to sign with; None: found as every AWS tool finds them (environment, profile, role).
        ca_file: PEM certificates that the endpoint is checked against instead of the system's.
        patience: how long calls are repeated while the endpoint does not answer.

    Raises InvalidInput if the location or the CA file is malformed.
    """
    # Not with this module: importing botocore takes 0.05 s, a quarter of a program's start, and by then the program may
    # have begun with its volume.
    from cinderblock.store.s3.store import S3Store  # noqa: PLC0415

    return RetryingStore(S3Store(location, credentials, ca_file, patience.answer), patience)
