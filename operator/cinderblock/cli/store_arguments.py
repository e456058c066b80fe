"""Opens what the options name: the store, and the keys."""

from __future__ import annotations

import argparse
import os

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import Addressing, ServerSideAlgorithm, ServerSideEncryption
from cinderblock.errors import InvalidInput
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.read_only_keys import parse_read_only_keys
from cinderblock.store.base import ObjectStore
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import OPERATOR_RETRIES, RetryPolicy


def location_from(arguments: argparse.Namespace, *, create: bool = False) -> StoreLocation:
    """Where the options say that the store is; ``create``: a container that does not exist is made.

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
        create_container=create,
        storage_class=getattr(arguments, "storage_class", None),
        server_side_encryption=_encryption(arguments),
        upload_bytes_per_second=arguments.limit_rate,
        download_bytes_per_second=arguments.limit_rate,
    )


def _encryption(arguments: argparse.Namespace) -> ServerSideEncryption | None:
    """What the server is to encrypt with; None for commands that write nothing, too."""
    algorithm = getattr(arguments, "sse", None)
    key_id = getattr(arguments, "sse_kms_key_id", None)
    if algorithm is None:
        if key_id is not None:
            raise InvalidInput("--sse-kms-key-id needs --sse aws:kms")
        return None
    return ServerSideEncryption(algorithm=ServerSideAlgorithm(algorithm), kms_key_id=key_id)


def open_from(
    arguments: argparse.Namespace, location: StoreLocation, patience: RetryPolicy = OPERATOR_RETRIES
) -> ObjectStore:
    """Open the store and make sure that it can be used. Raises what `ObjectStore.check` raises."""
    store = open_store(location, None, arguments.ca_file, patience)
    try:
        store.check()
    except BaseException:
        store.close()
        raise
    return store


def keys_from(arguments: argparse.Namespace, active: str | None = None) -> KeyRing | None:
    """Return the keys that the options of `add_keys` give; None if they give none.

    Raises InvalidInput for a file that cannot be read or holds no key, and for a mark that is malformed or whose key
    is not given; KeyUnavailable if ``active`` is not among them or is read-only.
    """
    data: dict[str, bytes] = {}
    for text in arguments.key_files:
        key_id, path = _id_and_path(text)
        if key_id in data:
            raise InvalidInput(f"There are two keys with id {key_id}: give ids of their own, as ID=FILE")
        try:
            with open(path, "rb") as file:
                data[key_id] = file.read(4096)
        except OSError as error:
            raise InvalidInput(f"Key file {path} cannot be read: {error.strerror}") from error
    read_only = parse_read_only_keys(arguments.read_only_keys, "--read-only-keys")
    return (
        KeyRing.from_secret(data, active, "what --encryption-key-file gives", read_only) if data or read_only else None
    )


def _id_and_path(text: str) -> tuple[str, str]:
    key_id, equals, path = text.partition("=")
    if equals and "/" not in key_id:
        return key_id, path
    return os.path.basename(text), text
