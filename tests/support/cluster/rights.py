"""Rights of the chart's ServiceAccounts: their roles on a real API server, and clients with their tokens."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from tests.cluster.toolchain import tool
from tests.support.cluster.chart import Objects

_RBAC = "rbac.authorization.k8s.io"
_KINDS = {
    "ServiceAccount": Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    "ClusterRole": Kind(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Kind(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    "Role": Kind(_RBAC, "v1", "roles", "Role"),
    "RoleBinding": Kind(_RBAC, "v1", "rolebindings", "RoleBinding"),
}


async def grant(client: KubeClient, objects: Objects) -> None:
    """Create the accounts, roles and bindings among the chart's objects; replace the cluster-scoped ones."""
    for item in objects:
        kind = _KINDS.get(item["kind"])
        if kind is not None:
            if not kind.namespaced:
                await client.delete(kind, item["metadata"]["name"], None)
            await client.create(kind, item)


async def all_rights(client: KubeClient, namespace: str, account: str) -> None:
    """Create a ServiceAccount with the rights of cluster-admin."""
    await client.create(_KINDS["ServiceAccount"], {"metadata": {"name": account, "namespace": namespace}})
    binding = {
        "metadata": {"name": f"{namespace}-{account}"},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    await client.create(_KINDS["ClusterRoleBinding"], binding)


async def connect_as(kubeconfig: Path, namespace: str, account: str, folder: Path) -> KubeClient:
    """Return a client that acts as the ServiceAccount only."""
    return await connect(kubeconfig=str(_kubeconfig_of(kubeconfig, namespace, account, folder)))


def token_of(kubeconfig: Path, namespace: str, account: str) -> str:
    """Return a token of a ServiceAccount."""
    options = [f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
    command = [str(tool("kubectl")), *options, "create", "token", account]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _kubeconfig_of(kubeconfig: Path, namespace: str, account: str, folder: Path) -> Path:
    token = token_of(kubeconfig, namespace, account)
    config = yaml.safe_load(kubeconfig.read_text())
    name = next(item["context"]["user"] for item in config["contexts"] if item["name"] == config["current-context"])
    config["users"] = [{"name": name, "user": {"token": token}}]
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
