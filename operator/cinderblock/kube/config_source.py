"""Find out where the connection to the API server is configured: in a kubeconfig, or in the pod itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from cinderblock.errors import InvalidInput
from cinderblock.kube.kubeconfig import Kubeconfig
from cinderblock.kube.rest_config import ConfigSource, RestConfig, read_config_file

SERVICE_ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts a pod's token, CA and namespace."""


def default_source(
    environment: Mapping[str, str],
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    identified: bool = True,
) -> ConfigSource:
    """The source to use: ``kubeconfig`` if given, else KUBECONFIG, else the pod's own, else ~/.kube/config.

    Without ``identified``, a pod needs no token: who only hands on the tokens of others has none of its own.
    The order is that of controller-runtime (``pkg/client/config``). Raises InvalidInput if there is none of them.
    """
    paths = kubeconfig or environment.get("KUBECONFIG", "")
    if paths:
        return Kubeconfig(tuple(path for path in paths.split(os.pathsep) if path), context)
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return InCluster(environment, identified=identified)
    home = os.path.join(environment.get("HOME", ""), ".kube", "config")
    if os.path.exists(home):
        return Kubeconfig((home,), context)
    raise InvalidInput("There is no cluster to talk to: set KUBECONFIG, or run in a pod with a service account token")


class InCluster:
    """The identity of the pod's ServiceAccount."""

    def __init__(
        self, environment: Mapping[str, str], directory: str = SERVICE_ACCOUNT_DIRECTORY, *, identified: bool = True
    ) -> None:
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._directory = directory
        self._identified = identified

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read token, CA and namespace as the kubelet last wrote them."""
        del renew  # nothing is kept
        if not self._identified:
            return RestConfig(server=self._server, ca=self._read("ca.crt"))
        return RestConfig(
            server=self._server,
            ca=self._read("ca.crt"),
            token=self._read("token").decode().strip(),
            namespace=self._read("namespace").decode().strip() or "default",
        )

    def _read(self, name: str) -> bytes:
        return read_config_file(os.path.join(self._directory, name))
