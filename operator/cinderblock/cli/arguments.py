"""Options that several commands share, and the parsing of their values."""

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
_MIN_BYTES_PER_SECOND: Final = 65536
"""The minimum of a BackupStore's limits. Servers close slower connections."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_OBJECT_NAME_CHARACTERS: Final = 253
_STORE: Final = re.compile(
    r"s3://(?P<container>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(?:/(?P<prefix>[A-Za-z0-9_=-][A-Za-z0-9._=-]*(?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*)?)?/?"
)
"""The same rules as for container and prefix of a BackupStore."""


class StoreUrl(NamedTuple):
    """The parts of ``s3://CONTAINER/PREFIX``."""

    container: str
    prefix: str


def store_url(text: str) -> StoreUrl:
    """Parse ``s3://CONTAINER/PREFIX``, with or without a trailing slash."""
    found = _STORE.fullmatch(text)
    if found is None:
        # The error does not show the text, which can contain a password in front of the container.
        raise argparse.ArgumentTypeError(
            "must be s3://CONTAINER/PREFIX. A container has 3 to 63 lowercase letters, digits, dots and hyphens. A"
            " prefix has letters, digits and ._=- between slashes. Credentials belong in the environment."
        )
    return StoreUrl(found["container"], found["prefix"] or "")


def rate(text: str) -> int:
    """Parse bytes per second: ``10M``, ``500K``, ``1.5GiB/s``, in units of 1024."""
    found = _RATE.fullmatch(text.strip())
    value = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if value < _MIN_BYTES_PER_SECOND:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate of at least 64K bytes per second, for example 10M")
    return value


def dirty_window(text: str) -> timedelta:
    """Parse a dirty window: ``90m``, ``1h30m``."""
    try:
        window = to_timedelta(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if window < SHORTEST_DIRTY_WINDOW:
        raise argparse.ArgumentTypeError(
            f"{text!r} is too short: at least 2m, because kernels write data up to 30 s later than timestamps"
        )
    return window


def count(text: str) -> int:
    """Parse a number from 1 to 10000."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 10000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def past_time(text: str) -> datetime:
    """Parse a time in the past with a time zone (RFC 3339). Returns it in UTC."""
    try:
        given = datetime.fromisoformat(text)
        time = given.astimezone(UTC) if given.tzinfo is not None else None
    except (ValueError, OverflowError):
        # The first hours of year 1 east of Greenwich are before year 1 in UTC.
        time = None
    if time is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time with a time zone, for example 2026-01-31T04:00:00Z")
    if time > datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is in the future")
    return time


def text(text: str) -> str:
    """Accept any text in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    return text


def path(text: str) -> str:
    """Accept a path. An empty one, for example from an unset variable, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def identifier(text: str) -> str:
    """Accept the id of a volume or backup, which becomes part of object keys."""
    if not is_id(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an id: 1 to 64 letters, digits, dots, hyphens and underscores"
        )
    return text


def object_name(text: str) -> str:
    """Accept the name of a Kubernetes object."""
    if len(text) > _OBJECT_NAME_CHARACTERS or not _OBJECT_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is not a name of Kubernetes: lowercase letters, digits, hyphens and dots"
        )
    return text


def digest(text: str) -> str:
    """Parse a content digest in hexadecimal."""
    if not _DIGEST.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not a content digest of 64 hexadecimal digits")
    return text.lower()


def percentage(text: str) -> float:
    """Parse ``5%`` or ``5``."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage above 0 and up to 100")
    return value


def add_store(parser: argparse.ArgumentParser, option: str, *, required: bool = True) -> None:
    """Add the options for the store. ``option`` is the name of the one for its URL."""
    group = parser.add_argument_group("store")
    group.add_argument(
        option,
        dest="store",
        metavar="s3://CONTAINER/PREFIX",
        type=store_url,
        required=required,
        help="bucket and key prefix of the store; the prefix is optional",
    )
    group.add_argument(
        "--endpoint-url", metavar="URL", help="S3 endpoint (default: from the AWS profile, otherwise AWS)"
    )
    group.add_argument("--region", help="S3 region (default: AWS_REGION, the region of the AWS profile, or us-east-1)")
    group.add_argument(
        "--addressing",
        choices=("path", "virtual"),
        default="path",
        help="position of the container in URLs: path or host name (default: path)",
    )
    group.add_argument(
        "--ca-file", metavar="FILE", help="PEM file of CA certificates for the endpoint (default: the system's)"
    )
    group.add_argument(
        "--limit-rate",
        metavar="RATE",
        type=rate,
        help="limit for uploads and for downloads in bytes per second, for example 10M",
    )


def add_as_of(parser: argparse.ArgumentParser) -> None:
    """Add the option to read a store as it was at an earlier time."""
    parser.add_argument(
        "--as-of",
        dest="store_as_of",
        metavar="TIME",
        type=past_time,
        help="read the store as it was at this time, for example 2026-05-04T03:00:00Z. Its bucket must keep versions",
    )


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Add the options for new objects, for commands that write."""
    group = parser.add_argument_group("stored objects")
    group.add_argument(
        "--storage-class", metavar="CLASS", help="S3 storage class, for example STANDARD_IA (default: the server's)"
    )
    group.add_argument(
        "--sse",
        choices=[algorithm.value for algorithm in ServerSideAlgorithm],
        help="server-side encryption (default: the setting of the container)",
    )
    group.add_argument("--sse-kms-key-id", metavar="ID", help="id of the KMS key for --sse aws:kms")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the options for encryption keys."""
    group = parser.add_argument_group("encryption")
    group.add_argument(
        "--encryption-key-file",
        metavar="[ID=]FILE",
        dest="key_files",
        action="append",
        default=[],
        help="file with a key, 32 bytes in base64; repeat for several keys (default ID: the name of the file)",
    )
    group.add_argument(
        "--read-only-keys",
        metavar="ID=TIME,...",
        default="",
        help="keys that encrypt no new backups and decrypt only backups older than TIME, for example"
        " 2026-01-31T12:00:00Z; same format as the annotation cinderblock.io/read-only-keys of an encryption Secret",
    )


def add_unsealed(parser: argparse.ArgumentParser) -> None:
    """Add the option to accept unencrypted backups although a key is given."""
    parser.add_argument(
        "--allow-unsealed",
        action="store_true",
        help="accept an unencrypted backup even though a key is given, for example one made before encryption was"
        " enabled; unencrypted backups are not protected against tampering",
    )


def add_expected_digest(parser: argparse.ArgumentParser) -> None:
    """Add the option for the expected content digest."""
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        type=digest,
        help="reject the backup unless it has this content digest, which backup, show and verify print. Without this"
        " option, an older manifest of the same backup is accepted, and without a key, any backup in its place",
    )


def add_active_key(parser: argparse.ArgumentParser, use: str) -> None:
    """Add the option for the key of new data. ``use`` completes "id of the key that ..."."""
    parser.add_argument(
        "--active-key", metavar="ID", help=f"id of the key that {use} (default: the last id in alphabetical order)"
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add the option for JSON output."""
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, and progress as JSON lines on standard error"
    )
