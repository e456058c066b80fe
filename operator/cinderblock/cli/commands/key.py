"""``cinderblock key``"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from cinderblock.api.layout import backup_prefix
from cinderblock.cli.arguments import add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import PERMANENT, worst_exit_code
from cinderblock.cli.output import pluralize, print_json, print_table, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import InvalidInput
from cinderblock.reasons import Reason
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.key_check import KeyCheck, check_keys, newest_of_volumes

DESCRIPTION: Final = """\
Check whether encryption keys that are kept elsewhere, such as in a safe, open the backups in a store.

Without the keys, nobody can read an encrypted backup. So run this after encryption was set up, after each new key, and
in each rehearsal of a disaster, with the copy of the keys and not with the Secret. It reads the header of the newest
backup of each volume, or of all backups (--all), and opens the data key in it. It reads no data, changes nothing, and
never prints a key.

The exit code is 0 if the keys open every encrypted backup that was checked. It is 3 if the key of a backup is missing.
It is also 3 if there is no encrypted backup, since that proves nothing. It is 5 if a key has the id of the right one
but is another key, or if a manifest is damaged.
"""

EPILOG: Final = """\
examples:
  cinderblock key check --from s3://backups/demo --encryption-key-file key-1=/media/safe/key-1
  cinderblock key check --from s3://backups/demo --encryption-key-file 2025.key --encryption-key-file 2026.key --all
"""

_CAUSES: Final[dict[str, str]] = {
    Reason.KEY_UNAVAILABLE: "this key was not given",
    Reason.INTEGRITY_ERROR: "the given key is another one, or manifests are damaged",
}
"""Causes of failures, by the reason of the error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("action", choices=("check",), metavar="check", help="what to do with the keys")
    parser.add_argument("--all", action="store_true", help="check all backups, not only the newest of each volume")
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="check only backups of this volume")
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check keys. Returns the exit code.

    Raises InvalidInput without keys, and what the store raises.
    """
    keys = keys_from(arguments)
    if keys is None:
        raise InvalidInput("Cannot check keys without keys. Give each with --encryption-key-file.")
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        backups = Catalog(store, location.prefix).list_backups(arguments.volume_id)
        result = check_keys(store, keys, backups if arguments.all else newest_of_volumes(backups))
    if arguments.json:
        print_json(_to_wire(result))
    else:
        print_table(("KEY ID", "OPENS", "FAILS", "CAUSE"), _rows(result))
    _explain(result, f"{backup_prefix(location.prefix)} in container {location.container}")
    return worst_exit_code(result.worst.values()) if result.encrypted or result.worst else PERMANENT


def _rows(result: KeyCheck) -> Iterator[tuple[str, ...]]:
    """Yield a row for each key id, and one for backups without a known key."""
    for key_id, use in result.keys.items():
        causes = "; ".join(_CAUSES.get(reason, reason) for reason in use.failed)
        yield key_id, str(use.opened), str(use.failed.total()), causes
    if result.unencrypted:
        yield "(none)", str(result.unencrypted), "0", "not encrypted"
    if result.unreadable:
        yield "(unknown)", "0", str(result.unreadable), "the manifest is damaged, or of another release"


def _explain(result: KeyCheck, place: str) -> None:
    """Name the failures, and say what is not proven."""
    for failure in result.failures:
        warn(f"not opened: {failure.error.message}")
    failed = result.unreadable + sum(use.failed.total() for use in result.keys.values())
    if failed > len(result.failures):
        warn(f"and {pluralize(failed - len(result.failures), 'other backup')} that cannot be opened")
    if not result.encrypted and not result.worst:
        found = pluralize(result.unencrypted, "unencrypted backup")
        warn(f"nothing is proven: below {place} are {found} and no encrypted one. Make a backup first.")
    elif result.unencrypted:
        warn(f"{pluralize(result.unencrypted, 'backup')} among the checked ones can be read without a key")


def _to_wire(result: KeyCheck) -> dict[str, Any]:
    return {
        "checked": result.checked,
        "unencrypted": result.unencrypted,
        "unreadable": result.unreadable,
        "keys": [
            {"keyId": key_id, "opens": use.opened, "fails": use.failed.total(), "reasons": dict(use.failed)}
            for key_id, use in result.keys.items()
        ],
        "failures": [
            {
                "id": failure.backup.backup_id,
                "volumeId": failure.backup.volume_id,
                "keyId": failure.key_id,
                "reason": failure.error.reason,
                "message": failure.error.message,
            }
            for failure in result.failures
        ],
    }
