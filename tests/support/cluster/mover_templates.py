"""Settings of spec.mover, and the Pod Security levels that allow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

EVERYWHERE: Final = ("baseline", "restricted", "privileged")
BASELINE: Final = ("baseline", "privileged")
PRIVILEGED: Final = ("privileged",)

RESTRICTED: Final[dict[str, Any]] = {
    "podSecurityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
"""Settings that ``restricted`` requires."""


@dataclass(frozen=True, slots=True)
class Template:
    """One setting.

    Attributes:
        field: the part of its path that a refusal at ``baseline`` names; empty if baseline allows it.
        mover: spec.mover of a BackupStore.
        levels: the levels that allow it.
    """

    field: str
    mover: dict[str, Any]
    levels: tuple[str, ...] = PRIVILEGED


def _container(field: str, **context: Any) -> Template:
    return Template(f"securityContext.{field}", {"securityContext": context})


def _pod(field: str, **context: Any) -> Template:
    return Template(f"podSecurityContext.{field}", {"podSecurityContext": context})


TEMPLATES: Final = (
    Template("", {}, BASELINE),
    Template("", RESTRICTED, EVERYWHERE),
    Template("", {"securityContext": {"capabilities": {"add": ["DAC_OVERRIDE"]}}}, BASELINE),
    Template("", {"podSecurityContext": {"fsGroup": 1000, "seLinuxOptions": {"type": "container_t"}}}, BASELINE),
    _container("privileged", privileged=True),
    _container("procMount", procMount="Unmasked"),
    _container("capabilities.add", capabilities={"add": ["CHOWN", "SYS_ADMIN"]}),
    _container("capabilities.add", capabilities={"add": ["ALL"]}),
    _container("seccompProfile.type", seccompProfile={"type": "Unconfined"}),
    _container("appArmorProfile.type", appArmorProfile={"type": "Unconfined"}),
    _container("seLinuxOptions", seLinuxOptions={"type": "spc_t"}),
    _container("seLinuxOptions", seLinuxOptions={"user": "system_u"}),
    _pod("seccompProfile.type", seccompProfile={"type": "Unconfined"}),
    _pod("appArmorProfile.type", appArmorProfile={"type": "Unconfined"}),
    _pod("seLinuxOptions", seLinuxOptions={"role": "sysadm_r"}),
    _pod("sysctls", sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    Template(
        "spec.mover.annotations",
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/mover": "unconfined"}},
    ),
)
