"""The options of ``cinderblock recover``, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from cinderblock.cli.arguments import (
    add_keys,
    add_store,
    add_unsealed,
    count,
    identifier,
    object_name,
    past_time,
)
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey
from cinderblock.lifecycle.recovery.plan import Choices

PLAN_ONLY: Final = ("check_cluster", "kind")
"""Options of the action plan, by their names in the arguments."""
APPLY_ONLY: Final = ("create_namespaces", "retry_failed", "parallel")
"""Options of the action apply."""
PARALLEL: Final = 4
"""Claims that are recovered at the same time."""
_PRIORITY_LIMIT: Final = 1_000_000_000


class Rename(NamedTuple):
    """A name in the lost cluster, and its name in the new one."""

    old: str
    new: str


class Priority(NamedTuple):
    """The priority of a claim; an empty claim stands for all of the namespace."""

    key: ClaimKey
    value: int


def rename(text: str) -> Rename:
    """Parse ``OLD=NEW``. OLD may be empty, for a claim without a StorageClass."""
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not OLD=NEW")
    return Rename(object_name(old) if old else "", object_name(new))


def priority(text: str) -> Priority:
    """Parse ``NAMESPACE=N`` or ``NAMESPACE/CLAIM=N``."""
    place, equals, number = text.rpartition("=")
    digits = number.removeprefix("-")
    if not equals or not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not NAMESPACE=N or NAMESPACE/CLAIM=N")
    value = int(number)
    if abs(value) > _PRIORITY_LIMIT:
        raise argparse.ArgumentTypeError(f"{number} is not a priority: at most {_PRIORITY_LIMIT}")
    namespace, slash, claim = place.partition("/")
    return Priority((object_name(namespace), object_name(claim) if slash else ""), value)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options."""
    parser.add_argument(
        "action", choices=("plan", "apply"), metavar="plan|apply", help="show the plan, or carry it out"
    )
    _add_choices(parser)
    parser.add_argument(
        "--output",
        "-o",
        choices=("table", "json", "yaml", "manifests"),
        default="table",
        help="form of the result. manifests: the VolumeBackups and VolumeRestores as YAML, for GitOps",
    )
    plan = parser.add_argument_group("plan")
    plan.add_argument(
        "--check-cluster",
        action="store_true",
        help="also check namespaces, StorageClasses and existing claims in the cluster of the kubeconfig",
    )
    plan.add_argument(
        "--kind",
        choices=("VolumeBackup", "VolumeRestore"),
        help="with --output manifests: print only objects of this kind",
    )
    apply = parser.add_argument_group("apply")
    apply.add_argument(
        "--create-namespaces", action="store_true", help="create missing namespaces, without labels or quotas"
    )
    apply.add_argument(
        "--parallel", metavar="N", type=count, help=f"claims to recover at the same time (default: {PARALLEL})"
    )
    apply.add_argument(
        "--retry-failed",
        action="store_true",
        help="delete imports and VolumeRestores of an earlier run that have failed, and repeat them",
    )
    add_store(parser, "--from")
    add_keys(parser)
    add_unsealed(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose and order backups."""
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        dest="namespaces",
        action="append",
        type=object_name,
        default=[],
        help="recover only this namespace of the lost cluster; may be repeated, and the order counts (default: all)",
    )
    parser.add_argument(
        "--namespace-map",
        metavar="OLD=NEW",
        dest="namespace_map",
        action="append",
        type=rename,
        default=[],
        help="recover namespace OLD as NEW; may be repeated",
    )
    parser.add_argument(
        "--storage-class",
        metavar="OLD=NEW",
        dest="class_map",
        action="append",
        type=rename,
        default=[],
        help="use StorageClass NEW for claims that had OLD; may be repeated",
    )
    parser.add_argument(
        "--as-of", metavar="TIME", type=past_time, help="use no data after this time, for example 2026-01-31T04:00:00Z"
    )
    parser.add_argument(
        "--backup",
        metavar="ID",
        dest="backups",
        action="append",
        type=identifier,
        default=[],
        help="use this backup for its claim, although newer ones exist; may be repeated",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="choose only backups whose packs are all there (as verify --level structure)",
    )
    parser.add_argument(
        "--priority",
        metavar="NAMESPACE[/CLAIM]=N",
        dest="priorities",
        action="append",
        type=priority,
        default=[],
        help="recover claims with greater numbers first; names are those of the new cluster (default: 0)",
    )
    parser.add_argument(
        "--store",
        dest="store_name",
        metavar="NAME",
        type=object_name,
        help="name of the BackupStore in each namespace (default: the default one of the namespace)",
    )


def check_options(arguments: argparse.Namespace) -> None:
    """Raise InvalidInput for options that do not fit together."""
    others = APPLY_ONLY if arguments.action == "plan" else PLAN_ONLY
    given = [name for name in others if getattr(arguments, name)]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise InvalidInput(f"Cannot use {option} with recover {arguments.action}.")
    if arguments.action == "apply" and arguments.output == "manifests":
        raise InvalidInput("Cannot apply with --output manifests: it belongs to recover plan.")
    if arguments.kind and arguments.output != "manifests":
        raise InvalidInput("--kind requires --output manifests")


def choices_from(arguments: argparse.Namespace) -> Choices:
    """Return what the options choose. Raises InvalidInput for a name that is given twice."""
    if any(not each.old for each in arguments.namespace_map):
        raise InvalidInput("Cannot map a namespace without a name: give --namespace-map OLD=NEW.")
    return Choices(
        namespaces=tuple(arguments.namespaces),
        namespace_map=_unique("--namespace-map", arguments.namespace_map),
        storage_classes=_unique("--storage-class", arguments.class_map),
        priorities=_unique("--priority", arguments.priorities),
    )


def _unique(option: str, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the pairs as a mapping. Raises InvalidInput if two have the same first part."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput(f"Cannot use two values of {option} for the same name.")
        found[key] = value
    return found
