"""The open object stores of the operator, each kept open while its BackupStore and Secrets stay the same."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from cinderblock.api.broker import CA_BYTES
from cinderblock.api.labels import ACTIVE_KEY_ANNOTATION, READ_ONLY_KEYS_ANNOTATION
from cinderblock.api.meta import ObjectMeta
from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import Addressing, BackupStore, MoverAccess
from cinderblock.controller.stores.circuit_breaker import (
    CALL_SECONDS,
    SHARED_STORE_CALLS,
    Circuit,
    Endpoint,
    NamespaceSlots,
    SharedCircuit,
    SharedSlots,
    StoreBreaker,
)
from cinderblock.controller.stores.secrets import Secret, SecretReader, described, hidden_from_tenants
from cinderblock.controller.stores.shared_checks import SharedChecks
from cinderblock.errors import CinderblockError, InvalidInput, NotFound, StoreUnreachable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.read_only_keys import parse_read_only_keys
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.children import location
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials, credentials_from_secret
from cinderblock.store.factory import open_store
from cinderblock.store.instrumented import InstrumentedStore, OnRequest
from cinderblock.store.retention import read_rules
from cinderblock.store.retrying import OPERATOR_RETRIES

T = TypeVar("T")

HeaderProbe = Callable[[StoreLocation, S3Credentials, str | None], bool]
"""Asks the server at a location whether it ignores headers that the signature of a request does not cover. The last
argument is the file of the CA certificates."""

MAX_OPEN_STORES: Final = 64
"""Stores kept open. Opening one costs tens of milliseconds of CPU, keeping one open a few hundred kB. A namespace with
many stores takes the place of its own ones first."""

MAX_BREAKERS: Final = 100
"""Stores of one namespace whose breakers are kept. A breaker takes up to 8 KiB, with a URL as long as a store may have,
and a namespace may have 20,000 stores. A new breaker has forgotten the last five seconds, and whether the store
answers."""

RULES_CACHE_SECONDS: Final = 3600.0
"""For how long the rules of a container count: people change them rarely. They cost three requests."""
RULES_RETRY_SECONDS: Final = 300.0
"""For how long it counts that a store did not answer when it was asked for its rules, or did not tell one of them."""

CHECK_CACHE_SECONDS: Final = 2.0
"""For how long a successful check counts. The first two reconciliations of a backup follow each other at once, and
many backups may be created together: they share one check."""


class _StoreCalls(NamedTuple):
    """The breaker of a BackupStore, and what it was made for."""

    uid: str
    address: str
    breaker: StoreBreaker


class StorePool:
    """Opens the containers of BackupStores, keeps them open, and limits the calls to them.

    Args:
        kube: reads the Secrets.
        on_request: receives the result of each request to a store.
        allowed_endpoints: S3 endpoints that the administrator allows; empty: all.
        ignores_unsigned_headers: asks a server whether it ignores headers that the signature of a request does not
            cover. Such a server would let a mover copy the objects of other namespaces.
    """

    def __init__(
        self,
        kube: KubeClient,
        on_request: OnRequest | None = None,
        allowed_endpoints: Sequence[str] = (),
        *,
        ignores_unsigned_headers: HeaderProbe,
    ) -> None:
        self._kube = kube
        self._on_request = on_request
        self._allowed_endpoints = allowed_endpoints
        self._calls: dict[str, OrderedDict[str, _StoreCalls]] = {}
        """By `_caller` and name of the store, the least recently used first."""
        self._ignores_unsigned_headers = ignores_unsigned_headers
        # An endpoint lives as long as the breaker of a store that uses it. Each namespace has its own, because
        # its stores may name a bucket whose host does not exist.
        self._endpoints: WeakValueDictionary[tuple[str, str], Endpoint] = WeakValueDictionary()
        self._examples: WeakValueDictionary[str, Endpoint] = WeakValueDictionary()
        # The slots of a namespace live as long as the breaker of one of its stores.
        self._namespaces: WeakValueDictionary[str, NamespaceSlots] = WeakValueDictionary()
        self._shared_slots = SharedSlots()
        # A circuit lives as long as the breaker of a BackupStore that uses it.
        self._circuits: WeakValueDictionary[tuple[str, str], Circuit] = WeakValueDictionary()
        self._shared_checks = SharedChecks()
        self._checked: WeakKeyDictionary[ObjectStore, float] = WeakKeyDictionary()
        self._rules: WeakKeyDictionary[ObjectStore, tuple[float, ContainerRules | None]] = WeakKeyDictionary()
        self._open: OrderedDict[tuple[str, ...], ObjectStore] = OrderedDict()
        """The namespace comes first in each key, or the name of a ClusterBackupStore after a slash."""
        self._opening: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self._ca_files: WeakKeyDictionary[ObjectStore, str | None] = WeakKeyDictionary()
        self._certificates: tempfile.TemporaryDirectory[str] | None = None
        self._certificate_users: Counter[str] = Counter()
        self._released: deque[str] = deque()
        """Certificate files that a store used until it was closed. The garbage collector adds them, in any thread."""

    async def open(self, store: BackupStore, container: str, secrets: SecretReader) -> ObjectStore:
        """Return a container of a store, ready for use from threads.

        Raises NotFound naming a missing Secret, InvalidInput naming a missing or malformed key of it.
        """
        credentials, ca = await self._secrets_of(store, secrets)
        address = _location(store, container, self._allowed_endpoints)
        key = (*_group(store), *_digest(store), container, credentials.version, ca.version if ca else "")
        # A shared store is opened once, however many namespaces use it first at the same time.
        async with self._opening.setdefault(key, asyncio.Lock()):
            if key not in self._open:
                self._open[key] = await self._open_new(store, address, credentials, ca)
            found = self._open[key]
        self._open.move_to_end(key)
        self._close_excess()
        self._remove_released()
        return found

    async def _open_new(
        self, store: BackupStore, address: StoreLocation, credentials: Secret, ca: Secret | None
    ) -> ObjectStore:
        with hidden_from_tenants(store):
            ca_file = self._write_certificates(store, ca) if ca else None
            found = credentials_from_secret(credentials.data)
        try:
            # A CA file without certificates is found out here, and the message has its path.
            with hidden_from_tenants(store):
                opened = await asyncio.to_thread(
                    open_store,
                    address,
                    found,
                    ca_file=ca_file,
                    policy=OPERATOR_RETRIES,
                )
        except CinderblockError:
            self._released.extend([ca_file] if ca_file else [])
            self._remove_released()
            raise
        counted = InstrumentedStore(opened, self._on_request) if self._on_request else opened
        self._ca_files[counted] = ca_file
        if ca_file:
            # Each new connection reads the file, so it stays until nobody uses the store any more. The collector
            # may run in a thread that holds any lock, so a finalizer must not wait for one.
            weakref.finalize(counted, self._released.append, ca_file).atexit = False
        return counted

    async def _secrets_of(self, store: BackupStore, secrets: SecretReader) -> tuple[Secret, Secret | None]:
        """Return the Secrets with the credentials and the CA certificates."""
        spec = store.spec
        if spec.credentials_secret_ref is None:
            raise InvalidInput(f"BackupStore {store.name} names no Secret with credentials: set credentialsSecretRef")
        credentials = await secrets.read(self._kube, store, spec.credentials_secret_ref.name)
        ca = await secrets.read(self._kube, store, spec.ca_secret_ref.name) if spec.ca_secret_ref else None
        return credentials, ca

    def _close_excess(self) -> None:
        """Close the store that was used least recently, of the namespace that has most.

        A store that namespaces share counts as a namespace of its own.
        """
        while len(self._open) > MAX_OPEN_STORES:
            counts = Counter(namespace for namespace, *_ in self._open)
            most = max(counts.values())
            # Closing is left to the garbage collector: a thread may still use the store.
            del self._open[next(key for key in self._open if counts[key[0]] == most)]

    async def call(self, store: BackupStore, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        """Run a function that uses an open store, in a thread; see `StoreBreaker`. Raises what the function raises."""
        return await self._breaker(store).call(call, seconds)

    def _breaker(self, store: BackupStore) -> StoreBreaker:
        address, uid = _address(store), f"{store.uid} {_group(store)[1]}"
        namespace = _caller(store)
        kept = self._calls.setdefault(namespace, OrderedDict())
        calls = kept.get(store.name)
        if calls is None or (calls.uid, calls.address) != (uid, address):
            shared = self._circuit(store, address) if isinstance(store, SharedStore) else None
            slots = self._namespaces.get(namespace) or self._shared_slots.of_namespace()
            self._namespaces[namespace] = slots
            label = f"{described(store)} at {store.spec.endpoint_url or 'AWS'}"
            breaker = StoreBreaker(self._endpoint(namespace, address), slots, label, shared)
            kept[store.name] = calls = _StoreCalls(uid, address, breaker)
        kept.move_to_end(store.name)
        if len(kept) > MAX_BREAKERS:
            # One that is in use has slots, which a new one would not count.
            idle = (name for name, other in kept.items() if other is not calls and other.breaker.is_idle)
            kept.pop(next(idle, ""), None)
        return calls.breaker

    def _circuit(self, store: SharedStore, address: str) -> SharedCircuit:
        """Return what all namespaces that share a store know of it: its settings are the administrator's."""
        key = store.cluster_store_uid, address
        circuit = self._circuits.get(key) or Circuit(SHARED_STORE_CALLS)
        self._circuits[key] = circuit
        return SharedCircuit(circuit, store.namespace)

    def _endpoint(self, namespace: str, address: str) -> Endpoint:
        """Return an address as a namespace sees it. It begins as proven if it answers another namespace."""
        example = self._examples.get(address)
        known_good = example is not None and example.is_proven
        endpoint = self._endpoints.get((namespace, address)) or Endpoint(is_proven=known_good)
        self._endpoints[namespace, address] = endpoint
        if not known_good:
            self._examples[address] = endpoint
        return endpoint

    def forget(self, namespace: str, name: str) -> None:
        """Forget the calls to a store that no longer exists. A ClusterBackupStore has no namespace."""
        caller = namespace or f"/{name}"
        kept = self._calls.get(caller)
        if kept is not None:
            kept.pop(name, None)
            if not kept:
                del self._calls[caller]

    async def check(self, store: BackupStore, container: str, secrets: SecretReader) -> None:
        """Check Secrets, keys, endpoint, credentials and container of a store. Raises what is wrong with them."""
        opened, clock = await self.open(store, container, secrets), asyncio.get_running_loop().time
        await self.keys(store, secrets)
        if isinstance(store, SharedStore):
            asks = await self._header_probe(opened, store, container, secrets)
            await self._shared_checks.check(opened, partial(self.call, _whole(store)), asks)
            return
        if clock() - self._checked.get(opened, float("-inf")) >= CHECK_CACHE_SECONDS:
            await self.call(store, opened.check)
            self._checked[opened] = clock()

    async def _header_probe(
        self, opened: ObjectStore, store: SharedStore, container: str, secrets: SecretReader
    ) -> Callable[[], bool] | None:
        """Return what asks the server about unsigned headers; None if movers of the store send no signed requests."""
        if store.mover_access.mode is not MoverAccess.SIGNED_REQUESTS:
            return None
        credentials, _ = await self._secrets_of(store, secrets)
        address, known = _location(store, container, self._allowed_endpoints), credentials_from_secret(credentials.data)
        return partial(self._ignores_unsigned_headers, address, known, self._ca_files.get(opened))

    async def container_rules(self, store: BackupStore, container: str, secrets: SecretReader) -> ContainerRules | None:
        """Return what a container does with deleted objects; None if the store does not answer now.

        Nothing depends on the rules, so this is asked at most once an hour, is not repeated, and opens no breaker. It
        is asked earlier again if a rule is unknown: a permission may have been granted.
        Raises as `open` does; StoreUnreachable if too many other calls wait for the store.
        """
        opened, clock = await self.open(store, container, secrets), asyncio.get_running_loop().time
        if opened in self._rules and clock() < self._rules[opened][0]:
            return self._rules[opened][1]
        caller = _whole(store) if isinstance(store, SharedStore) else store
        rules = await self.call(caller, partial(_read_rules, opened))
        is_known = rules is not None and rules.are_known
        seconds = RULES_CACHE_SECONDS if is_known else RULES_RETRY_SECONDS
        self._rules[opened] = clock() + seconds, rules
        return rules

    async def keys(self, store: BackupStore, secrets: SecretReader) -> KeyRing | None:
        """Return the encryption keys of a store; None if it does not encrypt. Raises as `open` does."""
        if store.spec.encryption_secret_ref is None:
            return None
        name = store.spec.encryption_secret_ref.name
        secret = await secrets.read(self._kube, store, name)
        text = secret.annotations.get(READ_ONLY_KEYS_ANNOTATION, "")
        active = secret.annotations.get(ACTIVE_KEY_ANNOTATION)
        with hidden_from_tenants(store):
            read_only = parse_read_only_keys(text, f"annotation {READ_ONLY_KEYS_ANNOTATION} of Secret {name}")
            return KeyRing.from_secret(secret.data, active, "the encryption Secret", read_only)

    async def active_key(self, store: BackupStore, secrets: SecretReader) -> str | None:
        """Return the key id that movers must seal with; None: the greatest in the Secret.

        A mover sees the keys of the Secret, but not its annotations. Raises what `keys` raises; KeyUnavailable if all
        keys are read-only.
        """
        ring = await self.keys(store, secrets)
        if ring is None or store.spec.encryption_secret_ref is None:
            return None
        secret = await secrets.read(self._kube, store, store.spec.encryption_secret_ref.name)
        is_named = ACTIVE_KEY_ANNOTATION in secret.annotations
        with hidden_from_tenants(store):
            return ring.active if is_named or ring.has_read_only_keys else None

    def _write_certificates(self, store: BackupStore, secret: Secret) -> str:
        """Write the CA certificates to a file, as boto3 needs them, and return its path, to be released once."""
        if "ca.crt" not in secret.data:
            raise NotFound(
                f"The CA Secret of {described(store)} has no key ca.crt: put the PEM certificates there",
                reason=Reason.SECRET_INCOMPLETE,
            )
        if len(secret.data["ca.crt"]) > CA_BYTES:
            raise InvalidInput(
                f"The key ca.crt in the CA Secret of {described(store)} has more than {CA_BYTES >> 10} KiB: put"
                " only the certificates of the authorities there that sign the endpoint's certificate"
            )
        # Made on first use: a process that is killed leaves the directory behind.
        self._certificates = self._certificates or tempfile.TemporaryDirectory(prefix="cinderblock-ca-")
        path = os.path.join(self._certificates.name, f"{secret.version.replace('/', '-')}.pem")
        self._certificate_users[path] += 1
        # Another store may be about to read the same file: replace it in one step.
        descriptor, temporary = tempfile.mkstemp(dir=self._certificates.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret.data["ca.crt"])
        os.replace(temporary, path)
        return path

    def _remove_released(self) -> None:
        """Remove the certificate files that no store needs any more."""
        while self._released:
            path = self._released.popleft()
            self._certificate_users[path] -= 1
            if self._certificate_users[path] <= 0:
                del self._certificate_users[path]
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def close(self) -> None:
        """Close all stores."""
        for opened in self._open.values():
            opened.close()
        if self._certificates is not None:
            self._certificates.cleanup()


