"""``cinderblock show``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from cinderblock.cli.catalog import Catalog
from cinderblock.cli.exits import SUCCESS
from cinderblock.cli.options import add_json, add_keys, add_store, identifier
from cinderblock.cli.output import print_fields, print_json
from cinderblock.cli.stores import keys_from, location_from, open_from
from cinderblock.cli.views import fields, to_wire

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
    """Show. Raises NotFound, IntegrityError; KeyUnavailable if a sealed backup is to be shown without its key, which
    only JSON has a way to say.
    """
    keys = keys_from(arguments.key_files)
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys)
        backup = catalog.find(arguments.id)
        dependents = catalog.dependents(backup)
        if arguments.json:
            print_json({**to_wire(*catalog.read([backup])), "neededBy": dependents})
            return SUCCESS
        summary = catalog.summary(backup)
    print_fields({**fields(summary), "manifest": backup.key, "needed by": ", ".join(dependents) or "no other backup"})
    return SUCCESS
