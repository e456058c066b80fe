"""``decide`` for a ClusterBackupStore: a BackupStore in each namespace that may use it, and its conditions.

A BackupStore that somebody else made is left alone. One that the operator made goes when its namespace may no longer
use the store and no backup needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.conditions import Condition, ConditionStatus, ConditionType
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, ClusterBackupStoreStatus
from cinderblock.api.v1alpha1.store import BackupStore, StoreAccess
from cinderblock.errors import CinderblockError, InvalidInput, TransientError
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import MIN_REQUEUE_SECONDS, Action, Decision, RemoveFinalizer
from cinderblock.lifecycle.store import access, shared
from cinderblock.lifecycle.store.container_conditions import RuleCondition, conditions_of
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

MAX_WRITES: Final = 50
"""BackupStores that one reconciliation creates, changes or removes: ten a second."""
MAX_CHECKS: Final = 200
"""BackupStores that one reconciliation enqueues for a check before their usual time: twenty a second. They take turns.
"""
RECHECK_SECONDS: Final = 30.0
"""Seconds between two lists of the namespaces, whose labels may have changed."""
RETRY_SECONDS: Final = 10.0
"""Seconds until a store that does not answer is checked again."""
NAMED: Final = 5
"""Namespaces that a message names."""
FAILURES_OF_ALL: Final = frozenset(
    {
        Reason.ACCESS_DENIED,
        Reason.BROKER_DISABLED,
        Reason.BROKER_UNAVAILABLE,
        Reason.CERTIFICATE_NOT_TRUSTED,
        Reason.CLOCK_SKEWED,
        Reason.CLUSTER_STORE_NOT_FOUND,
        Reason.CONTAINER_NOT_FOUND,
        Reason.CREDENTIALS_EXPIRED,
        Reason.ENDPOINT_NOT_ALLOWED,
        Reason.NOT_S3,
        Reason.NOT_TLS,
        Reason.SECRET_INCOMPLETE,
        Reason.SECRET_NOT_FOUND,
        Reason.STORE_FULL,
        Reason.STORE_REFUSES,
        Reason.STORE_TOO_SLOW,
        Reason.STORE_UNREACHABLE,
        Reason.THROTTLED,
        Reason.UNSIGNED_HEADERS_ACCEPTED,
        Reason.WRONG_REGION,
    }
)
"""Reasons of BackupStores that cannot hold while the ClusterBackupStore and the broker answer. A check ends them."""


@dataclass(frozen=True, slots=True)
class ObservedClusterStore:
    """The observed state of a ClusterBackupStore.

    Attributes:
        cluster: the ClusterBackupStore itself.
        allowed: names of the namespaces that may use it, without those that are being deleted.
        stores: the BackupStores of its name, by namespace.
        conflicts: why spec.formerNamespaces gives no place to a namespace, by its name.
        selector_error: why spec.allowedNamespaces is wrong; None: it is not.
        error: why the store cannot be used now; None: it answered.
        unreadable: namespaces with a BackupStore of its name that does not parse: nobody knows whose it is.
        unreachable: why movers cannot reach it; None: they can.
        rules: what the container does with deleted objects; None: not asked now, or not answered.
    """

    cluster: ClusterBackupStore
    allowed: frozenset[str] = frozenset()
    stores: Mapping[str, BackupStore] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    selector_error: InvalidInput | None = None
    error: CinderblockError | None = None
    unreachable: Fail | None = None
    rules: ContainerRules | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """The namespaces that were served last. Those after them come first, so that refusals in some hold up no others.

    Attributes:
        created: where a BackupStore was to be created.
        changed: where one was to be changed.
        removed: where one was to be removed.
        checked: where one was to be checked.
    """

    created: str = ""
    changed: str = ""
    removed: str = ""
    checked: str = ""


FROM_THE_START: Final = Turns()


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes of the BackupStores of a ClusterBackupStore.

    Attributes:
        creations: namespaces that get a BackupStore.
        changes: BackupStores whose default annotation is to be that of the ClusterBackupStore.
        removals: BackupStores that go, unless a backup needs them.
        checks: BackupStores whose condition does not show yet what holds for the ClusterBackupStore.
        is_all: whether no write is left for the next reconciliation.
        checks_all: whether no check is left for it.
    """

    creations: tuple[str, ...] = ()
    changes: tuple[BackupStore, ...] = ()
    removals: tuple[BackupStore, ...] = ()
    checks: tuple[BackupStore, ...] = ()
    is_all: bool = True
    checks_all: bool = True


