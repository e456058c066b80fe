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
List the backups in a store, oldest first. Of sealed backups whose key is not given only the ids show.

DATA is what a restore writes; STORED is what the backup itself takes up, what it shares with others not counted.
The exit code is 5 if a manifest is damaged; the others are listed all the same.
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
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="only backups of this volume")
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List. The exit code tells whether a manifest is damaged; the others are listed all the same."""
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        found = sorted(catalog.read_entries(catalog.list_backups(arguments.volume_id)), key=_age)
    if arguments.json:
        print_json([to_wire(listed) for listed in found])
    else:
        print_table(HEADINGS, map(row, found))
        if not found:
            warn(f"there are no backups directly below {backup_prefix(location.prefix)} in {location.container}")
    return CORRUPT if any(listed.damage for listed in found) else SUCCESS


def _age(listed: CatalogEntry) -> tuple[datetime, str]:
    timestamp = listed.summary.description.data_timestamp if listed.summary else _FIRST
    return timestamp, listed.stored.backup_id
