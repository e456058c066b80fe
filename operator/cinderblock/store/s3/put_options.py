"""How objects are to lie on the server: their storage class, and what the server encrypts them with."""

from __future__ import annotations

from typing import Any

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import ARCHIVE_STORAGE_CLASSES, ServerSideAlgorithm
from cinderblock.errors import InvalidInput


def put_options(location: StoreLocation) -> dict[str, Any]:
    """Parameters of PutObject and CreateMultipartUpload, beside key and body.

    Raises InvalidInput for a storage class that cannot be read at once, and for a KMS key without KMS.
    """
    wanted: dict[str, Any] = {}
    if location.storage_class is not None:
        if location.storage_class in ARCHIVE_STORAGE_CLASSES:
            raise InvalidInput(
                f"A backup in storage class {location.storage_class} could not be read at once: choose one that needs "
                "no retrieval, such as STANDARD_IA or GLACIER_IR"
            )
        wanted["StorageClass"] = location.storage_class
    encryption = location.server_side_encryption
    if encryption is not None:
        wanted["ServerSideEncryption"] = encryption.algorithm.value
        if encryption.kms_key_id is not None:
            if encryption.algorithm is not ServerSideAlgorithm.KMS:
                raise InvalidInput("A KMS key needs the algorithm aws:kms")
            wanted["SSEKMSKeyId"] = encryption.kms_key_id
    return wanted
