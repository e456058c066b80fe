"""``cinderblock verify``"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from cinderblock.api.quantity import format_size
from cinderblock.cli.arguments import (
    add_expected_digest,
    add_json,
    add_keys,
    add_store,
    add_unsealed,
    identifier,
    percentage,
)
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.cli.output import pluralize, print_fields, print_json
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.verify.backup import Verification, run_verify
from cinderblock.store.retrying import CLI_RETRIES

DESCRIPTION: Final = """\
Read a backup from the store and check every byte as a restore does, without writing anything.

With --sample, only a random part of the data is read. The manifest is always read completely.
The exit code is 5 if anything is damaged or missing.
"""

EPILOG: Final = """\
examples:
  cinderblock verify 6f1c2a70 --from s3://backups/laptop
  cinderblock verify 6f1c2a70 --from s3://backups/laptop --sample 5%
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("id", metavar="ID", type=identifier, help="id of the backup, or a unique prefix")
    parser.add_argument(
        "--sample",
        metavar="PERCENT",
        type=percentage,
        default=100.0,
        help="percentage of the data to read, for example 5%%",
    )
    add_store(parser, "--from")
    add_keys(parser)
    add_unsealed(parser)
    add_expected_digest(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify a backup. Raises IntegrityError, NotFound."""
    keys = keys_from(arguments)
    location = location_from(arguments)
    with closing(open_from(arguments, location, CLI_RETRIES)) as store:
        backup = Catalog(store, location.prefix, keys).find(arguments.id)
        must_be_sealed = keys is not None and not arguments.allow_unsealed
        with progress_for("verify", as_json=arguments.json) as progress:
            result = run_verify(
                store,
                location.prefix,
                backup.key,
                backup.expected(sealed=must_be_sealed, content_digest=arguments.expect_digest),
                keys,
                sample_percent=arguments.sample,
                on_progress=progress,
            )
    if arguments.json:
        print_json({"backupId": backup.backup_id, "succeeded": True, **_to_wire(result)})
        return SUCCESS
    chunks, packs = pluralize(result.chunks, "chunk"), pluralize(result.packs, "pack")
    print_fields(
        {
            "sound": backup.backup_id,
            "checked": f"{chunks} ({format_size(result.bytes_fetched)}), {packs}",
            "entries": str(result.entries),
            "digest": result.content_digest,
        }
    )
    return SUCCESS


def _to_wire(result: Verification) -> dict[str, int | str]:
    """Return the result as JSON."""
    return {
        "packs": result.packs,
        "chunks": result.chunks,
        "bytesFetched": result.bytes_fetched,
        "entries": result.entries,
        "contentDigest": result.content_digest,
    }
