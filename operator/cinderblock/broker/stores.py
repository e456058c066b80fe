"""Credentials, keys and certificates of shared stores, from Secrets in the broker's own namespace.

They never leave the broker. It gives a mover only the data key or the session credentials of its own operation.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cinderblock.api.broker import CA_BYTES
from cinderblock.api.labels import ACTIVE_KEY_ANNOTATION, READ_ONLY_KEYS_ANNOTATION
from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.broker.faults import StoreNotReady
from cinderblock.broker.keyed_locks import KeyedLocks
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    InvalidInput,
    KeyUnavailable,
    KubeUnavailable,
    NotFound,
    StoreUnreachable,
)
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.read_only_keys import parse_read_only_keys
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SECRET
from cinderblock.lifecycle.children import location
from cinderblock.reasons import Reason
from cinderblock.store.credentials import S3Credentials, credentials_from_secret
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.s3.signers.signing import RequestSigner, container_url, ignores_unsigned_headers

OPEN_SECONDS: Final = 30.0
"""How long the content of a Secret is used before it is read again. Rotated credentials are used after this time."""
PASSED_SECONDS: Final = 3600.0
"""How long a server counts as one that checks all headers. That depends only on its software."""
FAILED_SECONDS: Final = 60.0
"""For how long it counts that it does not."""
PROBE_SECONDS: Final = 60.0
"""Seconds of a whole probe, whose requests may take a minute each."""
_OPEN_STORES: Final = 64

HeaderProbe = Callable[[StoreLocation, S3Credentials, str | None], bool]
"""Returns whether a server ignores headers that no signature covers: location, credentials, and path of a CA file."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenStore:
    """The parts of a shared store that the broker needs. A repr shows no secret.

    Attributes:
        container_url: URL of the bucket, without a slash at its end.
        place: the store, with the prefix of all namespaces.
        credentials: of the store.
        signer: signs requests with the credentials of the store.
        keys: encryption keys; None: the store does not encrypt.
        ca_file: PEM certificates that the server is checked against; None: those of the system.
    """

    container_url: str
    place: StoreLocation
    credentials: S3Credentials = field(repr=False)
    signer: RequestSigner = field(repr=False)
    keys: KeyRing | None = field(repr=False)
    ca_file: str | None