def _address(store: BackupStore) -> str:
    """Return what identifies the host of a store. With virtual addressing, the bucket is a part of it."""
    bucket = store.spec.container if store.spec.addressing is Addressing.VIRTUAL else ""
    return f"{bucket} {store.spec.endpoint_url or store.spec.region}".strip()


def _caller(store: BackupStore) -> str:
    """Return what has slots of its own: a namespace, or a ClusterBackupStore that is called for all namespaces."""
    return store.namespace or f"/{store.name}"


def _group(store: BackupStore) -> tuple[str, str]:
    """Return what shares open stores, and its UID: a BackupStore in its namespace, or a ClusterBackupStore."""
    if isinstance(store, SharedStore):
        return f"/{store.cluster_store}", store.cluster_store_uid
    return store.namespace, store.uid


def _digest(store: BackupStore) -> tuple[str]:
    """Return what identifies the settings of a store. The client of a shared one does not depend on the namespace."""
    spec = store.spec.model_copy(update={"prefix": ""}) if isinstance(store, SharedStore) else store.spec
    return (hashlib.sha256(spec.model_dump_json().encode()).hexdigest(),)


def _location(store: BackupStore, container: str, allowed_endpoints: Sequence[str]) -> StoreLocation:
    """Return what a store is opened with. A shared one is checked at the prefix of all its namespaces.

    Raises InvalidInput for another container than that of a shared store.
    """
    found = location(store, container, allowed_endpoints)
    if not isinstance(store, SharedStore):
        return found
    if container != store.spec.container:
        raise InvalidInput(f"{described(store)} has only container {store.spec.container}, not {container}")
    return found.model_copy(update={"prefix": store.root_prefix})


def _whole(store: SharedStore) -> SharedStore:
    """Return a shared store as the ClusterBackupStore has it, whose calls use up no slots of a namespace."""
    metadata = ObjectMeta(name=store.cluster_store, uid=store.cluster_store_uid)
    return store.model_copy(update={"metadata": metadata})


def _read_rules(opened: ObjectStore) -> ContainerRules | None:
    try:
        return read_rules(opened.retention)
    except StoreUnreachable:
        return None
