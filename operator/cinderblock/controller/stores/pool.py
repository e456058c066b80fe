"""Stores as the operator uses them: opened from a BackupStore and its Secrets, kept open while nothing changed."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.circuit_breaker import UNPROVEN_CONCURRENT_CALLS, Endpoint, StoreBreaker
from cinderblock.controller.stores.secrets import Secret, _seen
from cinderblock.errors import AccessDenied, KubeUnavailable, NotFound
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.read_only_keys import READ_ONLY_KEYS_ANNOTATION, parse_read_only_keys
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SECRET
from cinderblock.lifecycle.children import location
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import credentials_from_secret
from cinderblock.store.factory import open_store
from cinderblock.store.instrumented import InstrumentedStore, OnRequest
from cinderblock.store.retrying import OPERATOR_RETRIES

T = TypeVar("T")

MAX_OPEN_STORES: Final = 64
"""Stores that are kept open; opening one costs tens of milliseconds of CPU, keeping one a few hundred kB."""

CHECK_CACHE_SECONDS: Final = 2.0
"""For how long it is believed that a store which has answered can be used: of the first two looks at a backup, which
follow each other at once, and of those at many backups that come together, one asks."""

ACTIVE_KEY_ANNOTATION: Final = "cinderblock.io/active-key"
"""On an encryption Secret: the key id that seals new backups."""


class StorePool:
    """Opens stores and remembers them as long as the BackupStore and its Secrets are the same."""

    def __init__(self, kube: KubeClient, tell: OnRequest | None = None) -> None:
        self._kube = kube
        self._endpoints: dict[str, Endpoint] = {}
        self._doubtful = asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS)
        self._checked: WeakKeyDictionary[ObjectStore, float] = WeakKeyDictionary()
        self._tell = tell
        self._open: OrderedDict[tuple[str, ...], ObjectStore] = OrderedDict()
        self._breaker: dict[str, StoreBreaker] = {}
        self._certificates: tempfile.TemporaryDirectory[str] | None = None

    async def open(self, store: BackupStore, container: str) -> ObjectStore:
        """The store's container, ready to be used from threads.

        Raises NotFound naming a Secret that is missing, InvalidInput naming a key of it that is missing or malformed.
        """
        spec = store.spec
        credentials = await self._secret(store, spec.credentials_secret_ref.name)
        certificates = await self._secret(store, spec.ca_secret_ref.name) if spec.ca_secret_ref else None
        versions = (credentials.version, certificates.version if certificates else "")
        key = (store.uid, spec.model_dump_json(), container, *versions)
        if key not in self._open:
            ca_file = self._write_certificates(store, certificates) if certificates else None
            place = location(store, container)
            opened = await asyncio.to_thread(
                open_store, place, credentials_from_secret(credentials.data), ca_file=ca_file, patience=OPERATOR_RETRIES
            )
            self._open[key] = InstrumentedStore(opened, self._tell) if self._tell else opened
        self._open.move_to_end(key)
        while len(self._open) > MAX_OPEN_STORES:
            # Closing is left to the garbage collector: a thread may still be using it.
            self._open.popitem(last=False)
        return self._open[key]

    async def call(self, store: BackupStore, call: Callable[[], T]) -> T:
        """Have ``call`` use the opened store, in a thread; see `Patience`. Raises what it raises."""
        address = store.spec.endpoint_url or store.spec.region
        endpoint = self._endpoints.setdefault(address, Endpoint())
        patience = self._breaker.setdefault(f"{store.uid} {address}", StoreBreaker(endpoint, self._doubtful))
        return await patience.call(call)

    async def check(self, store: BackupStore, container: str) -> None:
        """Raises what is wrong with a store: its Secrets, keys, endpoint, credentials, container."""
        opened, clock = await self.open(store, container), asyncio.get_running_loop().time
        await self.keys(store)
        if clock() - self._checked.get(opened, float("-inf")) >= CHECK_CACHE_SECONDS:
            await self.call(store, opened.check)
            self._checked[opened] = clock()

    async def keys(self, store: BackupStore) -> KeyRing | None:
        """The encryption keys of a store; None if its backups are not sealed. Raises as `open` does."""
        if store.spec.encryption_secret_ref is None:
            return None
        name = store.spec.encryption_secret_ref.name
        secret = await self._secret(store, name)
        words = secret.annotations.get(READ_ONLY_KEYS_ANNOTATION, "")
        read_only = parse_read_only_keys(words, f"annotation {READ_ONLY_KEYS_ANNOTATION} of Secret {name}")
        active = secret.annotations.get(ACTIVE_KEY_ANNOTATION)
        return KeyRing.from_secret(secret.data, active, "the encryption Secret", read_only)

    async def active_key(self, store: BackupStore) -> str | None:
        """Return the key id that movers must seal with; None: the greatest in the Secret.

        A mover sees the keys of the Secret, but not its annotations. Raises what `keys` raises; KeyUnavailable if all
        keys are read-only.
        """
        ring = await self.keys(store)
        if ring is None or store.spec.encryption_secret_ref is None:
            return None
        secret = await self._secret(store, store.spec.encryption_secret_ref.name)
        is_named = ACTIVE_KEY_ANNOTATION in secret.annotations
        return ring.active if is_named or ring.has_marks else None

    async def _secret(self, store: BackupStore, name: str) -> Secret:
        seen = _seen.get({})
        if (store.namespace, name) not in seen:
            seen[store.namespace, name] = await self._read_secret(store, name)
        return seen[store.namespace, name]

    async def _read_secret(self, store: BackupStore, name: str) -> Secret:
        try:
            body = await self._kube.get(SECRET, name, store.namespace)
        except AccessDenied as error:
            # An API server that has just started denies what it will allow in a moment, as long as it does not know
            # all roles. That is no answer of the store, and ends no backup at once.
            raise KubeUnavailable(f"Secret {name} of BackupStore {store.name}: {error.message}") from error
        if body is None:
            raise NotFound(
                f"Secret {name} of BackupStore {store.name} does not exist in namespace {store.namespace}: create it",
                reason=Reason.SECRET_NOT_FOUND,
            )
        return Secret(body)

    def _write_certificates(self, store: BackupStore, secret: Secret) -> str:
        """The CA certificates as a file, which is how boto3 wants them."""
        if "ca.crt" not in secret.data:
            raise NotFound(
                f"The CA Secret of BackupStore {store.name} has no key ca.crt: put the PEM certificates there",
                reason=Reason.SECRET_INCOMPLETE,
            )
        # Made when it is needed: whoever is killed leaves it behind.
        self._certificates = self._certificates or tempfile.TemporaryDirectory(prefix="cinderblock-ca-")
        path = os.path.join(self._certificates.name, f"{secret.version.replace('/', '-')}.pem")
        # Another store may be about to read the same file: it is whole, or not there.
        descriptor, written = tempfile.mkstemp(dir=self._certificates.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret.data["ca.crt"])
        os.replace(written, path)
        return path

    def close(self) -> None:
        """Close every store."""
        for opened in self._open.values():
            opened.close()
        if self._certificates is not None:
            self._certificates.cleanup()
