"""The Secret with the broker's certificate: made, renewed and shared by all replicas, or made by an administrator.

The operator reads ca.crt from it and gives it to movers. All replicas write the same Secret, each with the version
that it has read, so that one of several wins and the others take over its result. A replica remembers the authorities.
If somebody deletes the Secret, the replica creates it again with the same authority, and running movers continue.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cinderblock.api.labels import MANAGED_BY, MANAGED_BY_LABEL
from cinderblock.broker.settings import BrokerSettings
from cinderblock.broker.tls import authorities, certificates
from cinderblock.broker.tls.authorities import CA, CA_KEY, NEXT, NEXT_KEY, Authorities
from cinderblock.broker.tls.certificates import Identity
from cinderblock.errors import AccessDenied, AlreadyExists, CinderblockError, Conflict, InvalidInput, NotFound
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SECRET
from cinderblock.reasons import Reason

CHECK_SECONDS: Final = 60.0
"""Interval of checks of the Secret."""
RETRY_SECONDS: Final = 5.0
"""The same while there is no usable Secret."""
_CHART_LABELS: Final = {"app.kubernetes.io/part-of": "cinderblock", "app.kubernetes.io/component": "broker"}
"""Labels of the empty Secret of the chart. The broker of the chart may not create one."""
_ATTEMPTS: Final = 5
"""How many times a write is tried if other replicas write at the same time."""

_logger = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class TlsSecret:
    """Keeps the Secret, and a file with certificate and key for the server.

    Args:
        kube: reads and writes the Secret.
        namespace: of the broker.
        settings: name of the Secret, whether the broker makes it, and the names of the server.
        clock: returns the time.
        on_expiry: gets the time at which the certificate expires, in seconds since 1970.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        settings: BrokerSettings,
        *,
        clock: Callable[[], datetime] = _now,
        on_expiry: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        self._on_expiry = on_expiry
        self._authorities: Authorities | None = None
        self._written: Identity | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="cinderblock-broker-tls-")

    @property
    def file(self) -> str:
        """Path of the file with certificate and private key. It exists once `refresh` has succeeded."""
        return os.path.join(self._directory.name, "tls.pem")

    @property
    def is_ready(self) -> bool:
        """Whether there is a certificate."""
        return self._written is not None

    async def keep(self) -> None:
        """Refresh until the task is cancelled. Failures are logged: the server continues with what it has."""
        while True:
            is_fresh = await self.try_refresh()
            await asyncio.sleep(CHECK_SECONDS if is_fresh else RETRY_SECONDS)

    async def wait(self) -> None:
        """Refresh until there is a certificate."""
        while True:
            if await self.try_refresh():
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def try_refresh(self) -> bool:
        """Refresh once, and return whether that succeeded. Failures are logged."""
        try:
            await self.refresh()
        except CinderblockError as error:
            _logger.warning("Cannot refresh the certificate of the broker", extra={"error": error.message})
            return False
        return True

    async def refresh(self) -> None:
        """Read the Secret, make or renew it if the broker makes it, and write the file if it has changed.

        Raises NotFound and InvalidInput for a Secret of an administrator that is missing or wrong; Conflict if other
        writers win each time; KubeUnavailable.
        """
        make = self._make if self._settings.makes_certificate else self._read_given
        identity = await make()
        if identity != self._written:
            self._write(identity)
            self._on_expiry(certificates.expiry_of(identity.certificate).timestamp())
            _logger.info("Took over the certificate", extra={"secret": self._settings.tls_secret})

    async def _read_given(self) -> Identity:
        """Return the certificate of an administrator."""
        name, body = self._settings.tls_secret, await self._get()
        if body is None:
            raise NotFound(f"Secret {name} does not exist: create it.", reason=Reason.SECRET_NOT_FOUND)
        data = _decode(body)
        missing = [key for key in ("tls.crt", "tls.key", "ca.crt") if not data.get(key)]
        if missing:
            raise InvalidInput(f"Secret {name} has no key {missing[0]}: add it.", reason=Reason.SECRET_INCOMPLETE)
        try:
            certificates.expiry_of(data["tls.crt"])
        except ValueError:
            raise InvalidInput(f"Secret {name} has no PEM certificate in tls.crt: put one there.") from None
        return Identity(data["tls.crt"], data["tls.key"])

    async def _make(self) -> Identity:
        """Return the certificate in the Secret, after making or renewing it if necessary."""
        for _ in range(_ATTEMPTS):
            body = await self._get()
            self._check_owner(body)
            data = _decode(body) if body is not None else {}
            identity = Identity(data.get("tls.crt", b""), data.get("tls.key", b""))
            names, now = self._settings.host_names, self._clock()
            chosen = authorities.choose(data, self._authorities, now)
            signing = chosen.signing
            is_usable = certificates.certificate_is_usable(identity, signing.certificate, names, now)
            if is_usable and _holds(data, chosen):
                self._authorities = chosen
                return identity
            made = identity if is_usable else certificates.make_certificate(signing, names, now)
            try:
                await self._put(body, chosen, made)
            except (AlreadyExists, Conflict):
                continue
            except NotFound:
                if body is None:
                    raise
                continue
            self._authorities = chosen
            return made
        raise Conflict(
            f"Cannot write Secret {self._settings.tls_secret}: others keep changing it. Its managed fields show"
            " who does."
        )

    def _check_owner(self, body: Mapping[str, Any] | None) -> None:
        """Raise Conflict for a Secret of somebody else, which must not be overwritten."""
        labels = (body or {}).get("metadata", {}).get("labels") or {}
        is_own = labels.get(MANAGED_BY_LABEL) == MANAGED_BY or _CHART_LABELS.items() <= labels.items()
        if body is not None and not is_own:
            raise Conflict(
                f"Secret {self._settings.tls_secret} is not one of the broker: it lacks the label {MANAGED_BY_LABEL}:"
                f" {MANAGED_BY}. Delete it, or name it in broker.tls.secretName of the chart."
            )

    async def _get(self) -> dict[str, Any] | None:
        return await self._kube.get(SECRET, self._settings.tls_secret, self._namespace)

    async def _put(self, body: Mapping[str, Any] | None, chosen: Authorities, made: Identity) -> None:
        """Create the Secret, or replace the version that was read."""
        content = chosen.data() | {"tls.crt": made.certificate, "tls.key": made.key}
        data = {key: _encode(value) for key, value in content.items()}
        metadata: dict[str, Any] = {"name": self._settings.tls_secret, "namespace": self._namespace}
        if body is None:
            metadata["labels"] = {MANAGED_BY_LABEL: MANAGED_BY}
            try:
                await self._kube.create(SECRET, {"metadata": metadata, "type": "kubernetes.io/tls", "data": data})
            except AccessDenied:
                raise NotFound(
                    f"Secret {self._settings.tls_secret} does not exist, and the chart creates it: run helm upgrade.",
                    reason=Reason.SECRET_NOT_FOUND,
                ) from None
            return
        kept = {key: value for key, value in (body.get("data") or {}).items() if key not in (NEXT, NEXT_KEY)}
        await self._kube.replace(SECRET, {**body, "data": {**kept, **data}})

    def _write(self, identity: Identity) -> None:
        """Replace the file in one step: the server reads it while it runs."""
        descriptor, temporary = tempfile.mkstemp(dir=self._directory.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(identity.key.rstrip() + b"\n" + identity.certificate)
        os.replace(temporary, self.file)
        self._written = identity

    def close(self) -> None:
        """Remove the file."""
        self._directory.cleanup()


def _holds(data: Mapping[str, bytes], chosen: Authorities) -> bool:
    """Return whether a Secret has the authorities that were chosen, and no next one that was not."""
    wanted = chosen.data()
    return all(data.get(key) == wanted.get(key) for key in (CA, CA_KEY, NEXT, NEXT_KEY))


def _decode(body: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the data of a Secret; a value that is not base64 counts as missing."""
    decoded: dict[str, bytes] = {}
    for key, value in (body.get("data") or {}).items():
        try:
            decoded[key] = base64.b64decode(value, validate=True)
        except binascii.Error:
            continue
    return decoded


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