def must_be_held(observed: ObservedClusterStore) -> bool:
    """Return whether the finalizer must be added before anything else: a BackupStore of the store is to be created."""
    metadata = observed.cluster.metadata
    is_open = not metadata.is_being_deleted and labels.STORE_FINALIZER not in metadata.finalizers
    return is_open and bool(observed.allowed or observed.unreadable or _own(observed))


def plan(observed: ObservedClusterStore, turns: Turns = FROM_THE_START) -> Plan:
    """Return what to do about the BackupStores. With a wrong selector, nothing: it would take the store from all.

    A store that is being deleted goes all the same.
    """
    own, cluster = _own(observed), observed.cluster
    if observed.selector_error is not None and not cluster.metadata.is_being_deleted:
        return Plan()
    allowed = frozenset[str]() if cluster.metadata.is_being_deleted else observed.allowed
    creations = _from(turns.created, allowed - observed.stores.keys() - observed.unreadable)
    kept = [store for store in own if store.namespace in allowed]
    outdated = {s.namespace: s for s in kept if _is_managed(s) and s.is_default != cluster.is_default}
    changes = [outdated[namespace] for namespace in _from(turns.changed, outdated)]
    unneeded = {s.namespace: s for s in own if s.namespace not in allowed and _is_removable(s)}
    removals = [unneeded[namespace] for namespace in _from(turns.removed, unneeded)]
    late = {store.namespace: store for store in own if _is_outdated(store, observed, allowed)}
    checks = [late[namespace] for namespace in _from(turns.checked, late)]
    is_all = len(creations) <= MAX_WRITES and len(changes) <= MAX_WRITES
    return Plan(
        tuple(creations[:MAX_WRITES]),
        tuple(changes[:MAX_WRITES]),
        tuple(removals),
        tuple(checks[:MAX_CHECKS]),
        is_all,
        len(checks) <= MAX_CHECKS,
    )


def _from(last: str, namespaces: Iterable[str]) -> list[str]:
    """Return namespaces in the order of their names, beginning after the one that was served last."""
    return sorted(namespaces, key=lambda name: (name <= last, name))


def backup_store(cluster: ClusterBackupStore, namespace: str) -> dict[str, Any]:
    """Return the BackupStore of a namespace that may use a ClusterBackupStore."""
    metadata: dict[str, Any] = {
        "name": cluster.name,
        "namespace": namespace,
        "labels": {labels.MANAGED_BY_LABEL: labels.MANAGED_BY},
    }
    if cluster.is_default:
        metadata["annotations"] = {labels.DEFAULT_STORE_ANNOTATION: "true"}
    return {"metadata": metadata, "spec": {"clusterStoreRef": {"name": cluster.name}}}


def decide(observed: ObservedClusterStore, planned: Plan, failures: Mapping[str, str], now: datetime) -> Decision:
    """Return the status and the finalizer after the BackupStores were changed as planned.

    Args:
        observed: the state before that.
        planned: what was planned.
        failures: why BackupStores could not be created, changed or removed, by namespace.
        now: the instant of the decision.
    """
    cluster = observed.cluster
    holders = _holders(observed) if cluster.metadata.is_being_deleted else ()
    actions: tuple[Action, ...] = ()
    if cluster.metadata.is_being_deleted and not holders and labels.STORE_FINALIZER in cluster.metadata.finalizers:
        actions = (RemoveFinalizer(labels.STORE_FINALIZER),)
    shown = _with_created(observed, planned, failures, _ready(observed, holders, now), now)
    if observed.rules is not None:
        for found in conditions_of(observed.rules, cluster.spec.prefix):
            shown = _with(observed, shown, now, found)
    status = ClusterBackupStoreStatus(
        observed_generation=cluster.metadata.generation,
        conditions=shown,
        container=cluster.spec.container,
        endpoint_url=cluster.spec.endpoint_url,
        access=cluster.spec.access,
        namespaces=len(observed.allowed),
    )
    return Decision(status, actions, _requeue_after(observed, planned))


