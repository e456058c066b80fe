"""``decide`` for a BackupGrant: record the namespaces that it names by their UIDs, and say what it grants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup_grant import BackupGrant, BackupGrantStatus, GrantedNamespace
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import conditions, selector
from cinderblock.lifecycle.actions import Decision
from cinderblock.reasons import Reason

_NAMED = 10
"""Namespaces that a message names at most."""


def decide(grant: BackupGrant, existing: Mapping[str, Object], now: datetime) -> Decision:
    """Return what to do about a BackupGrant.

    A change of the spec records all its namespaces again: its author means the namespaces of that moment.

    Args:
        grant: the BackupGrant.
        existing: the namespaces that its spec names and that exist, by name.
        now: the instant of the decision.
    """
    if grant.metadata.is_being_deleted:
        return Decision(None)
    recorded = _recorded(grant, existing)
    replaced = [n.name for n in recorded if n.name in existing and existing[n.name].uid != n.uid]
    before, generation = grant.status.conditions if grant.status.id == grant.uid else [], grant.metadata.generation
    problem = _problem(grant, replaced)
    if problem is None:
        shown = conditions.ready(before, now, generation, Reason.GRANTED, _granted_message(recorded))
    else:
        shown = conditions.stalled(before, now, generation, *problem)
    shown = _with_absent(shown, grant, recorded, now)
    status = BackupGrantStatus(id=grant.uid, namespaces=recorded, observed_generation=generation, conditions=shown)
    return Decision(status)


def _recorded(grant: BackupGrant, existing: Mapping[str, Object]) -> list[GrantedNamespace]:
    known = {n.name: n.uid for n in grant.status.namespaces} if grant.has_current_status else {}
    uids = {name: known.get(name) or existing[name].uid for name in grant.spec.to.namespaces if name in existing}
    # A namespace that is gone stays recorded, so that the next one of its name gets nothing.
    gone = {name: uid for name, uid in known.items() if name in grant.spec.to.namespaces and name not in existing}
    return [GrantedNamespace(name=name, uid=uid) for name, uid in sorted((uids | gone).items())]


def _granted_message(recorded: list[GrantedNamespace]) -> str:
    if not recorded:
        return "No namespace that the grant names exists."
    return f"Restores are permitted in namespace {_names([namespace.name for namespace in recorded])}."


def _with_absent(
    shown: list[Condition], grant: BackupGrant, recorded: list[GrantedNamespace], now: datetime
) -> list[Condition]:
    """Add the condition about namespaces that do not exist yet: anyone who creates one of them may restore."""
    names = {namespace.name for namespace in recorded}
    absent = [name for name in grant.spec.to.namespaces if name not in names]
    if not absent:
        return conditions.without(shown, ConditionType.NAMESPACES_ABSENT)
    return conditions.with_lasting(
        shown,
        now,
        grant.metadata.generation,
        kind=ConditionType.NAMESPACES_ABSENT,
        status="True",
        reason=Reason.NAMESPACE_ABSENT,
        message=f"Namespace {_names(absent)} does not exist. Anyone who creates it may restore the granted backups from"
        " then on. Remove the name from spec.to.namespaces, unless you know who will create the namespace.",
    )


def _problem(grant: BackupGrant, replaced: list[str]) -> tuple[Reason, str] | None:
    """Return the reason and the message for a grant of which something does not apply."""
    chosen = grant.spec.backups
    if replaced:
        return Reason.NAMESPACE_REPLACED, (
            f"Namespace {_names(replaced)} was deleted and created again, so the grant does not apply to it. If its new"
            " owner may restore, delete the BackupGrant and create it again."
        )
    try:
        has_requirements = bool(selector.parse(chosen.selector or {}, "spec.backups.selector").requirements)
    except InvalidInput as error:
        return error.reason if isinstance(error.reason, Reason) else Reason.INVALID_SELECTOR, error.message
    if not (chosen.all or chosen.names or has_requirements):
        message = "The grant selects no backups. Set names, selector or all in spec.backups."
        return Reason.NOTHING_GRANTED, message
    if not grant.spec.to.namespaces:
        return Reason.NOTHING_GRANTED, "The grant names no namespace. Add some to spec.to.namespaces."
    return None


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(sorted(names)[:_NAMED])}{more}"
