"""``cinderblock recover``"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from cinderblock.api.mover import StoreLocation
from cinderblock.cli.async_command import run_async
from cinderblock.cli.exit_codes import CORRUPT, INCOMPLETE, PERMANENT, SUCCESS, worst_exit_code
from cinderblock.cli.output import print_json, warn
from cinderblock.cli.progress_bar import progress_for
from cinderblock.cli.recovery.cluster import check_served, name_of, read_view
from cinderblock.cli.recovery.collect import Collector, verify_newest
from cinderblock.cli.recovery.options import PARALLEL, add_options, check_options, choices_from
from cinderblock.cli.recovery.readiness import prepare
from cinderblock.cli.recovery.runner import Outcome, Result, Runner, RunOptions
from cinderblock.cli.recovery.view import (
    manifests,
    plan_to_wire,
    print_plan,
    print_results,
    results_to_wire,
    summary,
)
from cinderblock.cli.store_arguments import keys_from, location_from, open_from
from cinderblock.errors import NotFound
from cinderblock.kube.client import connect
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey, ClusterView
from cinderblock.lifecycle.recovery.plan import (
    ClaimState,
    Plan,
    PlannedClaim,
    group,
    make_plan,
    ranked,
    unused,
)
from cinderblock.lifecycle.recovery.survey import Survey
from cinderblock.reasons import Reason
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.progress import Progress, ProgressCallback

DESCRIPTION: Final = """\
Recover the volumes of a lost cluster from the bucket and the keys.

recover plan shows, for each claim, the newest backup that can be read, its size and its StorageClass, and which backups
cannot be read. It needs no cluster, and changes nothing. Backups of the command line have no claim, and are left out.

recover apply carries out the same plan in the cluster of the current kubeconfig context. It imports each backup, and
creates a VolumeRestore that creates the claim under its old name. It never writes to a claim that exists. If it is
stopped, the operator completes restores that were begun; run the same command again to continue with the rest.

exit codes of recover apply:
  0  every claim of the plan is restored, now or by an earlier run
  3  a claim could not be recovered, the store has none, the cluster is not ready, or the key of a backup is missing
  4  the store, the API server or the operator did not answer: run the same command again
  5  the same as 3, because stored data is damaged
  6  everything else is restored, but claims of the same names exist, and were not touched
recover plan exits with 0, with 3 if a key is missing, or a claim or all cannot be recovered, and with 5 for damage.
"""

EPILOG: Final = """\
examples:
  cinderblock recover plan --from s3://backups/demo --encryption-key-file key-1
  cinderblock recover plan --from s3://backups/demo --encryption-key-file key-1 --check-cluster --verify
  cinderblock recover plan --from s3://backups/demo --output manifests --kind VolumeBackup
  cinderblock recover apply --from s3://backups/demo --encryption-key-file key-1 --storage-class fast=standard
  cinderblock recover apply --from s3://backups/demo --namespace db --namespace shop --priority db/data-db-0=10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan or carry out a recovery. Returns the exit code."""
    arguments.json = arguments.output == "json"
    check_options(arguments)
    inventory = _read_bucket(arguments)
    if arguments.action == "plan":
        return _plan(arguments, inventory)
    return _apply(arguments, inventory)


@dataclass(frozen=True, slots=True)
class _Inventory:
    """The content of the bucket.

    Attributes:
        location: the bucket.
        survey: its backups.
        rejected: those that are not whole.
    """

    location: StoreLocation
    survey: Survey
    rejected: dict[str, str]

    @property
    def place(self) -> str:
        """The place of the backups, for people."""
        return f"s3://{self.location.container}/{self.location.prefix}".rstrip("/")

    def exit_code(self) -> int:
        """Return the exit code that the backups of the bucket alone lead to."""
        return max(worst_exit_code(self.survey.worst.values()), CORRUPT if self.rejected else SUCCESS)


def _read_bucket(arguments: argparse.Namespace) -> _Inventory:
    """Read the bucket, and verify the chosen backups if asked."""
    choices, keys, location = choices_from(arguments), keys_from(arguments), location_from(arguments)
    collector = Collector(
        choices.target,
        namespaces=frozenset(choices.namespaces),
        as_of=arguments.as_of,
        must_be_sealed=keys is not None and not arguments.allow_unsealed,
        asked=frozenset(arguments.backups),
    )
    with closing(open_from(arguments, location)) as store:
        survey = collector.read(Catalog(store, location.prefix, keys))
        claims = group(survey, choices) if arguments.verify else {}
        rejected = verify_newest(store, location.prefix, keys, claims, ranked)
    return _Inventory(location, survey, rejected)


def _planned(arguments: argparse.Namespace, inventory: _Inventory, cluster: ClusterView | None) -> Plan:
    """Return the plan. Raises NotFound for a backup that was asked for and is not part of it."""
    choices = choices_from(arguments)
    plan = make_plan(inventory.survey, choices, datetime.now(UTC), cluster, inventory.rejected)
    for text in unused(plan, choices):
        warn(f"nothing in the store fits {text}")
    if plan.unknown_backups:
        listed = ", ".join(plan.unknown_backups[:5])
        raise NotFound(f"Cannot use the backups {listed}: the store has no such readable and whole backup of a claim.")
    return plan


def _target_namespaces(arguments: argparse.Namespace, survey: Survey) -> list[str]:
    return sorted({namespace for namespace, _ in group(survey, choices_from(arguments))})


