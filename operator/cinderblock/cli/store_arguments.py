"""The store and the encryption keys that the options name."""

from __future__ import annotations

import argparse
import os

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import Addressing, ServerSideAlgorithm, ServerSideEncryption, StoreAccess
from cinderblock.errors import InvalidInput
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.read_only_keys import parse_read_only_keys
from cinderblock.store.base import ObjectStore
from cinderblock.store.factory import open_history, open_store
from cinderblock.store.retrying import OPERATOR_RETRIES, RetryPolicy
from cinderblock.store.versions.as_of import AsOfStore


def location_from(arguments: argparse.Namespace, *, writes: bool = False, create: bool = False) -> StoreLocation:
    """Return the location of the store.

    Args:
        arguments: the options.
        writes: whether the command changes the store; otherwise it is opened only for reading.
        create: whether a missing container is created.

    Raises InvalidInput for a KMS key without KMS.
    """
    # As in `open_store`.
    from cinderblock.store.s3.client import ambient_region  # noqa: PLC0415

    return StoreLocation(
        endpoint_url=arguments.endpoint_url,
        region=arguments.region or ambient_region() or "us-east-1",
        container=arguments.store.container,
        prefix=arguments.store.prefix,
        addressing=Addressing(arguments.addressing),
        access=StoreAccess.READ_WRITE if writes else StoreAccess.READ_ONLY,
        create_container=create,
        storage_class=getattr(arguments, "storage_class", None),
        server_side_encryption=_encryption(arguments),
        upload_bytes_per_second=arguments.limit_rate,
        download_bytes_per_second=arguments.limit_rate,
    )


def _encryption(arguments: argparse.Namespace) -> ServerSideEncryption | None:
    """Return the server-side encryption; None if it is not selected, or the command does not write."""
    algorithm = getattr(arguments, "sse", None)
    key_id = getattr(arguments, "sse_kms_key_id", None)
    if algorithm is None:
        if key_id is not None:
            raise InvalidInput("--sse-kms-key-id requires --sse aws:kms")
        return None
    return ServerSideEncryption(algorithm=ServerSideAlgorithm(algorithm), kms_key_id=key_id)


def open_from(
    arguments: argparse.Namespace, location: StoreLocation, retries: RetryPolicy = OPERATOR_RETRIES
) -> ObjectStore:
    """Open the store, now or as it was at the time of --as-of, and check that it is usable.

    Raises what `ObjectStore.check` raises.
    """
    as_of = getattr(arguments, "store_as_of", None)
    store: ObjectStore
    if as_of is None:
        store = open_store(location, None, arguments.ca_file, retries)
    else:
        store = AsOfStore(open_history(location, None, arguments.ca_file, retries), location.prefix, as_of)
    try:
        store.check()
    except BaseException:
        store.close()
        raise
    return store


def keys_from(arguments: argparse.Namespace, active: str | None = None) -> KeyRing | None:
    """Return the keys from the options of `add_keys`; None if there are none.

    Raises:
        InvalidInput: a file is unreadable or contains no key, or --read-only-keys is malformed or names a missing key.
        KeyUnavailable: ``active`` is missing or read-only.
    """
    data: dict[str, bytes] = {}
    for text in arguments.key_files:
        key_id, path = _id_and_path(text)
        if key_id in data:
            raise InvalidInput(f"Two keys have the id {key_id}. Give each its own id, as ID=FILE.")
        try:
            with open(path, "rb") as file:
                data[key_id] = file.read(4096)
        except OSError as error:
            raise InvalidInput(f"Cannot read key file {path}: {error.strerror}") from error
    read_only = parse_read_only_keys(arguments.read_only_keys, "--read-only-keys")
    return (
        KeyRing.from_secret(data, active, "what --encryption-key-file gives", read_only) if data or read_only else None
    )


def _id_and_path(text: str) -> tuple[str, str]:
    key_id, equals, path = text.partition("=")
    if equals and "/" not in key_id:
        return key_id, path
    return os.path.basename(text), text
