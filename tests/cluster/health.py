"""Check whether a cluster works by sending requests to it, not only by the state of its processes."""

import urllib.request

from tests.cluster.components import Components
from tests.cluster.settings import NODE, Settings


class Health:
    """Health checks of one running cluster."""

    def __init__(self, settings: Settings, components: Components) -> None:
        self._settings = settings
        self._api = components.api

    def is_api_ready(self) -> bool:
        """Return whether the API server reports that it is ready."""
        return self._api.is_ready()

    def is_node_ready(self) -> bool:
        """Return whether the node is ready and accepts pods."""
        # The API server's state may be older than the kubelet's end.
        if not self._is_healthy("kubelet-health"):
            return False
        node = self._api.get(f"/api/v1/nodes/{NODE}")
        if node is None or node["spec"].get("taints"):
            return False
        conditions = node["status"].get("conditions") or []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def is_proxy_healthy(self) -> bool:
        """Return whether kube-proxy has written its rules, and keeps writing them."""
        return self._is_healthy("proxy-health")

    def _is_healthy(self, port: str) -> bool:
        url = f"http://127.0.0.1:{self._settings.ports[port]}/healthz"
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def is_registered(self, driver: str) -> bool:
        """Return whether the node offers this CSI driver."""
        node = self._api.get(f"/apis/storage.k8s.io/v1/csinodes/{NODE}")
        drivers = (node or {}).get("spec", {}).get("drivers") or []
        return any(entry["name"] == driver for entry in drivers)

    def has_default_account(self) -> bool:
        """Return whether pods can be created in the default namespace."""
        return self._api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def versions(self) -> str:
        """Return the versions that the node reports."""
        information = (self._api.get(f"/api/v1/nodes/{NODE}") or {}).get("status", {}).get("nodeInfo", {})
        keys = ("kubeletVersion", "containerRuntimeVersion", "kernelVersion", "osImage")
        return ", ".join(str(information[key]) for key in keys if key in information)