def _plan(arguments: argparse.Namespace, inventory: _Inventory) -> int:
    """Print the plan. Returns the exit code."""
    views: list[ClusterView] = []
    if arguments.check_cluster:
        run_async("recover", _view(_target_namespaces(arguments, inventory.survey), views))
    plan = _planned(arguments, inventory, views[0] if views else None)
    if arguments.output == "manifests":
        _print_manifests(arguments, plan)
    elif arguments.output == "table":
        print_plan(plan, inventory.survey)
    else:
        _print_wire(arguments, plan_to_wire(plan, inventory.survey, inventory.place))
    if not plan.claims:
        warn(_nothing_in(inventory))
    is_lacking = not plan.claims or plan.of_state(ClaimState.BLOCKED)
    return max(inventory.exit_code(), PERMANENT if is_lacking else SUCCESS)


def _nothing_in(inventory: _Inventory) -> str:
    return f"no backup of a claim can be read in {inventory.place}: check --from, --namespace and --as-of"


async def _view(namespaces: list[str], views: list[ClusterView]) -> None:
    kube = await connect()
    try:
        views.append(await read_view(kube, namespaces))
    finally:
        await kube.aclose()


def _print_manifests(arguments: argparse.Namespace, plan: Plan) -> None:
    """Print the objects of a plan, and name the claims that are not part of them."""
    found = manifests(plan, arguments.store_name, kind=arguments.kind, allows_unsealed=arguments.allow_unsealed)
    for body in found:
        yaml.safe_dump(body, sys.stdout, explicit_start=True, sort_keys=False)
    for claim in plan.claims:
        if claim.state is not ClaimState.PLANNED:
            warn(f"left out: {'/'.join(claim.key)}: {'; '.join(claim.problems) or 'it exists'}")
        for note in claim.notes:
            warn(f"{'/'.join(claim.key)}: {note}")


def _print_wire(arguments: argparse.Namespace, wire: Any) -> None:
    if arguments.json:
        print_json(wire)
    else:
        yaml.safe_dump(wire, sys.stdout, sort_keys=False)


def _apply(arguments: argparse.Namespace, inventory: _Inventory) -> int:
    """Carry out the plan. Returns the exit code."""
    results: dict[ClaimKey, Result] = {}
    try:
        run_async("recover", _recover(arguments, inventory, results))
    except BaseException:
        if results:
            _print_results(arguments, results)
        raise
    _print_results(arguments, results)
    if not results:
        # A wrong prefix must not look like a complete recovery.
        warn(f"nothing was restored: {_nothing_in(inventory)}")
        return max(inventory.exit_code(), PERMANENT)
    return _exit_code(inventory, results)


def _print_results(arguments: argparse.Namespace, results: dict[ClaimKey, Result]) -> None:
    """Print the results, and say how to continue if the command was stopped."""
    if arguments.output == "table":
        print_results(results)
    else:
        _print_wire(arguments, results_to_wire(results))
    if any(result.outcome in (Outcome.RESTORING, Outcome.PENDING) for result in results.values()):
        warn(f"stopped: {summary(results.values())}. The operator completes restores. Run the same command again.")


def _exit_code(inventory: _Inventory, results: dict[ClaimKey, Result]) -> int:
    failed = [each for each in results.values() if each.outcome in (Outcome.FAILED, Outcome.BLOCKED)]
    damaged = any(each.reason == Reason.INTEGRITY_ERROR for each in failed)
    code = max(inventory.exit_code(), CORRUPT if damaged else PERMANENT if failed else SUCCESS)
    if code == SUCCESS and any(each.outcome is Outcome.EXISTS for each in results.values()):
        return INCOMPLETE
    return code


async def _recover(arguments: argparse.Namespace, inventory: _Inventory, results: dict[ClaimKey, Result]) -> None:
    """Check the cluster, then recover all claims. ``results`` receives what has become of them."""
    kube = await connect()
    try:
        warn(f"recovering into {await name_of(kube)}")
        await check_served(kube)
        namespaces = _target_namespaces(arguments, inventory.survey)
        plan = _planned(arguments, inventory, await read_view(kube, namespaces))
        for claim in plan.claims:
            for note in claim.notes:
                warn(f"{'/'.join(claim.key)}: {note}")
        needed = sorted({claim.key[0] for claim in plan.claims if claim.state is not ClaimState.BLOCKED})
        stores = await prepare(
            kube,
            needed,
            arguments.store_name,
            inventory.location,
            creates_namespaces=arguments.create_namespaces,
        )
        options = RunOptions(
            stores=stores,
            parallel=arguments.parallel or PARALLEL,
            retries_failed=arguments.retry_failed,
            allows_unsealed=arguments.allow_unsealed,
        )
        with progress_for("recover", as_json=False) as show:
            meter = _Meter(plan, show)
            runner = Runner(kube, plan, options, on_result=meter.finish, on_progress=meter.add)
            try:
                await runner.run()
            finally:
                results.update(
                    {claim.key: runner.results[claim.key] for claim in plan.claims if claim.key in runner.results}
                )
    finally:
        await kube.aclose()


class _Meter:
    """Shows the progress of all claims together: a bar on a terminal, otherwise a line for each result."""

    def __init__(self, plan: Plan, show: ProgressCallback) -> None:
        self._total = sum(claim.backup.data_bytes for claim in plan.claims if claim.backup)
        self._done: dict[ClaimKey, int] = {}
        self._show = show

    def add(self, claim: PlannedClaim, count: int) -> None:
        """Show how many bytes of a claim are restored."""
        self._done[claim.key] = max(count, self._done.get(claim.key, 0))
        done = sum(self._done.values())
        self._show(Progress(done, self._total, done))

    def finish(self, claim: PlannedClaim, result: Result) -> None:
        """Show the result of a claim."""
        self.add(claim, claim.backup.data_bytes if claim.backup else 0)
        if not sys.stderr.isatty():
            why = f": {result.message}" if result.message else ""
            warn(f"{result.outcome} {'/'.join(claim.key)}{why}")
