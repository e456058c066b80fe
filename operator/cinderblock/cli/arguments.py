"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cinderblock.api.duration import to_timedelta
from cinderblock.api.layout import is_id
from cinderblock.api.v1alpha1.store import SHORTEST_DIRTY_WINDOW, ServerSideAlgorithm

_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?(?:/s)?", re.IGNORECASE)
_SLOWEST: Final = 65536
"""Bytes per second; slower, and servers take a connection for dead (as BackupStore's limits)."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_STORE: Final = re.compile(
    r"s3://(?P<container>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(?:/(?P<prefix>[A-Za-z0-9_=-][A-Za-z0-9._=-]*(?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*)?)?/?"
)
"""As BackupStore has container and prefix."""


class StoreUrl(NamedTuple):
    """What ``s3://CONTAINER/PREFIX`` names."""

    container: str
    prefix: str


def store_url(text: str) -> StoreUrl:
    """Read ``s3://CONTAINER/PREFIX``, with or without a slash at the end."""
    found = _STORE.fullmatch(text)
    if found is None:
        # The text itself is not shown: somebody may have put a password in front of the container.
        raise argparse.ArgumentTypeError(
            "give s3://CONTAINER/PREFIX: the container 3 to 63 small letters, digits, dots and hyphens, the prefix "
            "letters, digits and ._=- between slashes; credentials go into the environment"
        )
    return StoreUrl(found["container"], found["prefix"] or "")


def rate(text: str) -> int:
    """Read bytes per second: ``10M``, ``500K``, ``1.5GiB/s``; units of 1024."""
    found = _RATE.fullmatch(text.strip())
    value = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if value < _SLOWEST:
        raise argparse.ArgumentTypeError(f"{text!r}: give bytes per second, at least 64K, for example 10M")
    return value


def dirty_window(text: str) -> timedelta:
    """Read a dirty window: ``90m``, ``1h30m``."""
    try:
        window = to_timedelta(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if window < SHORTEST_DIRTY_WINDOW:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give at least 2m, since a kernel writes data back up to 30 s later than timestamps"
        )
    return window


def repetitions(text: str) -> int:
    """Read a number of 1 to 10000."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 10000:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to 10000")
    return int(text)


def past_instant(text: str) -> datetime:
    """Read a time in the past, with its time zone (RFC 3339), as that of UTC."""
    try:
        given = datetime.fromisoformat(text)
        time = given.astimezone(UTC) if given.tzinfo is not None else None
    except (ValueError, OverflowError):
        # In UTC, the first hours of year 1 in the east lie before year 1.
        time = None
    if time is None:
        raise argparse.ArgumentTypeError(f"{text!r}: give a time with its time zone, for example 2026-01-31T04:00:00Z")
    if time > datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is in the future: no snapshot was taken then")
    return time


def text(text: str) -> str:
    """Read words for people."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r}: this is not UTF-8") from None
    return text


def path(text: str) -> str:
    """Read a path. An empty one, which an unset variable gives, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def identifier(text: str) -> str:
    """Read an id of a volume or backup, which becomes a part of keys in the store."""
    if not is_id(text):
        raise argparse.ArgumentTypeError(f"{text!r}: an id is 1 to 64 letters, digits, dots, hyphens and underscores")
    return text


def digest(text: str) -> str:
    """Read a content digest in hexadecimal."""
    if not _DIGEST.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: a content digest is 64 hexadecimal digits")
    return text.lower()


def percentage(text: str) -> float:
    """Read ``5%`` or ``5``."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: give a percentage above 0 and at most 100")
    return value


def add_store(parser: argparse.ArgumentParser, option: str) -> None:
    """The store, under the name of ``option``, and how to reach it."""
    group = parser.add_argument_group("store")
    group.add_argument(
        option,
        dest="store",
        metavar="s3://CONTAINER/PREFIX",
        type=store_url,
        required=True,
        help="container and prefix; the prefix may be left out",
    )
    group.add_argument(
        "--endpoint-url", metavar="URL", help="the S3 endpoint; default: as the AWS profile has it, else AWS"
    )
    group.add_argument("--region", help="default: AWS_REGION, the AWS profile's, or us-east-1")
    group.add_argument(
        "--addressing",
        choices=("path", "virtual"),
        default="path",
        help="whether the container is in the path of URLs or in the host name (default: path)",
    )
    group.add_argument(
        "--ca-file", metavar="FILE", help="PEM certificates to check the endpoint against instead of the system's"
    )
    group.add_argument(
        "--limit-rate", metavar="RATE", type=rate, help="bytes per second in either direction, for example 10M"
    )


def add_writing(parser: argparse.ArgumentParser) -> None:
    """How objects are to lie on the server; for commands that write."""
    group = parser.add_argument_group("objects on the server")
    group.add_argument("--storage-class", metavar="CLASS", help="such as STANDARD_IA; default: the server's")
    group.add_argument(
        "--sse",
        choices=[algorithm.value for algorithm in ServerSideAlgorithm],
        help="ask the server to encrypt objects with keys that it has; default: as the container has it",
    )
    group.add_argument("--sse-kms-key-id", metavar="ID", help="key of the KMS, for --sse aws:kms")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """The encryption keys."""
    group = parser.add_argument_group("encryption")
    group.add_argument(
        "--encryption-key-file",
        metavar="[ID=]FILE",
        dest="key_files",
        action="append",
        default=[],
        help="a key, 32 bytes in base64; its id is the file's name unless given; may be repeated",
    )
    group.add_argument(
        "--read-only-keys",
        metavar="ID=TIME,...",
        default="",
        help="keys that seal no new backup and open none that is newer than TIME, such as 2026-01-31T12:00:00Z; the"
        " annotation cinderblock.io/read-only-keys of an encryption Secret has the same form",
    )


def add_unsealed(parser: argparse.ArgumentParser) -> None:
    """Whether a key that is given means that the backup must be encrypted."""
    parser.add_argument(
        "--allow-unsealed",
        action="store_true",
        help="take a backup that is not encrypted although a key is given: it was made before there was one. Without a"
        " key nothing shows that it is what was stored",
    )


def add_expected_digest(parser: argparse.ArgumentParser) -> None:
    """Add the option for the content digest that a person has noted."""
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        type=digest,
        help="refuse the backup unless it has this content digest; backup, show and verify print it. Without this"
        " option, an older manifest of the same backup passes. Without a key, so does any backup put in its place",
    )


def add_active_key(parser: argparse.ArgumentParser, use: str) -> None:
    """Which of the keys is used for what is written."""
    parser.add_argument(
        "--active-key", metavar="ID", help=f"id of the key that {use}; default: the last in order of their ids"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON; progress goes to standard error, line by line")
