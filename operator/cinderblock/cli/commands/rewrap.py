"""``cinderblock rewrap``"""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial
from typing import Final

from cinderblock.cli.arguments import add_active_key, add_json, add_keys, add_store, add_writing, identifier
from cinderblock.cli.exit_codes import SUCCESS, exit_code_for
from cinderblock.cli.output import print_json, print_table, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, PermanentError, UnsupportedFormat
from cinderblock.format.manifest.reader import read_header
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.rewrap import run_rewrap
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Encrypt the data keys of backups with a new key, so that an old key can be destroyed.

Every backup has its own data key, which an encryption key wraps. This command replaces only the wrapped key: it
rewrites the manifest of each backup, and no data. Give the old key and the new one. Unencrypted backups stay
unencrypted. Backups that cannot be re-wrapped are listed, and the exit code shows the failure.
"""

EPILOG: Final = """\
examples:
  cinderblock rewrap --from s3://backups/laptop --encryption-key-file 2025.key --encryption-key-file 2026.key
  cinderblock rewrap 6f1c2a70 --from s3://backups --encryption-key-file a=old --encryption-key-file b=new --active-key b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "ids",
        nargs="*",
        metavar="ID",
        type=identifier,
        help="ids of backups, or unique prefixes (default: all backups in the store)",
    )
    add_store(parser, "--from")
    add_writing(parser)
    add_keys(parser)
    add_active_key(parser, "wraps the data keys")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Re-wrap backups. Returns the exit code of the first backup that failed; the others are still processed.

    Raises InvalidInput without keys, and what the store raises.
    """
    keys = keys_from(arguments, arguments.active_key)
    if keys is None:
        raise InvalidInput(
            "Cannot re-wrap backups without keys. Give the old key and the new one, each with --encryption-key-file."
        )
    location = location_from(arguments, writes=True)
    done: list[tuple[str, str, str]] = []
    failures: list[PermanentError] = []
    with closing(open_from(arguments, location, CLI_RETRIES)) as store:
        catalog = Catalog(store, location.prefix, keys)
        for backup in [catalog.find(text) for text in arguments.ids] or catalog.list_backups():
            try:
                before = read_header(partial(store.get, backup.key), backup.expected(), backup.key).key_id
                if before is not None:
                    expected = backup.expected(sealed=True)
                    after = run_rewrap(store, backup.key, expected, keys, arguments.active_key).key_id
                    done.append((backup.backup_id, before, after or ""))
            except (IntegrityError, KeyUnavailable, UnsupportedFormat) as error:
                warn(f"not re-wrapped: {error.message}")
                failures.append(error)
    if arguments.json:
        print_json([{"backupId": backup_id, "from": before, "to": after} for backup_id, before, after in done])
    else:
        print_table(("ID", "FROM", "TO"), done)
    return exit_code_for(failures[0]) if failures else SUCCESS
