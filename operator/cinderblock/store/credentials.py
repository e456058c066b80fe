"""Credentials for a store, and where they come from: a Secret, mounted as files or read from the API server."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    """What requests are signed with. Nothing of it appears in a repr.

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
        return "Credentials(hidden)"


def read_credentials(directory: str) -> S3Credentials:
    """Read credentials from the files of a mounted Secret.

    Raises InvalidInput naming the file that is missing or malformed, AccessDenied if this user may not read it.
    """
    data = {name: content for name in (ID_FILE, KEY_FILE, SESSION_FILE) if (content := _read(directory, name))}
    return _credentials(data, directory)


def credentials_from_secret(data: Mapping[str, bytes]) -> S3Credentials:
    """Take credentials from a Secret's decoded ``data``. Raises InvalidInput naming the key that is missing."""
    return _credentials(data, "The credentials Secret")


def _read(directory: str, name: str) -> bytes | None:
    path = os.path.join(directory, name)
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AccessDenied(f"Credentials file {path} cannot be read: {error.strerror}") from error


def _credentials(data: Mapping[str, bytes], place: str) -> S3Credentials:
    values = {name: _text(data, name, place) for name in (ID_FILE, KEY_FILE, SESSION_FILE)}
    for name in (ID_FILE, KEY_FILE):
        if not values[name]:
            raise InvalidInput(f"{place} has no {name}: put it there", reason=Reason.SECRET_INCOMPLETE)
    return S3Credentials(values[ID_FILE], values[KEY_FILE], values[SESSION_FILE] or None)


def _text(data: Mapping[str, bytes], name: str, place: str) -> str:
    """One value without surrounding white space: a Secret made with ``echo`` ends in a newline."""
    value = data.get(name, b"").strip()
    # Anything but printable ASCII would end up in, or break, an HTTP header.
    if not all(0x21 <= byte <= 0x7E for byte in value):
        raise InvalidInput(f"{place}: {name} holds characters that no credential has: write it again")
    return value.decode("ascii")
