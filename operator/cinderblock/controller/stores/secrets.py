"""Secrets of BackupStores, each read at most once per reconciliation."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import AccessDenied, CinderblockError, KubeUnavailable, NotFound
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SECRET
from cinderblock.reasons import Reason


class Secret:
    """A decoded Secret. Its contents never appear in a repr."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.data = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        metadata = body["metadata"]
        self.annotations: dict[str, str] = metadata.get("annotations") or {}
        self.version = f"{metadata['uid']}/{metadata['resourceVersion']}"


class SecretReader:
    """The Secrets that one reconciliation has read. Make a new reader for each reconciliation: it never re-reads."""

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, str], Secret] = {}

    async def read(self, kube: KubeClient, store: BackupStore, name: str) -> Secret:
        """Return a Secret of a store, which is in its namespace, or in that of the operator if namespaces share it.

        Raises NotFound (SecretNotFound) if it does not exist, and KubeUnavailable.
        """
        key = secrets_of(store), name
        if key not in self._secrets:
            with hidden_from_tenants(store):
                self._secrets[key] = await _read(kube, store, name)
        return self._secrets[key]


def secrets_of(store: BackupStore) -> str:
    """Return the namespace of the Secrets of a store."""
    return store.secrets_in if isinstance(store, SharedStore) else store.namespace


def described(store: BackupStore) -> str:
    """Return kind and name of the object that names the Secrets, for messages."""
    return (
        f"ClusterBackupStore {store.cluster_store}" if isinstance(store, SharedStore) else f"BackupStore {store.name}"
    )


@contextmanager
def hidden_from_tenants(store: BackupStore) -> Iterator[None]:
    """Replace errors about the Secrets of a shared store, which namespaces read in statuses and Events.

    Such an error may name a Secret, its keys and annotations, and the operator's namespace. The operator checks the
    ClusterBackupStore itself as well, and reports the whole error there. Raises the replaced error, with its reason.
    """
    try:
        yield
    except CinderblockError as error:
        if not isinstance(store, SharedStore) or not store.namespace:
            raise
        message = f"A Secret of {described(store)} cannot be used. Ask an administrator, who finds the cause in its"
        raise type(error)(f"{message} condition Ready.", reason=error.reason) from None


async def _read(kube: KubeClient, store: BackupStore, name: str) -> Secret:
    try:
        body = await kube.get(SECRET, name, secrets_of(store))
    except AccessDenied as error:
        # An API server that has just started refuses what it allows a moment later, until it has loaded all roles.
        # That says nothing about the store, and must not end a backup.
        raise KubeUnavailable(f"Secret {name} of {described(store)}: {error.message}") from error
    if body is None:
        raise NotFound(
            f"Secret {name} of {described(store)} does not exist in namespace {secrets_of(store)}: create it",
            reason=Reason.SECRET_NOT_FOUND,
        )
    return Secret(body)
