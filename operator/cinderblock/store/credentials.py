"""Access to a store: credentials from a Secret (mounted files, or the API server), or a signer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.reasons import Reason

ID_FILE: Final = "AWS_ACCESS_KEY_ID"
KEY_FILE: Final = "AWS_SECRET_ACCESS_KEY"
SESSION_FILE: Final = "AWS_SESSION_TOKEN"


@dataclass(frozen=True, slots=True, repr=False)
class S3Credentials:
    """Credentials that sign requests. A repr shows none of them.

    Attributes:
        access_key: access key id.
        secret_key: secret access key.
        session_token: session token of temporary credentials.
    """

    access_key: str
    secret_key: str
    session_token: str | None = None

    @override
    def __repr__(self) -> str:
        return "S3Credentials(hidden)"


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """Signs requests elsewhere, so that this program needs no credentials.

    Attributes:
        sign: returns the headers that sign a request, for its method, its URL, and the headers that the signature must
            cover. Raises StoreUnreachable if another attempt may help, and AccessDenied if it is refused.
    """

    sign: Callable[[str, str, Mapping[str, str]], Mapping[str, str]]


Credentials = S3Credentials | RemoteSigner
"""Access to a store: credentials, or a signer that has them."""


def read_credentials(directory: str) -> S3Credentials:
    """Read credentials from the files of a mounted Secret.

    Raises InvalidInput naming the file that is missing or malformed, AccessDenied if this user may not read it.
    """
    data = {name: content for name in (ID_FILE, KEY_FILE, SESSION_FILE) if (content := _read(directory, name))}
    return _credentials(data, f"the credentials in {directory}")


def credentials_from_secret(data: Mapping[str, bytes]) -> S3Credentials:
    """Return the credentials in a Secret's decoded ``data``. Raises InvalidInput naming a key that is missing."""
    return _credentials(data, "the credentials Secret")


def _read(directory: str, name: str) -> bytes | None:
    path = os.path.join(directory, name)
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AccessDenied(f"Cannot read credentials file {path}: {error.strerror}. Let this user read it.") from error


def _credentials(data: Mapping[str, bytes], origin: str) -> S3Credentials:
    values = {name: _text(data, name, origin) for name in (ID_FILE, KEY_FILE, SESSION_FILE)}
    for name in (ID_FILE, KEY_FILE):
        if not values[name]:
            raise InvalidInput(f"Cannot use {origin}: it has no {name}. Add it.", reason=Reason.SECRET_INCOMPLETE)
    return S3Credentials(values[ID_FILE], values[KEY_FILE], values[SESSION_FILE] or None)


def _text(data: Mapping[str, bytes], name: str, origin: str) -> str:
    """Return one value without surrounding white space: a Secret made with ``echo`` ends in a newline."""
    value = data.get(name, b"").strip()
    # Any other character than printable ASCII could break an HTTP header.
    if not all(0x21 <= byte <= 0x7E for byte in value):
        raise InvalidInput(f"Cannot use {origin}: {name} has characters that no credential has. Write it again.")
    return value.decode("ascii")
