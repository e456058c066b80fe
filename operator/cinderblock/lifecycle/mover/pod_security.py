"""Limit spec.mover of BackupStores to a level of the Pod Security Standards, to root with consent, and in priority.

Kubernetes judges the pods of movers by the level of their namespace, which may have none. So the administrator sets a
level for all movers (chart value ``mover.podSecurity``), and the operator reports the first field that exceeds it. The
chart's ValidatingAdmissionPolicy of the operator's Jobs has the same rules (admission/operator-writes.yaml).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cinderblock.api import labels
from cinderblock.api.v1alpha1.store import BackupStore, MoverTemplate
from cinderblock.lifecycle.mover.job import DEFAULT_POD_SECURITY_CONTEXT, DEFAULT_USER
from cinderblock.lifecycle.observed import MoverSettings, PodSecurityLevel, StoreLookup
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

BASELINE_CAPABILITIES = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
"""Capabilities that ``baseline`` allows to add (Kubernetes: Pod Security Standards)."""
RESTRICTED_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
"""Capabilities that ``restricted`` allows to add."""
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
"""SELinux types that ``baseline`` allows."""
IMAGE_USER = 65532
"""User of the image, which a security context without ``runAsUser`` gives to the mover."""
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of the annotations by which the API server sets AppArmor profiles of pods."""
SYSTEM_PRIORITY = "system-"
"""Prefix of the PriorityClasses that Kubernetes reserves (pkg/apis/scheduling: SystemPriorityClassPrefix)."""


def runs_as_root(template: MoverTemplate) -> bool:
    """Return whether movers of this template run as root, as they do by default."""
    pod = template.pod_security_context.get("runAsUser", IMAGE_USER)
    user = template.security_context.get("runAsUser", pod) if template.security_context else DEFAULT_USER
    return bool(user == 0)


def mover_refusal(lookup: StoreLookup, settings: MoverSettings) -> Fail | None:
    """Return why movers of a store may not run, naming the field of spec.mover; None if they may.

    Args:
        lookup: the store, and whether its namespace allows root movers.
        settings: the operator's settings for movers.
    """
    store = lookup.store
    if store is None:
        return None
    level = settings.pod_security
    excess = next(_excesses(store.spec.mover, level), None)
    if excess is not None:
        cause = f"{excess}, and the operator allows movers only the Pod Security level {level}"
        return _refusal(store, f"{cause}. Change spec.mover, or ask an administrator to raise mover.podSecurity.")
    priority = store.spec.mover.priority_class_name or ""
    if priority.startswith(SYSTEM_PRIORITY) and not settings.allow_system_priority:
        cause = f"spec.mover.priorityClassName is {priority}, which evicts other pods"
        return _refusal(store, f"{cause}. Change it, or ask an administrator to set mover.allowSystemPriority.")
    if settings.root_requires_opt_in and not lookup.allows_root and runs_as_root(store.spec.mover):
        remedy = "Set spec.mover.securityContext with runAsNonRoot and runAsUser, or ask an administrator to annotate"
        consent = f'the namespace with {labels.ROOT_MOVERS_ANNOTATION}: "true"'
        return _refusal(store, f"spec.mover lets them run as root, which needs consent. {remedy} {consent}.")
    return None


def _refusal(store: BackupStore, cause: str) -> Fail:
    return Fail(Reason.MOVER_NOT_PERMITTED, f"Cannot start movers of BackupStore {store.name}: {cause}")


def _excesses(template: MoverTemplate, level: PodSecurityLevel) -> Iterator[str]:
    """Yield each setting of a template that a level does not allow, for a person."""
    if level is PodSecurityLevel.PRIVILEGED:
        return
    container, pod = template.security_context, template.pod_security_context
    yield from _container_excesses("spec.mover.securityContext", container)
    yield from _profile_excesses("spec.mover.securityContext", container)
    yield from _profile_excesses("spec.mover.podSecurityContext", pod)
    if pod.get("sysctls"):
        yield "spec.mover.podSecurityContext.sysctls is set"
    if any(key.startswith(APPARMOR_ANNOTATION) for key in template.annotations):
        yield f"spec.mover.annotations has a key that begins with {APPARMOR_ANNOTATION}"
    if level is PodSecurityLevel.RESTRICTED:
        yield from _restricted_excesses(template)


def _container_excesses(path: str, context: dict[str, Any]) -> Iterator[str]:
    if context.get("privileged"):
        yield f"{path}.privileged is true"
    if context.get("procMount", "Default") != "Default":
        yield f"{path}.procMount is {context['procMount']}"
    added = _capabilities(context, "add") - BASELINE_CAPABILITIES
    if added:
        yield f"{path}.capabilities.add has {min(added)}"


def _profile_excesses(path: str, context: dict[str, Any]) -> Iterator[str]:
    """Yield what both kinds of security context can have."""
    for profile in ("seccompProfile", "appArmorProfile"):
        if _part(context, profile).get("type") == "Unconfined":
            yield f"{path}.{profile}.type is Unconfined"
    selinux = _part(context, "seLinuxOptions")
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{path}.seLinuxOptions sets another type, user or role"
    if _part(context, "windowsOptions").get("hostProcess"):
        yield f"{path}.windowsOptions.hostProcess is true"


def _restricted_excesses(template: MoverTemplate) -> Iterator[str]:
    context, path = template.security_context, "spec.mover.securityContext"
    pod = template.pod_security_context or DEFAULT_POD_SECURITY_CONTEXT
    if runs_as_root(template) or not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield f"{path} does not set runAsNonRoot: true and a runAsUser other than 0"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.allowPrivilegeEscalation is not false"
    if "ALL" not in _capabilities(context, "drop"):
        yield f"{path}.capabilities.drop lacks ALL"
    added = _capabilities(context, "add") - RESTRICTED_CAPABILITIES
    if added:
        yield f"{path}.capabilities.add has {min(added)}"
    if not context.get("seccompProfile") and not pod.get("seccompProfile"):
        yield "spec.mover.podSecurityContext.seccompProfile is not set"


def _capabilities(context: dict[str, Any], change: str) -> set[str]:
    listed = _part(context, "capabilities").get(change)
    return {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()


def _part(context: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a part of a security context. An object of an older release may have a value of the wrong type there.

    The API server refuses such a Job itself.
    """
    found = context.get(name)
    return found if isinstance(found, dict) else {}