def conflicts(
    cluster: ClusterBackupStore, namespaces: Iterable[Object], existing: Mapping[str, Object]
) -> dict[str, str]:
    """Return the namespaces to which spec.formerNamespaces gives no place, each with the cause.

    Args:
        cluster: the ClusterBackupStore.
        namespaces: those that may use it.
        existing: all namespaces, by name.
    """
    found: dict[str, str] = {}
    for namespace in namespaces if cluster.spec.former_namespaces else ():
        former = existing.get(shared.former_name(cluster, namespace) or "")
        conflict = shared.former_conflict(cluster, namespace, former)
        if conflict is not None:
            found[namespace.name] = conflict
    return found


def _own(observed: ObservedClusterStore) -> list[BackupStore]:
    """Return the BackupStores that name this ClusterBackupStore, no matter who made them."""
    return [store for store in observed.stores.values() if _names(store, observed.cluster)]


def _names(store: BackupStore, cluster: ClusterBackupStore) -> bool:
    reference = store.spec.cluster_store_ref
    return reference is not None and reference.name == cluster.name


def _is_managed(store: BackupStore) -> bool:
    return store.metadata.labels.get(labels.MANAGED_BY_LABEL) == labels.MANAGED_BY


def _is_removable(store: BackupStore) -> bool:
    """Return whether a BackupStore is the operator's, and no backup is known to need it."""
    metadata = store.metadata
    return _is_managed(store) and not metadata.is_being_deleted and labels.STORE_FINALIZER not in metadata.finalizers


def _holders(observed: ObservedClusterStore) -> tuple[str, ...]:
    """Return the namespaces whose BackupStores need the store: a backup needs them, or they are yet to be removed.

    A BackupStore that is being deleted without our finalizer has no backups, whatever else keeps it there. One that
    does not parse may have some.
    """
    needing = {
        store.namespace
        for store in _own(observed)
        if labels.STORE_FINALIZER in store.metadata.finalizers or _is_removable(store)
    }
    return tuple(sorted(needing | observed.unreadable))


def _is_outdated(store: BackupStore, observed: ObservedClusterStore, allowed: frozenset[str]) -> bool:
    """Return whether a BackupStore shows another state than its ClusterBackupStore.

    It must be False after the check. Otherwise, each reconciliation would enqueue the BackupStore again.
    """
    shown = _ready_reason(store.status.conditions)
    if store.namespace not in allowed:
        return store.is_ready
    if shown == Reason.STORE_NOT_ALLOWED:
        return True
    if observed.error is not None or observed.unreachable is not None:
        return store.is_ready
    is_same = shown == _ready_reason(observed.cluster.status.conditions) and shown not in ("", Reason.ANSWERS)
    return is_same or shown in FAILURES_OF_ALL


def _ready_reason(shown: list[Condition]) -> str:
    return next((c.reason for c in shown if c.type == ConditionType.READY), "")


def _requeue_after(observed: ObservedClusterStore, planned: Plan) -> float:
    if not planned.is_all:
        return MIN_REQUEUE_SECONDS
    is_transient = isinstance(observed.error, TransientError) or observed.cluster.metadata.is_being_deleted
    return RETRY_SECONDS if is_transient or not planned.checks_all else RECHECK_SECONDS