class StoreSecrets:
    """Opens shared stores, and keeps them open for a short time.

    Args:
        kube: reads Secrets.
        clock: returns seconds.
        ignores_unsigned_headers: asks a server whether it acts on headers that no signature covers.
    """

    def __init__(
        self,
        kube: KubeClient,
        clock: Callable[[], float] = time.monotonic,
        ignores_unsigned_headers: HeaderProbe = ignores_unsigned_headers,
    ) -> None:
        self._kube = kube
        self._ignores_unsigned_headers = ignores_unsigned_headers
        self._ignoring: TtlCache[bool] = TtlCache(_OPEN_STORES, _OPEN_STORES, clock)
        self._probes: dict[str, asyncio.Task[bool | None]] = {}
        self._open: TtlCache[OpenStore] = TtlCache(_OPEN_STORES, _OPEN_STORES, clock)
        self._opening = KeyedLocks()
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    async def open(self, store: SharedStore) -> OpenStore:
        """Return what is needed of a store.

        Raises StoreNotReady naming what is missing or malformed, and KubeUnavailable.
        """
        key = _key(store)
        known = self._open.get(key)
        if known is not None:
            return known
        async with self._opening.hold(key):
            known = self._open.get(key)
            if known is None:
                try:
                    known = await self._make(store)
                except (NotFound, InvalidInput, KeyUnavailable) as error:
                    # All namespaces would lose their running movers while somebody replaces a Secret.
                    raise StoreNotReady(error.message, reason=error.reason) from None
                self._open.put(key, "", known, OPEN_SECONDS)
            return known

    async def open_to_sign(self, store: SharedStore) -> OpenStore:
        """Return what is needed to sign requests, once the server has shown that it checks all headers.

        The operator makes the same check, but its result can lag behind a change of the ClusterBackupStore.

        Raises AccessDenied (UnsignedHeadersAccepted) for a server that does not, StoreUnreachable if the server gives
        no answer to that question now, and what `open` raises.
        """
        opened, key = await self.open(store), _key(store)
        ignoring = self._ignoring.get(key)
        if ignoring is None:
            ignoring = await self._probe(key, store, opened)
        if ignoring is None:
            # Tenants read the answer, and the administrator reads the log.
            raise StoreUnreachable(
                f"The broker cannot check the S3 server of ClusterBackupStore {store.cluster_store}. Its log has the"
                " cause.",
                reason=Reason.BROKER_UNAVAILABLE,
            )
        if ignoring:
            raise AccessDenied(
                f"The S3 server of ClusterBackupStore {store.cluster_store} accepts headers that the signature of a"
                " request does not cover, so the broker signs nothing for it. Ask an administrator to use another S3"
                " server, or session credentials.",
                reason=Reason.UNSIGNED_HEADERS_ACCEPTED,
            )
        return opened

    async def _probe(self, key: str, store: SharedStore, opened: OpenStore) -> bool | None:
        """Return whether the server ignores such headers; None if that is not known now.

        All requests share one probe. It continues when they end, because its thread does: if each of them began another
        one, a server that hangs would soon hold all threads, and no store could be opened.
        """
        task = self._probes.get(key)
        if task is None:
            task = self._probes[key] = asyncio.create_task(self._ask(key, store, opened))
        return await asyncio.shield(task)

    async def _ask(self, key: str, store: SharedStore, opened: OpenStore) -> bool | None:
        try:
            ignoring = await asyncio.to_thread(self._ask_within_time, opened)
        except CinderblockError as error:
            _logger.warning(
                "Cannot ask an S3 server whether it checks all headers",
                extra={"store": store.cluster_store, "cause": error.message},
            )
            return None
        finally:
            del self._probes[key]
        self._ignoring.put(key, "", ignoring, FAILED_SECONDS if ignoring else PASSED_SECONDS)
        return ignoring

    def _ask_within_time(self, opened: OpenStore) -> bool:
        with limit_seconds(PROBE_SECONDS):
            return self._ignores_unsigned_headers(opened.place, opened.credentials, opened.ca_file)

    async def _make(self, store: SharedStore) -> OpenStore:
        spec = store.spec
        if spec.credentials_secret_ref is None:
            raise InvalidInput(f"ClusterBackupStore {store.cluster_store} names no credentials Secret.")
        _, data = await self._read(store, spec.credentials_secret_ref.name, "credentials")
        credentials = credentials_from_secret(data)
        ca_file = await self._write_certificates(store)
        keys = await self._keys(store)
        place = location(store, spec.container, ()).model_copy(update={"prefix": store.root_prefix})
        url = await asyncio.to_thread(container_url, place)
        return OpenStore(url, place, credentials, RequestSigner(credentials, spec.region), keys, ca_file)

    async def _keys(self, store: SharedStore) -> KeyRing | None:
        if store.spec.encryption_secret_ref is None:
            return None
        metadata, data = await self._read(store, store.spec.encryption_secret_ref.name, "encryption")
        annotations = metadata.get("annotations") or {}
        text = annotations.get(READ_ONLY_KEYS_ANNOTATION, "")
        read_only = parse_read_only_keys(text, f"annotation {READ_ONLY_KEYS_ANNOTATION} of the encryption Secret")
        return KeyRing.from_secret(data, annotations.get(ACTIVE_KEY_ANNOTATION), "the encryption Secret", read_only)

    async def _write_certificates(self, store: SharedStore) -> str | None:
        """Write the CA certificates to a file, as botocore needs them, and return its path."""
        if store.spec.ca_secret_ref is None:
            return None
        _, data = await self._read(store, store.spec.ca_secret_ref.name, "CA")
        content = data.get("ca.crt", b"")
        if not content or len(content) > CA_BYTES:
            raise NotFound(
                f"The CA Secret of ClusterBackupStore {store.cluster_store} has no key ca.crt, or one of more than"
                f" {CA_BYTES >> 10} KiB. Ask an administrator to correct it.",
                reason=Reason.SECRET_INCOMPLETE,
            )
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="cinderblock-broker-ca-")
        path = os.path.join(self._directory.name, f"{store.cluster_store_uid}.pem")
        descriptor, temporary = tempfile.mkstemp(dir=self._directory.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
        return path

    async def _read(self, store: SharedStore, name: str, role: str) -> tuple[Mapping[str, Any], dict[str, bytes]]:
        """Return metadata and data of a Secret. Messages name only its role: tenants read them."""
        label = f"The {role} Secret of ClusterBackupStore {store.cluster_store}"
        try:
            body = await self._kube.get(SECRET, name, store.secrets_in)
        except AccessDenied:
            raise KubeUnavailable(f"{label} cannot be read: the API server refuses it to the broker.") from None
        if body is None:
            raise NotFound(f"{label} does not exist.", reason=Reason.SECRET_NOT_FOUND)
        try:
            data = {key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()}
        except binascii.Error:
            raise InvalidInput(f"{label} is not base64.") from None
        return body["metadata"], data

    def close(self) -> None:
        """Remove the files."""
        if self._directory is not None:
            self._directory.cleanup()


def _key(store: SharedStore) -> str:
    """Return what all namespaces of a shared store have in common: everything but the prefix."""
    shared = store.spec.model_copy(update={"prefix": "", "cluster_store_ref": None})
    return f"{store.cluster_store_uid}/{hashlib.sha256(shared.model_dump_json().encode()).hexdigest()}"
