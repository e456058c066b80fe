"""``cinderblock list``"""

from __future__ import annotations

import argparse
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from cinderblock.api.layout import backup_prefix
from cinderblock.cli.arguments import add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS
from cinderblock.cli.output import print_json, print_table, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.cli.views import HEADINGS, row, to_wire
from cinderblock.repository.catalog import Catalog, CatalogEntry

DESCRIPTION: Final = """\
List the backups in a store, oldest first. For encrypted backups without a key, only the ids are known.

DATA is the size of a restored volume. STORED is the size in the store, without data shared with other backups.
If a manifest is damaged, the other backups are still listed, and the exit code is 5.
"""

EPILOG: Final = """\
examples:
  cinderblock list --from s3://backups/laptop
  cinderblock list --from s3://backups/laptop --json | jq -r '.[] | select(.readable) | .id'
"""

_FIRST: Final = datetime.min.replace(tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="list only backups of this volume")
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List backups. Returns the exit code, which shows whether a manifest is damaged."""
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        entries = sorted(catalog.read_entries(catalog.list_backups(arguments.volume_id)), key=_age)
    if arguments.json:
        print_json([to_wire(entry) for entry in entries])
    else:
        print_table(HEADINGS, map(row, entries))
        if not entries:
            warn(f"no backups found below {backup_prefix(location.prefix)} in container {location.container}")
    return CORRUPT if any(entry.damage for entry in entries) else SUCCESS


def _age(entry: CatalogEntry) -> tuple[datetime, str]:
    timestamp = entry.summary.description.data_timestamp if entry.summary else _FIRST
    return timestamp, entry.stored.backup_id
