"""``cinderblock retention preview``"""

from __future__ import annotations

import argparse
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.cli.arguments import add_keys, add_store, identifier
from cinderblock.cli.async_command import run_async
from cinderblock.cli.exit_codes import CORRUPT, SUCCESS
from cinderblock.cli.output import pluralize, print_json, print_table, warn
from cinderblock.cli.retention_rules import add_rules, rules_from, zone_of
from cinderblock.cli.retention_sources import Subject, Wanted, from_catalog, read_cluster
from cinderblock.cli.retention_view import HEADINGS, row, summary, to_wire
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import InvalidInput
from cinderblock.kube.client import connect
from cinderblock.lifecycle.retention import keep_rules
from cinderblock.lifecycle.retention.plan import plan
from cinderblock.repository.catalog import Catalog

DESCRIPTION: Final = """\
Show what retention does to each backup, and why. Nothing is changed or deleted.

On a cluster, the backups of schedules are judged by the rules of the schedule, or by the rules that you give. On a
bucket (--from), all backups that can be read are judged by the rules that you give.

VERDICT is keep, expire (it has or gets status.expiresAt), wait (it expires, but maxPerDay delays the removal) or remove
(its grace has ended). The operator decides with the same rules. Uses the current kubeconfig context.
"""

EPILOG: Final = """\
examples:
  cinderblock retention preview --namespace shop
  cinderblock retention preview --namespace shop --schedule daily --keep-daily 7 --keep-weekly 4
  cinderblock retention preview --cluster-schedule everything --output json
  cinderblock retention preview --from s3://backups/prefix --rules rules.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("action", choices=("preview",), help="preview: show the verdict on each backup")
    parser.add_argument("--namespace", metavar="NAMESPACE", help="judge the schedules of this namespace")
    parser.add_argument("--schedule", metavar="NAME", help="judge only this BackupSchedule of the namespace")
    parser.add_argument("--cluster-schedule", metavar="NAME", help="judge this ClusterBackupSchedule")
    parser.add_argument("--volume-id", metavar="ID", type=identifier, help="with --from: only backups of this volume")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="form of the result")
    add_rules(parser)
    add_store(parser, "--from", required=False)
    add_keys(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the verdicts. Returns the exit code, which shows whether a manifest is damaged."""
    arguments.json = arguments.output == "json"
    _check(arguments)
    rules = rules_from(arguments)
    if arguments.store is not None:
        return _preview_bucket(arguments, rules)
    subjects: list[Subject] = []
    run_async("retention", _read(_wanted(arguments), rules, subjects))
    _print(subjects, as_json=arguments.json)
    return SUCCESS


def _check(arguments: argparse.Namespace) -> None:
    """Raise InvalidInput unless the options name one place."""
    places = [arguments.store, arguments.namespace, arguments.cluster_schedule]
    if sum(place is not None for place in places) != 1:
        raise InvalidInput("Cannot preview retention: give one of --namespace, --cluster-schedule and --from.")
    if arguments.schedule is not None and arguments.namespace is None:
        raise InvalidInput("Cannot preview retention: --schedule needs --namespace.")
    if arguments.volume_id is not None and arguments.store is None:
        raise InvalidInput("Cannot preview retention: --volume-id needs --from.")


def _wanted(arguments: argparse.Namespace) -> Wanted:
    if arguments.cluster_schedule is not None:
        return Wanted("", arguments.cluster_schedule)
    return Wanted(arguments.namespace, arguments.schedule or "")


async def _read(wanted: Wanted, rules: Retention | None, subjects: list[Subject]) -> None:
    kube = await connect()
    try:
        subjects += await read_cluster(kube, wanted, rules)
    finally:
        await kube.aclose()


def _preview_bucket(arguments: argparse.Namespace, rules: Retention | None) -> int:
    """Judge the backups of a bucket. Without an operator, nothing limits how many go in a day."""
    if rules is None or not keep_rules.exist(rules):
        raise InvalidInput("Cannot preview retention: give at least one rule that keeps backups, such as --keep-daily.")
    location = location_from(arguments)
    with closing(open_from(arguments, location)) as store:
        catalog = Catalog(store, location.prefix, keys_from(arguments))
        entries = catalog.read_entries(catalog.list_backups(arguments.volume_id))
    sealed = sum(entry.summary is None and entry.damage is None for entry in entries)
    if sealed:
        warn(f"{pluralize(sealed, 'backup')} could not be judged: give the key with --encryption-key-file ID=FILE")
    for entry in entries:
        if entry.damage is not None:
            warn(f"backup {entry.stored.backup_id} could not be judged: {entry.damage.message}")
    title = f"s3://{location.container}/{location.prefix}".rstrip("/")
    _print([from_catalog(title, entries, rules.model_copy(update={"max_per_day": 0}))], as_json=arguments.json)
    return CORRUPT if any(entry.damage for entry in entries) else SUCCESS


def _print(subjects: list[Subject], *, as_json: bool) -> None:
    """Print the verdicts on all subjects."""
    now, wires = datetime.now(UTC), []
    for position, subject in enumerate(subjects):
        made = plan(subject.retention, zone_of(subject.zone), subject.backups, subject.context, now)
        if as_json:
            wires.append(to_wire(subject.title, made, has_marks=subject.has_marks))
            continue
        print(f"{'' if position == 0 else chr(10)}{subject.title}: {summary(made)}")
        if made.verdicts:
            print_table(HEADINGS, [row(verdict, has_marks=subject.has_marks) for verdict in made.verdicts])
    if as_json:
        print_json(wires)
