"""A namespace as an OpenStack project, with the chart's gateway and users with Kubernetes roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster, Object
from tests.support.cluster.runs import install_release

GATEWAY = f"{RELEASE}-gateway"
SETTINGS = ("gateway.enabled=true", "gateway.replicas=1")

_ROLES = {"reader": ("view",), "member": ("edit",), "admin": ("edit", f"{RELEASE}-status-reset")}
"""ClusterRoles for OpenStack's roles, as in docs/guide/openstack.md."""
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "update", "patch", "delete"]
_SNAPSHOTS = {"reader": _READ, "member": _WRITE, "admin": _WRITE}


def enable(kube: KubeCluster) -> str:
    """Enable the gateway. Returns its URL for this machine."""
    install_release(kube, *SETTINGS)
    service = kube.wait_until("gateway", lambda: kube.get("service", GATEWAY, RELEASE_NAMESPACE))
    spec = service["spec"]
    return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def disable(kube: KubeCluster) -> None:
    """Disable the gateway."""
    install_release(kube)


@dataclass(frozen=True)
class Cloud:
    """An OpenStack project.

    Attributes:
        endpoint: URL of the gateway.
        project: the namespace.
    """

    kube: KubeCluster
    endpoint: str
    project: str

    @property
    def identity(self) -> str:
        """Return the URL for logins."""
        return f"{self.endpoint}/identity/v3"

    def user(self, role: str) -> str:
        """Create a ServiceAccount with the rights of the role admin, member or reader. Returns its token."""
        self.kube.apply(*self._account(role))
        return self.kube.kubectl("-n", self.project, "create", "token", role).strip()

    def _account(self, role: str) -> list[Object]:
        access = "rbac.authorization.k8s.io"
        rule = {"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"], "verbs": _SNAPSHOTS[role]}
        return [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._named(role)},
            {
                "apiVersion": f"{access}/v1",
                "kind": "Role",
                "metadata": self._named(f"{role}-snapshots"),
                "rules": [rule],
            },
            self._binding(role, "Role", f"{role}-snapshots"),
            *(self._binding(role, "ClusterRole", granted) for granted in _ROLES[role]),
        ]

    def _binding(self, role: str, kind: str, granted: str) -> Object:
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": self._named(f"{role}-{granted}"),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": granted},
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": self.project}],
        }

    def _named(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self.project}
