"""Storage class, server-side encryption and locks of objects."""

from __future__ import annotations

from typing import Any

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import ARCHIVE_STORAGE_CLASSES, ServerSideAlgorithm
from cinderblock.errors import InvalidInput
from cinderblock.store.base import ObjectLock


def put_options(location: StoreLocation) -> dict[str, Any]:
    """Return the parameters of PutObject and CreateMultipartUpload, except container, key and body.

    Raises InvalidInput for a storage class that cannot be read at once, and for a KMS key without KMS.
    """
    options: dict[str, Any] = {}
    if location.storage_class is not None:
        if location.storage_class in ARCHIVE_STORAGE_CLASSES:
            raise InvalidInput(
                f"Cannot use storage class {location.storage_class}: a backup could not be read at once. Choose a class"
                " without retrieval, such as STANDARD_IA or GLACIER_IR."
            )
        options["StorageClass"] = location.storage_class
    encryption = location.server_side_encryption
    if encryption is not None:
        options["ServerSideEncryption"] = encryption.algorithm.value
        if encryption.kms_key_id is not None:
            if encryption.algorithm is not ServerSideAlgorithm.KMS:
                raise InvalidInput(
                    "Cannot use a KMS key with an algorithm other than aws:kms. Set the algorithm to aws:kms."
                )
            options["SSEKMSKeyId"] = encryption.kms_key_id
    return options


def lock_options(lock: ObjectLock | None) -> dict[str, Any]:
    """Return the parameters of the same requests that lock the object."""
    if lock is None:
        return {}
    return {"ObjectLockMode": lock.mode.value, "ObjectLockRetainUntilDate": lock.until}
