"""Find where the connection to the API server is configured: in a kubeconfig, or in the pod."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from cinderblock.errors import InvalidInput
from cinderblock.kube.kubeconfig import Kubeconfig
from cinderblock.kube.rest_config import ConfigSource, RestConfig, bearer_token, read_config_file

SERVICE_ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts a pod's token, CA and namespace."""


def default_source(
    environment: Mapping[str, str],
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    needs_token: bool = True,
) -> ConfigSource:
    """Return the source to use: ``kubeconfig`` if given, else KUBECONFIG, else the pod's own, else ~/.kube/config.

    Without ``needs_token``, a pod needs no token: the gateway passes on the tokens of its callers and has none.
    The order is that of controller-runtime (``pkg/client/config``); the ``kubernetes`` package would prefer
    ~/.kube/config in a pod. Raises InvalidInput if there is no source.
    """
    paths = kubeconfig or environment.get("KUBECONFIG", "")
    if paths:
        return Kubeconfig(tuple(path for path in paths.split(os.pathsep) if path), context)
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return InCluster(environment, needs_token=needs_token)
    home = os.path.join(environment.get("HOME", ""), ".kube", "config")
    if os.path.exists(home):
        return Kubeconfig((home,), context)
    raise InvalidInput(
        "Cannot find a cluster: KUBECONFIG is not set and this is not a pod. "
        "Set KUBECONFIG, or run in a pod with a ServiceAccount token."
    )


class InCluster:
    """The identity of the pod's ServiceAccount."""

    def __init__(
        self, environment: Mapping[str, str], directory: str = SERVICE_ACCOUNT_DIRECTORY, *, needs_token: bool = True
    ) -> None:
        self._environment = {"KUBERNETES_SERVICE_PORT": "443", **environment}
        self._directory = directory
        self._needs_token = needs_token

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read token, CA and namespace as the kubelet last wrote them."""
        del renew  # nothing is cached
        # The loader insists on a file with a token, which the gateway's pod lacks. It gets the CA's file there, and
        # what it takes for a token is dropped.
        token_path = self._path("token") if self._needs_token else self._path("ca.crt")
        loader = InClusterConfigLoader(
            token_path, self._path("ca.crt"), try_refresh_token=False, environ=self._environment
        )
        configuration = Configuration()
        try:
            loader.load_and_set(configuration)
        except (ConfigException, OSError) as error:
            raise InvalidInput(f"Cannot read the pod's ServiceAccount in {self._directory}: {error}") from error
        ca = read_config_file(configuration.ssl_ca_cert)
        if not self._needs_token:
            return RestConfig(server=configuration.host, ca=ca)
        return RestConfig(
            server=configuration.host,
            ca=ca,
            token=bearer_token(configuration.api_key["BearerToken"]),
            namespace=read_config_file(self._path("namespace")).decode().strip() or "default",
        )

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
