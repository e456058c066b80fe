"""The objects in the embedded S3 server, read with the credentials of a namespace."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from cinderblock.api.mover import StoreLocation
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import credentials_from_secret
from cinderblock.store.factory import open_store
from tests.cluster.toolchain import tool
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, KubeClusterError

SERVICE = "svc/cinderblock-store"
PORT = 7070


@dataclass(frozen=True)
class EmbeddedStore:
    """The bucket of a namespace's default BackupStore.

    Attributes:
        container: the bucket.
        prefix: prefix of the store's keys.
        secret: data of the credentials Secret.
    """

    container: str
    prefix: str
    secret: dict[str, bytes]

    @classmethod
    def of(cls, kube: KubeCluster, namespace: str, name: str = "default") -> EmbeddedStore:
        """Read a BackupStore of a namespace and its Secret."""
        store = kube.get("backupstore", name, namespace)
        if store is None:
            raise KubeClusterError(f"namespace {namespace} has no BackupStore {name}")
        secret = kube.get("secret", store["spec"]["credentialsSecretRef"]["name"], namespace)
        data = {key: base64.b64decode(value) for key, value in (secret or {}).get("data", {}).items()}
        return cls(store["spec"]["container"], store["spec"].get("prefix", ""), data)

    def keys(self, kube: KubeCluster) -> set[str]:
        """Return the keys of all objects below the prefix."""
        with self.opened(kube) as store:
            return {found.key for found in store.list(f"{self.prefix}/" if self.prefix else "")}

    @contextmanager
    def opened(self, kube: KubeCluster) -> Iterator[ObjectStore]:
        """Open the bucket through a port that kubectl forwards."""
        with forwarded(kube) as port:
            location = StoreLocation(endpoint_url=f"http://127.0.0.1:{port}", container=self.container)
            with closing(open_store(location, credentials_from_secret(self.secret))) as store:
                yield store


@contextmanager
def forwarded(kube: KubeCluster) -> Iterator[int]:
    """Forward a local port to the embedded S3 server inside the block."""
    port = _free_port()
    command = [str(tool("kubectl")), "-n", RELEASE_NAMESPACE, "port-forward", SERVICE, f"{port}:{PORT}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise KubeClusterError("kubectl port-forward to the embedded store did not come up")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
