"""The rules of retention from the command line: options, and a file."""

from __future__ import annotations

import argparse
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import ValidationError

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.errors import InvalidInput

MAX_FILE_BYTES: Final = 1 << 20
"""Most bytes of a file with rules."""
_COUNTS: Final = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_SCHEDULES: Final = ("BackupSchedule", "ClusterBackupSchedule")


def duration(text: str) -> str:
    """Accept a duration that may begin with days: ``90d``, ``1d12h``."""
    try:
        parse_long_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def number(text: str) -> int:
    """Parse a number from 0 to 100000."""
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) > 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100000")
    return int(text)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options for rules."""
    group = parser.add_argument_group("rules", "They replace the rules of the schedule.")
    group.add_argument(
        "--rules",
        metavar="FILE",
        help="YAML file with the fields of spec.retention, or with a whole BackupSchedule or ClusterBackupSchedule",
    )
    for name in _COUNTS:
        what = "newest backups" if name == "last" else f"newest backup of each period, for N periods ({name})"
        group.add_argument(f"--keep-{name}", metavar="N", type=number, help=f"keep the {what}")
    group.add_argument("--keep-within", metavar="TIME", type=duration, help="keep all within this time of the newest")
    group.add_argument("--min-age", metavar="TIME", type=duration, help="remove nothing younger (default: 24h)")
    group.add_argument("--max-age", metavar="TIME", type=duration, help="remove what is older, even if a rule keeps it")
    group.add_argument(
        "--time-zone", metavar="ZONE", help="zone in which days begin (default: that of the schedule, or Etc/UTC)"
    )


def rules_from(arguments: argparse.Namespace) -> Retention | None:
    """Return the rules that the options give; None if there are none. Raises InvalidInput."""
    given = _from_file(arguments.rules) if arguments.rules else {}
    names = (*(f"keep_{name}" for name in _COUNTS), "keep_within", "min_age", "max_age", "time_zone")
    given |= {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if not given:
        return None
    try:
        return Retention.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"Cannot use the rules: {field}: {first['msg']}") from None


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone. Raises InvalidInput."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"Cannot use the time zone {name!r}: it is not in the IANA time zone database.") from None


def _from_file(path: str) -> dict[str, Any]:
    """Return the fields of the rules in a file, with the names of the model."""
    try:
        with open(path, "rb") as file:
            document = yaml.safe_load(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise InvalidInput(f"Cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidInput(f"Cannot read {path}: it is not YAML.") from None
    zone = ""
    if isinstance(document, dict) and document.get("kind") in _SCHEDULES:
        spec = document.get("spec") or {}
        document, zone = spec.get("retention"), spec.get("timeZone") or ""
    if not isinstance(document, dict):
        raise InvalidInput(f"Cannot use the rules of {path}: the fields of spec.retention are missing.")
    fields = {field.alias or name: name for name, field in Retention.model_fields.items()}
    unknown = sorted(str(name) for name in document if name not in fields)
    if unknown:
        raise InvalidInput(f"Cannot use the rules of {path}: unknown fields {', '.join(unknown[:10])}.")
    rules = {fields[name]: value for name, value in document.items()}
    return rules | ({"time_zone": zone} if zone and not rules.get("time_zone") else {})
