"""``cinderblock show``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from cinderblock.cli.arguments import add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS
from cinderblock.cli.output import print_fields, print_json, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.cli.views import fields, to_wire
from cinderblock.errors import IntegrityError, KeyUnavailable, UnsupportedFormat
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.objects import BackupRef

DESCRIPTION: Final = "Show what a backup says of itself, and which other backups need it."

EPILOG: Final = """\
examples:
  cinderblock show 6f1c2a70 --from s3://backups/laptop
  cinderblock show 6f1c2a70 --from s3://backups/laptop --json | jq .storedBytes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or its beginning")
    add_store(parser, "--from")
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show. Raises NotFound; IntegrityError, or KeyUnavailable if a sealed backup is to be shown without its key: only
    JSON has a way to say these. The exit code tells of damage.
    """
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = catalog.find(arguments.id)
        dependents = _dependents(catalog, backup)
        if arguments.json:
            listed = catalog.read_entry(backup)
            print_json({**to_wire(listed), "neededBy": dependents})
            return CORRUPT if listed.damage else SUCCESS
        summary = catalog.read_summary(backup)
    needed = "cannot be told" if dependents is None else ", ".join(dependents) or "no other backup"
    print_fields({**fields(summary), "manifest": backup.key, "needed by": needed})
    return SUCCESS


def _dependents(catalog: Catalog, backup: BackupRef) -> list[str] | None:
    """Ids of backups that need this one; None, and a warning why, if that cannot be told."""
    try:
        return catalog.find_dependents(backup)
    except (IntegrityError, KeyUnavailable, UnsupportedFormat) as error:
        warn(error.message)
        return None
