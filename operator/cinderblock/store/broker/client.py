"""Ask the broker for what a mover of a shared store needs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from pydantic import ValidationError

from cinderblock.api.broker import (
    CREDENTIALS_PATH,
    NEW_DATA_KEY_PATH,
    SIGN_PATH,
    UNWRAP_PATH,
    BrokerLocation,
    CredentialsAnswer,
    DataKeyAnswer,
    NewDataKeyRequest,
    SignAnswer,
    SignRequest,
    UnwrapRequest,
    WrappedKeyModel,
)
from cinderblock.api.meta import Model
from cinderblock.errors import AccessDenied, IntegrityError, InvalidInput, StoreUnreachable
from cinderblock.format.crypto.keyring import DataKey, WrappedKey
from cinderblock.format.crypto.remote_keys import OpenedKey
from cinderblock.reasons import Reason
from cinderblock.store.broker.faults import from_answer
from cinderblock.store.broker.transport import Transport
from cinderblock.store.retrying import BROKERED_RETRIES, RetryClock, RetryPolicy, repeat

TOKEN_BYTES: Final = 16 << 10
"""Most bytes of a token. Those of the API server have one or two thousand."""

_CLOCK: Final = RetryClock()

A = TypeVar("A", bound=Model)


class BrokerClient:
    """Calls of one mover to the broker. Several threads may use it.

    Args:
        location: of the broker.
        token_file: projected token of the mover's ServiceAccount. It is read for each call: the kubelet replaces it.
        policy: how long to repeat calls. Signing is not repeated: the store repeats the whole request.
        clock: for waits.

    Raises, from every method: StoreUnreachable (try again), AccessDenied (the broker refuses), PermanentError and
    InvalidInput. No message contains a token, a key or a credential.
    """

    def __init__(
        self,
        location: BrokerLocation,
        token_file: str,
        policy: RetryPolicy = BROKERED_RETRIES,
        clock: RetryClock = _CLOCK,
    ) -> None:
        self._transport = Transport(location.url, location.ca_certificate)
        self._token_file = token_file
        self._policy = policy
        self._clock = clock

    def sign(self, method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers that sign a request to the S3 server; see `store.credentials.RemoteSigner`."""
        try:
            request = SignRequest.model_validate({"method": method, "url": url, "headers": headers})
        except ValidationError:
            # Its text would quote the request.
            raise InvalidInput(
                f"Cannot ask the broker to sign a {method} request: its URL or its headers are too long."
            ) from None
        return self._post(SIGN_PATH, request, SignAnswer).headers

    def credentials(self) -> CredentialsAnswer:
        """Return session credentials for the operation."""
        return self._repeat(CREDENTIALS_PATH, None, CredentialsAnswer)

    def credentials_once(self) -> CredentialsAnswer:
        """Return session credentials for the operation, without a second attempt."""
        return self._post(CREDENTIALS_PATH, None, CredentialsAnswer)

    def new_data_key(self) -> OpenedKey:
        """Return a new data key for the backup of the operation, under the active key of the store."""
        return self._opened(self._repeat(NEW_DATA_KEY_PATH, NewDataKeyRequest(), DataKeyAnswer))

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime | None) -> DataKey:
        """Open a wrapped data key of a backup.

        Args:
            wrapped: the wrapped key.
            owner: volume id and backup id.
            created_at: time of the request for the backup, if the broker is to refuse a key that is too old for it.

        Also raises KeyUnavailable, IntegrityError and SealedTooLate.
        """
        sealed = WrappedKeyModel.model_construct(
            key_id=wrapped.key_id, salt=_encode(wrapped.salt), sealed=_encode(wrapped.sealed)
        )
        # Not validated: the ids are those of a stored manifest, and the broker says best what is wrong with them.
        request = UnwrapRequest.model_construct(
            volume_id=owner[0], backup_id=owner[1], created_at=created_at, wrapped=sealed
        )
        return self._opened(self._repeat(UNWRAP_PATH, request, DataKeyAnswer)).data_key

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _repeat(self, path: str, request: Model | None, kind: type[A]) -> A:
        return repeat(partial(self._post, path, request, kind), self._policy, self._clock)

    def _post(self, path: str, request: Model | None, kind: type[A]) -> A:
        body = b"{}" if request is None else request.model_dump_json(by_alias=True, exclude_none=True).encode()
        answer = self._transport.post(path, body, _read_token(self._token_file))
        if answer.status >= 300:
            raise from_answer(answer, self._transport.url)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError:
            # Its text would quote the answer.
            raise self._malformed() from None

    def _opened(self, answer: DataKeyAnswer) -> OpenedKey:
        wrapped = answer.wrapped
        try:
            secret = base64.b64decode(answer.data_key, validate=True)
            salt, sealed = (
                base64.b64decode(wrapped.salt, validate=True),
                base64.b64decode(wrapped.sealed, validate=True),
            )
            return OpenedKey(DataKey(secret), WrappedKey(wrapped.key_id, salt, sealed))
        except (binascii.Error, ValueError, IntegrityError):
            raise self._malformed() from None

    def _malformed(self) -> StoreUnreachable:
        return StoreUnreachable(
            f"Cannot use the broker at {self._transport.url}: its answer is malformed. Check that broker and mover have"
            " the same version.",
            reason=Reason.BROKER_UNAVAILABLE,
        )


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_token(path: str) -> str:
    """Return the token. Raises AccessDenied if there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise AccessDenied(
            f"Cannot read the token {path} for the broker: {error.strerror}. The kubelet mounts it into the mover's"
            " pod."
        ) from error
    # Any other character than printable ASCII could break an HTTP header.
    if not content or len(content) > TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in content):
        raise AccessDenied(f"Cannot use the token {path} for the broker: it is empty or malformed.")
    return content.decode("ascii")