def _ready(observed: ObservedClusterStore, holders: tuple[str, ...], now: datetime) -> list[Condition]:
    generation, before = observed.cluster.metadata.generation, observed.cluster.status.conditions
    if observed.cluster.metadata.is_being_deleted:
        message = f"BackupStores of this store are being removed, or backups need them: {_listed(holders)}"
        return conditions.reconciling(before, now, generation, Reason.IN_USE, message)
    problem = _problem(observed)
    if problem is not None:
        return conditions.stalled(before, now, generation, problem.reason, problem.message)
    message = "The store answers, and movers can reach it through the broker"
    if observed.cluster.spec.access is StoreAccess.READ_ONLY:
        message = f"{message}. {access.READ_ONLY}"
    return conditions.ready(before, now, generation, Reason.ANSWERS, message)


def _problem(observed: ObservedClusterStore) -> Fail | None:
    """Return the first thing that a person must fix."""
    wrong = observed.selector_error or observed.error
    if wrong is not None:
        return Fail(wrong.reason, wrong.message)
    if observed.conflicts:
        return Fail(Reason.FORMER_NAMESPACE_REFUSED, observed.conflicts[min(observed.conflicts)])
    moved = [
        store.namespace
        for store in _own(observed)
        if any(c.reason == Reason.MANIFEST_MISPLACED for c in store.status.conditions)
    ]
    if moved:
        return Fail(
            Reason.FORMER_NAMESPACE_REFUSED,
            f"spec.formerNamespaces, or another server, moves namespaces that have backups elsewhere: {_listed(moved)}."
            " Change it back: their earlier backups cannot be used or deleted until then. If all objects were copied to"
            f" the present server, add status.storePlace of the backups to the annotation"
            f" {labels.MOVED_FROM_ANNOTATION} of the ClusterBackupStore.",
        )
    return observed.unreachable


def _with_created(
    observed: ObservedClusterStore, planned: Plan, failures: Mapping[str, str], shown: list[Condition], now: datetime
) -> list[Condition]:
    """Add the condition that tells whether each namespace has its BackupStore."""
    if observed.selector_error is not None or observed.cluster.metadata.is_being_deleted:
        return shown
    name, own = observed.cluster.name, {store.namespace for store in _own(observed)}
    taken = sorted(namespace for namespace in observed.allowed & observed.stores.keys() if namespace not in own)
    made = len(observed.allowed & own) + sum(namespace not in failures for namespace in planned.creations)
    unreadable = sorted(observed.allowed & observed.unreadable)
    status: ConditionStatus = "False"
    if failures:
        first = min(failures)
        reason, message = Reason.STORES_NOT_CREATED, f"Namespace {first}: {failures[first]}"
        if len(failures) > 1:
            message = f"{message} The same or another error in {_listed(sorted(failures)[1:])}"
    elif taken:
        reason = Reason.NAME_TAKEN
        message = f"Another BackupStore has the name {name} in {_listed(taken)}. It is left alone. Remove or rename it."
    elif unreadable:
        reason = Reason.INVALID_INPUT
        message = (
            f"BackupStore {name} is of another release, and cannot be read, in {_listed(unreadable)}. The log of the"
            " operator says what is wrong. Correct or remove it: its conditions are those of an earlier time."
        )
    elif not planned.is_all:
        reason = Reason.CREATING_STORES
        message = f"{made} of {len(observed.allowed)} namespaces have their BackupStore"
    else:
        status, reason = "True", Reason.STORES_CREATED
        message = f"{made} of {len(observed.allowed)} namespaces have their BackupStore"
    return _with(observed, shown, now, RuleCondition(ConditionType.STORES_CREATED, status, reason, message))


def _with(
    observed: ObservedClusterStore, shown: list[Condition], now: datetime, added: RuleCondition
) -> list[Condition]:
    """Add a condition that lasts."""
    generation = observed.cluster.metadata.generation
    return conditions.with_lasting(
        shown,
        now,
        generation,
        kind=added.kind,
        status=added.status,
        reason=added.reason,
        message=added.message,
    )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more
