"""Requests and answers between a mover of a shared store and the broker: JSON over HTTPS.

The mover shows its projected ServiceAccount token (``Authorization: Bearer``), whose audience is AUDIENCE. From the
token the broker knows the pod, from the pod the operation, and from the operation what the mover may do. Nothing that
the mover sends widens that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.store import MoverAccess

AUDIENCE: Final = "cinderblock-broker"
"""Audience of the tokens that movers show (authentication.k8s.io/v1 TokenReview)."""
TOKEN_DIRECTORY: Final = "broker"  # noqa: S105
"""Directory of the projected token, below `mover.SECRETS_DIRECTORY`."""
TOKEN_FILE: Final = "token"  # noqa: S105
"""Name of the file in it."""
TOKEN_SECONDS: Final = 3600
"""Lifetime of a token. The kubelet replaces it after 80 % of this time."""

SIGN_PATH: Final = "/v1/sign"
CREDENTIALS_PATH: Final = "/v1/credentials"
NEW_DATA_KEY_PATH: Final = "/v1/data-keys/new"
UNWRAP_PATH: Final = "/v1/data-keys/unwrap"

CA_BYTES: Final = 256 << 10
"""Most bytes of the CA certificates of a store: the public authorities have 220 KiB. Those of all stores that the
operator keeps open stay far below the 64 MiB of its /tmp."""

Header = Annotated[str, Field(max_length=2048)]
Base64 = Annotated[str, Field(max_length=1024, pattern=r"^[A-Za-z0-9+/=]*$")]


class BrokerLocation(Model):
    """Where a mover finds the broker, and what it gets there. It contains no secrets."""

    url: str
    """URL of the broker, for example https://cinderblock-broker.cinderblock-system.svc:8778."""
    ca_certificate: str
    """PEM certificate of the authority that signs the broker's certificate."""
    access: MoverAccess
    """How the mover reaches the store."""
    encrypts: bool
    """Whether the store has encryption keys, which only the broker uses."""
    ca_certificates: Annotated[str, Field(max_length=CA_BYTES)] = ""
    """PEM certificates of the authorities that sign the certificate of the S3 server. Empty for those of the system."""
    lists: bool = True
    """Whether the mover may list objects. The restore of a backup of another namespace reads only objects that it
    knows by their keys."""


class SignRequest(Model):
    """Request to sign one HTTP request to the S3 server (Signature Version 4, in headers)."""

    method: Literal["GET", "HEAD", "PUT", "POST", "DELETE"]
    url: Annotated[str, Field(max_length=8192)]
    """URL of the request, exactly as the mover will send it, with the query."""
    headers: Annotated[dict[Annotated[str, Field(max_length=128)], Header], Field(max_length=32)]
    """Headers that the signature must cover. The broker refuses any that it does not know."""


class SignAnswer(Model):
    """The headers that sign the request. The mover adds them, and changes nothing that they cover."""

    headers: dict[str, str]


class CredentialsAnswer(Model):
    """Session credentials for the operation of the mover (AWS STS: Credentials)."""

    access_key_id: str
    secret_access_key: Annotated[str, Field(repr=False)]
    session_token: Annotated[str, Field(repr=False)]
    expires_at: datetime


class WrappedKeyModel(Model):
    """A wrapped data key, see `format.crypto.keyring.WrappedKey`."""

    key_id: Annotated[str, Field(min_length=1, max_length=253)]
    salt: Base64
    sealed: Base64


class NewDataKeyRequest(Model):
    """Request for a data key of the backup that the mover makes, under the active key of the store."""


class UnwrapRequest(Model):
    """Request to open a wrapped data key of a backup of the operation's volume."""

    volume_id: Annotated[str, Field(max_length=64)]
    backup_id: Annotated[str, Field(max_length=64)]
    created_at: datetime | None = None
    """Time of the request for the backup, so that the broker refuses what a read-only key sealed after its mark."""
    wrapped: WrappedKeyModel


class DataKeyAnswer(Model):
    """A data key, in clear and wrapped. Only TLS protects it on its way."""

    data_key: Annotated[Base64, Field(repr=False)]
    wrapped: WrappedKeyModel


class BrokerFault(Model):
    """Body of an answer that reports a failure."""

    reason: Annotated[str, Field(max_length=64)]
    """A `Reason`."""
    message: Annotated[str, Field(max_length=1024)]
    """Problem and remedy, without any secret."""
    transient: bool = False
    """Whether the mover may try again."""
