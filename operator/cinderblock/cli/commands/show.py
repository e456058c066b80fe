"""``cinderblock show``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from cinderblock.cli.arguments import add_as_of, add_json, add_keys, add_store, identifier
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS
from cinderblock.cli.output import print_fields, print_json, warn
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.cli.views import fields, to_wire
from cinderblock.errors import IntegrityError, KeyUnavailable, UnsupportedFormat
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.objects import BackupRef

DESCRIPTION: Final = "Show the details of a backup, and which other backups need its data."

EPILOG: Final = """\
examples:
  cinderblock show 6f1c2a70 --from s3://backups/laptop
  cinderblock show 6f1c2a70 --from s3://backups/laptop --json | jq .storedBytes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or a unique prefix")
    add_store(parser, "--from")
    add_as_of(parser)
    add_keys(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show a backup. Returns the exit code.

    Raises NotFound. Without --json, also raises IntegrityError for damage and KeyUnavailable for a missing key.
    """
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = catalog.find(arguments.id)
        dependents = _dependents(catalog, backup)
        if arguments.json:
            entry = catalog.read_entry(backup)
            print_json({**to_wire(entry), "neededBy": dependents})
            return CORRUPT if entry.damage else SUCCESS
        summary = catalog.read_summary(backup)
    needed_by = "unknown" if dependents is None else ", ".join(dependents) or "no other backup"
    print_fields({**fields(summary), "manifest": backup.key, "needed by": needed_by})
    return SUCCESS


def _dependents(catalog: Catalog, backup: BackupRef) -> list[str] | None:
    """Return the ids of backups that need this one; None, with a warning, if they are unknown."""
    try:
        return catalog.find_dependents(backup)
    except (IntegrityError, KeyUnavailable, UnsupportedFormat) as error:
        warn(error.message)
        return None
